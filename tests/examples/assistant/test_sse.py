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
from starlette.types import Message

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


async def test_a_silent_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats come while it is silent; what it says comes whole, and in order."""
    monkeypatch.setattr(sse, "BEAT_SECONDS", 0.001)
    beaten = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        for one in (b"one", b"two"):
            await beaten.wait()
            beaten.clear()
            yield one

    sent = []
    async for data in sse.EventStream(frames()).body_iterator:
        if data == sse.BEAT:
            beaten.set()
        else:
            sent.append(data)
    assert sent == [b"one", b"two"]


async def nothing() -> AsyncGenerator[bytes, None]:
    """An empty stream."""
    return
    yield b""


def test_the_head() -> None:
    """No charset, no cache, no buffer."""
    headers = sse.EventStream(nothing()).headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("blocked", [False, True], ids=["while it waits", "while it sends"])
async def test_a_reader_that_leaves(blocked: bool) -> None:
    """Its source is closed, whatever was being waited for, before the response is over."""
    going, closed = asyncio.Event(), asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            going.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(10):  # to let go of a connection takes more than a moment
                await asyncio.sleep(0)
            closed.set()

    async def receive() -> Message:
        await going.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if blocked and message.get("body"):
            going.set()
            await asyncio.Event().wait()

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}
    await sse.EventStream(frames())(scope, receive, send)
    assert closed.is_set()
