"""What a stream is on the wire: its headers, its first line, its frames, and what is said instead of one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.types import Send

from bridge import sse
from bridge.entries import Entry
from bridge.events import START, Position
from bridge.gateway.answers import NOSNIFF

_FROM_START: Final = ("", "-1", "0")

RETRY_MS: Final = (1000, 3000)
"""Clients come back after a time between these, each stream with its own: not all at once."""

HEADERS: Final = [
    (b"content-type", sse.CONTENT_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    *((name.encode(), value.encode()) for name, value in NOSNIFF.items()),
]
"""Starlette would add a charset to the type, which some clients refuse."""


def native(entries: Sequence[Entry]) -> bytes:
    """The bridge's own dialect: the event's kind, its position, and its data as it stands in the log."""
    if len(entries) == 1:
        return _frame(entries[0])  # nearly every batch
    return b"".join([_frame(entry) for entry in entries])


def _frame(entry: Entry) -> bytes:
    """As `sse.frame` does it, without looking for what a kind and a position can't hold."""
    data = entry.data
    if b"\n" in data or b"\r" in data:
        return sse.frame(data, event=entry.kind, id=str(entry.position))
    return b"event: %b\nid: %d-%d\ndata: %b\n\n" % (entry.kind.encode(), entry.epoch, entry.seq, data)


def retry_line(times: float = 1) -> bytes:
    """The jittered `retry:` of one stream."""
    least, most = RETRY_MS
    return sse.retry(random.randint(int(least * times), int(most * times)))


def after_text(request: Request) -> str:
    """The position that a client of a stream says it has; empty for none, however it says so."""
    named = (value for name, value in request.scope["headers"] if name == b"last-event-id")
    text = next(named, b"").decode("latin-1")
    if not text and request.scope["query_string"]:
        text = request.query_params.get("after", "")
    return "" if text in _FROM_START else text


def parse_after(text: str | None) -> Position:
    """The position that a client has. Nothing, `-1` and `0` mean the start. Raises `InvalidPosition`."""
    if text is None or text in _FROM_START:
        return START
    return Position.parse(text)


async def send_head(send: Send) -> None:
    """A stream begins."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})


async def send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    """Some of a stream, or the last of it."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def empty(send: Send) -> None:
    """A stream's head alone, as for HEAD."""
    await send_head(send)
    await send_body(send, b"", more=False)


async def come_back(send: Send, why: str, times: float = 1) -> None:
    """Say in a 200 what will pass by itself, and when to come back: after so many times the usual."""
    await send_head(send)
    await send_body(send, retry_line(times) + sse.comment(why), more=False)


async def no_more(send: Send) -> None:
    """204: who has it all needn't come back."""
    await send({"type": "http.response.start", "status": 204, "headers": HEADERS[1:]})
    await send_body(send, b"", more=False)
