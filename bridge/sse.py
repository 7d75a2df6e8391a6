"""Server-sent events as bytes: encode frames, decode them incrementally. Pure.

The format is the HTML standard's, section 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an
event stream".

Rules
-----
1. A line ends with CR, LF or CRLF and with nothing else. U+2028, U+0085 and their like may stand inside
   JSON, so nothing here ever calls `str.splitlines`.
2. Comments and `retry` are written as a line of their own *without* a blank line after it. The standard
   ignores a blank line there, but some clients make an empty event of it once they have seen an id.
3. Decoding is done line by line on bytes. CR and LF never occur inside a longer UTF-8 sequence and end a
   broken one, so decoding each line gives the same as decoding the stream.
4. Every byte is looked at a fixed number of times, however the stream is cut, and what is held back is
   bounded by `max_bytes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bridge.errors import StreamTooLarge

CONTENT_TYPE: Final = "text/event-stream"

HEARTBEAT: Final = b":\n"
"""The shortest comment. It keeps a connection alive and means nothing (see rule 2)."""

DEFAULT_MAX_BYTES: Final = 32 * 1024 * 1024
"""How large a line or an event a `Decoder` accepts, in bytes. A task's limit is half of it."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_RETRY_MS: Final = 10**15
"""More digits than this are 30,000 years; `int` refuses absurdly long numbers."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One dispatched event: its type (``message`` when none was sent), its data, and the last event id.

    `id` is sticky: a frame without an id of its own carries the one before it, or the empty string.
    """

    event: str
    data: str
    id: str


def frame(
    data: str | bytes,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 (the standard's name of the field)
    retry_ms: int | None = None,
) -> bytes:
    """One event as bytes. Data of several lines arrives with every line end as LF.

    Raises ValueError when `event` or `id` holds CR, LF or NUL, when `retry_ms` is negative, and for lone
    surrogates (UnicodeEncodeError is one).
    """
    fields = ""
    if event is not None:
        fields = f"event: {event}\n"
    if id is not None:
        fields += f"id: {id}\n"
    head = fields.encode()
    if head.count(b"\n") > (event is not None) + (id is not None) or b"\r" in head or b"\0" in head:
        raise ValueError(f"event and id of a frame can't hold CR, LF or NUL (got {fields[:120]!r})")
    if retry_ms is not None:
        head += retry(retry_ms)
    body = data.encode() if isinstance(data, str) else data
    if b"\n" in body or b"\r" in body:
        body = _LINE_END.sub(b"\ndata: ", body)
    return head + b"data: " + body + b"\n\n"


def comment(text: str = "") -> bytes:
    """A comment that every client ignores; one comment line per line of `text`."""
    if not text:
        return HEARTBEAT
    return b": " + _LINE_END.sub(b"\n: ", text.encode()) + b"\n"


def retry(ms: int) -> bytes:
    """Ask the client to wait `ms` milliseconds before it reconnects. Raises ValueError when negative."""
    if ms < 0:
        raise ValueError(f"retry is in milliseconds and can't be negative (got {ms})")
    return b"retry: %d\n" % ms


class Decoder:
    """Turns the bytes of one event stream, cut anywhere, into frames.

    `last_event_id` is the id to resume with: that of the last blank line, so an event that was cut off
    never counts. `retry_ms` is the reconnection time that the server asked for, or None.
    """

    def __init__(self, *, last_event_id: str = "", max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._max_bytes = max_bytes
        self._partial = bytearray()
        self._skip_lf = False
        self._first_line = True
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises `StreamTooLarge` for a line or event over `max_bytes`;
        the decoder is of no use after that, and the frames of that call are lost with it.
        """
        if self._skip_lf and data:
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        if not data:
            return []
        # For bytes, unlike str, splitlines knows exactly the three line ends of rule 1.
        lines = data.splitlines()
        last = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        # A line that ends in CR is complete at once; the LF that may follow belongs to it.
        self._skip_lf = data.endswith(b"\r")
        frames: list[Frame] = []
        for line in lines:
            if self._partial:
                self._partial += line
                line = bytes(self._partial)
                self._partial.clear()
            self._take_line(line, frames)
        self._partial += last
        self._check(len(self._partial), "a line")
        return frames

    def _take_line(self, line: bytes, frames: list[Frame]) -> None:
        self._check(len(line), "a line")
        if self._first_line:
            # "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present."
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(frames)
            return
        # Without a colon the whole line is the name; with a colon first it is a comment: the name is empty.
        name, _, raw = line.partition(b":")
        # "If value starts with a U+0020 SPACE character, remove it from value."
        value = raw.removeprefix(b" ").decode(errors="replace")
        match name:
            case b"data":
                self._data_bytes += len(line) + 1
                self._check(self._data_bytes, "an event")
                self._data.append(value)
            case b"event":
                self._event = value
            case b"id" if "\0" not in value:
                self._id = value
            case b"retry" if value.isascii() and value.isdigit():
                digits = value.lstrip("0")
                self.retry_ms = int(digits or 0) if len(digits) <= 15 else _LONGEST_RETRY_MS

    def _dispatch(self, frames: list[Frame]) -> None:
        # "Set the last event ID string of the event source to the value of the last event ID buffer": also
        # when there is no data and so no event.
        self.last_event_id = self._id
        if self._data:
            frames.append(Frame(self._event or "message", "\n".join(self._data), self._id))
        self._data = []
        self._data_bytes = 0
        self._event = ""

    def _check(self, size: int, what: str) -> None:
        if size > self._max_bytes:
            raise StreamTooLarge(
                f"{what} of the event stream is larger than {self._max_bytes} bytes: is it an event stream?"
            )
