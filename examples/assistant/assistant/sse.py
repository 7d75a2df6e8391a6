"""Event streams: frames of this application's own wire, and answers that are made of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from typing import Any, Final

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from starlette.types import Send

BEAT_SECONDS: Final = 15.0
BEAT: Final = b":\n"
"""A comment, which keeps proxies from thinking that nothing happens any more."""
HEADERS: Final = {
    "content-type": "text/event-stream",  # no charset, which some clients stumble over
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would collect it
}


def frame(event: str, data: Any, id: str | None = None) -> bytes:  # noqa: A002 - the field's name
    """One event. A dataclass becomes an object."""
    text = json.dumps(asdict(data) if is_dataclass(data) and not isinstance(data, type) else data)
    place = "" if id is None else f"id: {id}\n"
    return f"{place}event: {event}\ndata: {text}\n\n".encode()


class EventStream(StreamingResponse):
    """A 200 that sends these frames as they come. When the client goes they are closed, whoever waits."""

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        self._beating = _beating(frames)
        super().__init__(self._beating, headers=HEADERS)

    async def stream_response(self, send: Send) -> None:
        """Send all of it."""
        async with aclosing(self._beating):
            await super().stream_response(send)


async def _beating(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The frames, and a beat where there was none for long."""
    step = asyncio.ensure_future(anext(frames, None))
    try:
        while True:
            await asyncio.wait({step}, timeout=BEAT_SECONDS)
            if not step.done():
                yield BEAT
            elif (data := step.result()) is not None:
                yield data
                step = asyncio.ensure_future(anext(frames, None))
            else:
                return
    finally:
        # A client that has gone cancels us, again at each await; what was followed is closed all the same.
        with CancelScope(shield=True):
            step.cancel()
            await asyncio.wait({step})
            await frames.aclose()
