from __future__ import annotations

import asyncio
from dataclasses import fields

import pytest

import bridge
from bridge.cli import answering
from bridge.cli.answering import Answering, by_command
from bridge.client import AsyncClient
from bridge.events import Chunk, End
from bridge.settings import Settings, env_name, file_name
from bridge.sinks.matrix.asked import Asked
from bridge.view import View
from bridge.worker import process
from tests.gateway.running import running
from tests.gateway.writer import Writer
from tests.proxy import proxy

HOSTILE = "$(id); `id`\n\0 \ud800"


async def printed(asked: Asked, script: str) -> str:
    """What a shell script prints that answers this."""
    events = [one async for one in by_command(["sh", "-c", script])(asked).events]
    assert isinstance(events[-1], End)
    assert events[-1].state == "succeeded", events
    return "".join(one.text for one in events if isinstance(one, Chunk))


async def test_what_strangers_write_reaches_a_command_as_it_is() -> None:
    """No shell sees it; what can't stand in an environment is left out or replaced."""
    asked = Asked("!room:a", "$1", "@ann:a", HOSTILE, thread=HOSTILE)
    assert await printed(asked, "cat") == "$(id); `id`\n\0 \ufffd"
    assert await printed(asked, 'printf %s "$MATRIX_THREAD"') == "$(id); `id`\n \ufffd"


async def test_a_long_question() -> None:
    """As long as an event can be, read or not."""
    asked = Asked("!room:a", "$1", "@ann:a", "x" * 65_000)
    assert await printed(asked, "wc -c") == "65000\n"
    assert await printed(asked, "echo done") == "done\n"


async def test_a_command_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the bot's, nor the file that it stands in, nor the address of a Redis where it could write."""
    secret = [one for one in fields(Settings) if one.metadata["secret"] or one.name == "redis_url"]
    assert len(secret) > 3
    for one in secret:
        for name in (env_name(one), file_name(one)):
            monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("MODEL_KEY", "its own")
    said = await printed(Asked("!room:a", "$1", "@ann:a", "?"), "env")
    assert "hidden" not in said
    assert "MODEL_KEY=its own" in said


async def test_the_end_of_who_died_is_not_taken_for_the_new_answer(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of the one before is over when another has just taken the question up: his answer counts."""
    asked = Asked("!room:a", "$1", "@ann:a", "who?")
    with (
        Writer(redis_url, asked.task_id, lease_ms=60_000) as died,
        running(redis_url, lease_seconds=0.5) as gateway,
        proxy(redis_url) as relay,
    ):
        died.open()
        settings = Settings(redis_url=relay.url, gateway_url=gateway.url)
        lost = asyncio.Event()

        async def announce(task_id: str, *, settings: Settings) -> bool:
            """What comes after this reaches Redis only when the gateway has judged."""
            confirmed = await bridge.create_task_async(task_id, settings=settings)
            relay.stall()
            died.lease_ms = 1
            died.renew()
            async with AsyncClient(gateway.url) as client:
                async for view in client.follow(task_id):
                    assert view.error is None or view.error["code"] == "worker_lost"
            lost.set()
            return confirmed

        async def last_view() -> View:
            async with Answering(by_command(["echo", "me"]), settings) as answers:
                return [view async for view in answers.views(asked)][-1]

        monkeypatch.setattr(answering, "create_task_async", announce)
        try:
            answer = asyncio.create_task(last_view())
            await lost.wait()
            async with AsyncClient(gateway.url) as client:
                assert [view.attempt async for view in client.follow(asked.task_id)][-1] == 1
            relay.flow()
            view = await answer
        finally:
            process.reset()
    assert (view.state, view.text, view.attempt) == ("succeeded", "me\n", 2)
