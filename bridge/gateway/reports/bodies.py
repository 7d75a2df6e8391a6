"""What workers send, as events: plain text, lines of JSON (NDJSON), or one JSON value. Pure.

Rules
-----
1. A body is fed in whatever pieces it comes in, and gives units as soon as they are whole: of plain text
   characters, else events. However it is cut, the units fold to the same.
2. A unit knows its size, in which the progress through the body is counted: bytes of plain text, else 1. A
   body that is sent again can so be passed over as far as it is known.
3. What stands before a mistake is given first; then the mistake is raised. Nothing after it counts.
4. A line, and a body that is one JSON value, has at most `limit` bytes. Plain text and the number of lines
   have no limit here: nothing but the last, unfinished line or character is kept.
5. Workers send what they know: `chunk`, `progress`, `data`. States, resets and ends are made elsewhere.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bridge.codec import KINDS, encode, event_of, parse_json, utf8
from bridge.errors import InvalidEvent, TooLarge, UnsupportedBody
from bridge.events import MAIN_FIELD, Chunk, Data, Progress
from bridge.worker.report import MAX_MESSAGE, check_name

_MEMBERS: Final = {
    "chunk": {"kind", "text", "field"},
    "progress": {"kind", "progress", "message"},
    "data": {"kind", "name", "value"},
}


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that is reported, and how far in its body it leads. data: of all but text, its JSON."""

    event: Chunk | Progress | Data
    size: int
    data: bytes = b""

    def after(self, size: int) -> Unit | None:
        """What is left of it behind the first `size` of it; only text can be cut. None: nothing."""
        if size >= self.size:
            return None
        assert isinstance(self.event, Chunk)
        try:
            text = utf8(self.event.text)[size:].decode()
        except UnicodeDecodeError:
            raise InvalidEvent("this is not the body that was sent with this number before") from None
        return Unit(Chunk(text, self.event.field), self.size - size)


class Body(Protocol):
    """A body that is being read. All raise `InvalidEvent`, `TooLarge` and `UnsupportedBody`."""

    def feed(self, data: bytes) -> Iterator[Unit]:
        """More of it has come: the units that are whole now."""

    def finish(self) -> Iterator[Unit]:
        """It is all there: the rest."""


class PlainText:
    """Text to be appended to one field. UTF-8, cut anywhere."""

    def __init__(self, field: str = MAIN_FIELD) -> None:
        self._field = field
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def feed(self, data: bytes) -> Iterator[Unit]:
        """The characters that are whole now."""
        yield from self._decode(data)

    def finish(self) -> Iterator[Unit]:
        """Nothing more; raises when the last character is not whole."""
        yield from self._decode(b"", last=True)

    def _decode(self, data: bytes, last: bool = False) -> Iterator[Unit]:
        try:
            text = self._decoder.decode(data, last)
        except UnicodeDecodeError as error:
            if error.start:
                yield self._unit(error.object[: error.start].decode())
            raise InvalidEvent(f"the text is not UTF-8 ({error.reason})") from None
        if text:
            yield self._unit(text)

    def _unit(self, text: str) -> Unit:
        return Unit(Chunk(text, self._field), len(text.encode()))


class Lines:
    """One event per line, as JSON. Empty lines say nothing: they may be sent as signs of life."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()

    def feed(self, data: bytes) -> Iterator[Unit]:
        """The events whose lines are whole now."""
        first, *rest = data.split(b"\n")
        for line in rest:
            yield from self._end_line(first)
            first = line
        self._add(first)

    def finish(self) -> Iterator[Unit]:
        """The last event, if its line has no end."""
        yield from self._end_line(b"")

    def _end_line(self, data: bytes) -> Iterator[Unit]:
        self._add(data)
        line, self._line = bytes(self._line).strip(b" \t\r"), bytearray()
        if line:
            yield unit_of(parse_json(line))

    def _add(self, data: bytes) -> None:
        if len(self._line) + len(data) > self._limit:
            raise TooLarge(f"A line has at most {self._limit} bytes.")
        self._line += data


class OneValue:
    """A body that is one JSON value: an event, or an array of events, all of which count or none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Unit]:
        """Nothing yet."""
        if len(self._data) + len(data) > self._limit:
            raise TooLarge(f"A body of JSON has at most {self._limit} bytes.")
        self._data += data
        return iter(())

    def value(self) -> Any:
        """The value; None of an empty body."""
        data = bytes(self._data)
        return parse_json(data) if data.strip() else None

    def finish(self) -> Iterator[Unit]:
        """All events."""
        value = self.value()
        events = [] if value is None else value if isinstance(value, list) else [value]
        yield from [unit_of(each) for each in events]


class Empty(OneValue):
    """No body: a sign of life. Raises when there is one all the same: nobody knows what it is."""

    def __init__(self, wanted: str) -> None:
        super().__init__(0)
        self._wanted = wanted

    def feed(self, data: bytes) -> Iterator[Unit]:
        """Nothing."""
        if data:
            raise UnsupportedBody(f"Say what the body is, by its Content-Type: {self._wanted}.")
        return iter(())


def body_of(content_type: str, field: str, limit: int) -> Body:
    """The body that a Content-Type announces. `field` is that of plain text."""
    kind, _, parameters = content_type.partition(";")
    match kind.strip().lower():
        case "text/plain" if _is_utf8(parameters):
            return PlainText(check_name(field, "field"))
        case "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines":
            return Lines(limit)
        case "application/json":
            return OneValue(limit)
    return Empty("text/plain (in UTF-8), application/json or application/x-ndjson")


def value_of(content_type: str, limit: int) -> OneValue:
    """The body of a request that takes a JSON value or nothing."""
    is_json = content_type.partition(";")[0].strip().lower() == "application/json"
    return OneValue(limit) if is_json else Empty("application/json")


def _is_utf8(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower() in ("utf-8", "utf8", "us-ascii")
    return True


def unit_of(value: Any) -> Unit:
    """The event of a JSON value, `{"kind":"chunk","text":"…"}`: its kind, and the members of its data.

    Raises `InvalidEvent`. Members that nobody knows are refused: they are mistakes in a name.
    """
    if not isinstance(value, dict):
        raise InvalidEvent('an event is an object such as {"kind":"chunk","text":"…"}')
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        if isinstance(kind, str) and kind in KINDS:
            raise InvalidEvent(f"workers don't send {kind} events: POST …/end ends a task")
        raise InvalidEvent(f'"kind" must be one of {", ".join(_MEMBERS)}')
    if unknown := value.keys() - _MEMBERS[kind]:
        raise InvalidEvent(f"a {kind} event has no member {min(unknown)[:60]!r}")
    event = event_of(kind, value)
    match event:
        case Chunk(_, field):
            return Unit(Chunk(event.text, check_name(field, "field")), 1)
        case Data(name):
            check_name(name, "name")
        case Progress(fraction, message) if message is not None and len(message) > MAX_MESSAGE:
            event = Progress(fraction, message[: MAX_MESSAGE - 1] + "…")
    assert isinstance(event, Progress | Data)
    return Unit(event, 1, encode(event))
