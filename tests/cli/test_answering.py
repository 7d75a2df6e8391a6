from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import fields
from typing import Any, Self

import pytest

import bridge
from bridge import Task
from bridge.cli import answering
from bridge.cli.answering import MOST_ATTEMPTS, Answering, Work, by_command
from bridge.client import AsyncClient
from bridge.errors import StoreUnavailable
from bridge.events import Chunk, End, Event
from bridge.settings import Settings, env_name, file_name
from bridge.sinks.matrix.asked import Asked
from bridge.view import View
from bridge.worker import process
from tests.gateway.running import running
from tests.gateway.writer import Writer
from tests.proxy import proxy
from tests.waiting import DEADLINE_SECONDS, eventually_async, go_on_for

PATIENT: dict[str, Any] = {"create_timeout_seconds": DEADLINE_SECONDS}
"""Announcing is no matter of time, but where a test says so."""
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
        settings = Settings(redis_url=relay.url, gateway_url=gateway.url, **PATIENT)
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


@pytest.mark.parametrize("why", ["cancelled", "leaving"])
async def test_what_is_not_wanted_any_more_is_not_begun(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Neither after a cancel that came before the work, nor when the bot was told to leave meanwhile."""
    asked = Asked("!room:a", "$1", "@ann:a", "who?")
    asked_for: list[Asked] = []

    def maker(asked: Asked) -> Work:
        asked_for.append(asked)
        return by_command(["echo", "me"])(asked)

    class Begun(Task):
        """Redis is quicker than the event loop."""

        def start(self) -> Self:
            super().start()
            self.wait_begun(8)
            return self

    async def announce(task_id: str, *, settings: Settings) -> bool:
        confirmed = await bridge.create_task_async(task_id, settings=settings)
        if why == "cancelled":
            writer.cancel()
        else:
            answers.stop()
        return confirmed

    monkeypatch.setattr(answering, "create_task_async", announce)
    monkeypatch.setattr(answering, "Task", Begun)
    try:
        with Writer(redis_url, asked.task_id) as writer, running(redis_url) as gateway:
            settings = Settings(redis_url=redis_url, gateway_url=gateway.url, **PATIENT)
            async with Answering(maker, settings) as answers:
                view = [view async for view in answers.views(asked)][-1]
    finally:
        process.reset()
    assert asked_for == []
    if why == "cancelled":
        assert view.state == "cancelled"
    else:
        assert view.error is not None
        assert view.error["code"] == "stopped"


async def test_who_asks_again_waits_for_the_same_work(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes away before it knows of the attempt: that is an error each time, and the work goes on."""
    asked = Asked("!room:a", "$1", "@ann:a", "who?")
    back, seen = asyncio.Event(), asyncio.Event()
    made = 0

    async def source() -> AsyncGenerator[Event, None]:
        await back.wait()
        yield Chunk("me")
        await seen.wait()

    def maker(asked: Asked) -> Work:
        nonlocal made
        made += 1
        return Work(source())

    async def announce(task_id: str, *, settings: Settings) -> bool:
        confirmed = await bridge.create_task_async(task_id, settings=Settings(redis_url=redis_url, **PATIENT))
        relay.stall()
        return confirmed

    monkeypatch.setattr(answering, "create_task_async", announce)
    try:
        with running(redis_url) as gateway, proxy(redis_url) as relay:
            settings = Settings(redis_url=relay.url, gateway_url=gateway.url, create_timeout_seconds=0.1)
            async with Answering(maker, settings) as answers:
                for _ in range(2):
                    with pytest.raises(StoreUnavailable, match="can't be begun"):
                        await anext(answers.views(asked))
                relay.flow()
                back.set()
                view = View(asked.task_id)
                while not view.ended:
                    with suppress(StoreUnavailable):
                        async for view in answers.views(asked):
                            if view.text:
                                seen.set()
    finally:
        process.reset()
    assert (view.state, view.text, view.attempt, made) == ("succeeded", "me", 1, 1)


async def test_an_answer_that_is_taken_for_lost_is_still_awaited(redis_url: str) -> None:
    """Cut off from Redis for longer than a lease, the work goes on, and in the end its answer counts."""
    asked = Asked("!room:a", "$1", "@ann:a", "who?")
    back = asyncio.Event()
    given: list[View] = []

    async def source() -> AsyncGenerator[Event, None]:
        yield Chunk("m")
        await back.wait()
        yield Chunk("e")

    try:
        with running(redis_url, lease_seconds=0.5) as gateway, proxy(redis_url) as relay:
            settings = Settings(redis_url=relay.url, gateway_url=gateway.url, lease_seconds=0.5, **PATIENT)
            async with Answering(lambda _: Work(source()), settings) as answers:

                async def watch() -> None:
                    async for each in answers.views(asked):
                        given.append(each)
                        if each.text == "m":
                            relay.stall()

                with pytest.raises(StoreUnavailable, match="taken for lost"):
                    await watch()
                assert not any(each.ended for each in given)
                relay.flow()
                back.set()
                view = View(asked.task_id)
                while not view.ended:
                    with suppress(StoreUnavailable):
                        view = [view async for view in answers.views(asked)][-1]
    finally:
        process.reset()
    assert (view.state, view.text, view.attempt) == ("succeeded", "me", 1)


@pytest.mark.parametrize("comes_back", [True, False])
async def test_an_answer_that_redis_does_not_have_yet_is_not_made_again(
    redis_url: str, comes_back: bool
) -> None:
    """Work that is over while Redis is away is still this bot's: who asks before its end has arrived is shown
    it. A bot that is told to leave doesn't wait for Redis to come back.
    """
    asked = Asked("!room:a", "$1", "@ann:a", "who?")
    away = asyncio.Event()
    made = 0

    async def source() -> AsyncGenerator[Event, None]:
        yield Chunk("me")
        await away.wait()

    def maker(asked: Asked) -> Work:
        nonlocal made
        made += 1
        return Work(source())

    try:
        with running(redis_url) as gateway, proxy(redis_url) as relay:
            settings = Settings(
                redis_url=relay.url, gateway_url=gateway.url, close_timeout_seconds=0.1, **PATIENT
            )
            async with Answering(maker, settings) as answers:
                async with aclosing(answers.views(asked)) as views:
                    async for view in views:
                        if view.text:
                            break
                ((task, _),) = answers._works.values()
                relay.stall()
                away.set()
                await eventually_async(lambda: task.finished)
                await go_on_for(0.5)  # longer than anybody waits for Redis
                async with aclosing(answers.views(asked)) as views:
                    assert (await anext(views)).state == "running"
                    if comes_back:
                        relay.flow()
                        view = [view async for view in views][-1]
                        assert (view.state, view.text, view.attempt) == ("succeeded", "me", 1)
                if comes_back:
                    await eventually_async(lambda: not answers._works)
            assert (made, answers._works) == (1, {})
    finally:
        process.reset()


async def test_a_question_that_kills_whoever_answers_it_is_given_up(redis_url: str) -> None:
    """After so many attempts the loss of the last one is the answer."""
    asked = Asked("!room:a", "$1", "@ann:a", "who?")
    with Writer(redis_url, asked.task_id) as died, running(redis_url, lease_seconds=0.5) as gateway:
        for _ in range(MOST_ATTEMPTS):
            died.open()
        died.lease_ms = 1
        died.renew()
        async with AsyncClient(gateway.url) as client:
            assert [view.ended async for view in client.follow(asked.task_id)][-1]
        settings = Settings(redis_url=redis_url, gateway_url=gateway.url, **PATIENT)
        async with Answering(by_command(["echo", "me"]), settings) as answers:
            view = [view async for view in answers.views(asked)][-1]
    assert view.error is not None
    assert (view.error["code"], view.attempt) == ("worker_lost", MOST_ATTEMPTS)
