"""sse: frames, beats, and what happens to the source when the reader leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from assistant import sse
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.sse import Decoder


@dataclass
class Said:
    """What a frame may hold."""

    text: str


@settings(deadline=None)
@given(st.text(), st.none() | st.just("task/7"))
def test_a_frame(text: str, place: str | None) -> None:
    """Whatever the text is, one event comes out, with that text and that id."""
    (found,) = Decoder().feed(sse.frame("chunk", Said(text), place))
    assert (found.event, json.loads(found.data)) == ("chunk", {"text": text})
    assert found.id == (place or "")


async def silent_then(*frames: bytes) -> AsyncGenerator[bytes, None]:
    """Says nothing for a while before each."""
    for one in frames:
        await asyncio.sleep(0.05)
        yield one


async def test_a_silent_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats come while it is silent; what it says comes whole, and in order."""
    monkeypatch.setattr(sse, "BEAT_SECONDS", 0.01)
    response = sse.stream(silent_then(b"one", b"two"))
    sent = [data async for data in response.body_iterator]
    assert sse.BEAT in sent
    assert [data for data in sent if data != sse.BEAT] == [b"one", b"two"]


def test_the_head() -> None:
    """No charset, no cache, no buffer."""
    headers = sse.stream(silent_then()).headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"


async def test_a_reader_that_leaves() -> None:
    """Its source is closed, in the middle of whatever it waits for, before the response is over."""
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.set()

    async def receive() -> dict[str, str]:
        await waiting.wait()
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        """Take it."""

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}
    await sse.stream(frames())(scope, receive, send)
    assert closed.is_set()
