from __future__ import annotations

from dataclasses import fields

import pytest

from bridge.cli.answering import by_command
from bridge.events import Chunk, End
from bridge.settings import Settings, env_name, file_name
from bridge.sinks.matrix.asked import Asked

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
