"""One answer as it grows, the same for all formats: text, calls of tools, what it cost, how it ended. Pure.

Rules
-----
1. Nothing here or in a parser raises for what a provider sends. A failure is kept beside the events, so that
   those that came before it are not lost.
2. Members may be missing, null, or of another type than documented: what can't be used says nothing.
3. The answer is whole when the format's end marker has come, or what the format says is as good. A connection
   that ends before that is a failure.
4. Calls of tools are told when the answer is whole, never before: half a call must not be made.
5. A piece of text may end in half a character (a server that counts in UTF-16 cuts emoji in two). The half
   waits; that of an answer that breaks off is left out.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from bridge.codec import MAX_DEPTH, dumps, utf8
from bridge.errors import InvalidEvent, StreamTooLarge
from bridge.events import MAIN_FIELD, Chunk, Data, Event
from bridge.sources.llm.errors import CONTENT_FILTER, INTERRUPTED, UNAVAILABLE, Failure, error_in, told
from bridge.sse import Decoder, Frame

REASONING: Final = "reasoning"
"""The field of what a model thinks before it answers."""
TOOL_CALLS: Final = "tool_calls"
"""The name of the data that holds what the model calls: ``[{"id", "name", "arguments"}]``. Arguments are what
their JSON says, or that text itself where it is none."""

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""The longest line or event of a stream. A picture in one would not fit, and is no text."""
MAX_TEXT: Final = 32 * 1024 * 1024
"""Characters of one answer, of all its fields: more than a task holds, and not for ever."""
LONGEST_REASON: Final = 100
MAX_CALLS: Final = 1000
MAX_CALL_BYTES: Final = 4 * 1024 * 1024
"""Of one answer's calls, in all."""


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A JSON array, or an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """A string, or an empty one in place of anything else."""
    return value if isinstance(value, str) else ""


def as_count(value: Any) -> int | None:
    """A number of tokens, or None in place of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "arguments": _value("".join(self.arguments))}


class Answer:
    """What has come so far. `pieces` grows with each sign that the model works, event or not."""

    def __init__(self) -> None:
        self.model = ""
        self.pieces = 0
        self.begun = False
        """Whether there were events, so that somebody has seen something."""
        self.finish_reason = ""
        self.usage: dict[str, int] = {}
        self.ended = False
        """Nothing that may still come belongs to the answer."""
        self.failure: Failure | None = None
        self._events: list[Event] = []
        self._halves: dict[str, str] = {}
        self._calls: list[_Call] = []
        self._places: dict[int, _Call] = {}
        self._call_bytes = 0
        self._told = 0
        self._said = 0

    @property
    def whole(self) -> bool:
        """Whether all of it has come."""
        return self.failure is None and (self.ended or bool(self.finish_reason))

    @property
    def over(self) -> bool:
        """Whether reading on is of no use."""
        return self.ended or self.failure is not None

    def say(self, text: str, field: str = MAIN_FIELD) -> None:
        """Text of a field."""
        if not text:
            return
        self.pieces += 1
        text = self._halves.pop(field, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._halves[field] = text[:-1], text[-1]
        if text:
            # Two halves that have met are one character after this; a half that stays alone is U+FFFD.
            self._events.append(Chunk(utf8(text).decode(), field))
            self._said += len(text)
        if self._said > MAX_TEXT:
            self.fail(INTERRUPTED, f"the answer is longer than {MAX_TEXT} characters")

    def call(self, place: int, *, call_id: str = "", name: str = "", arguments: str = "") -> None:
        """A piece of a call. Pieces of one call have the same place; another id there is another call."""
        there = self._places.get(place)
        if there is None or (call_id and there.id and call_id != there.id):
            there = self._places[place] = _Call()
            self._calls.append(there)
        there.id = there.id or call_id
        there.name = there.name or name
        if size := len(arguments) + len(call_id) + len(name):
            there.arguments.append(arguments)
            self.pieces += 1
            self._call_bytes += size
        if len(self._calls) > MAX_CALLS or self._call_bytes > MAX_CALL_BYTES:
            self.fail(UNAVAILABLE, "it calls more tools than anybody could want")

    def continue_call(self, place: int, arguments: str) -> None:
        """A further piece of the call that began at this place, or of something else that did."""
        if place in self._places:
            self.call(place, arguments=arguments)
        elif arguments:
            self.pieces += 1

    def whole_call(self, *, call_id: str = "", name: str = "", arguments: Any = None) -> None:
        """A call that came in one piece, its arguments as JSON has them."""
        self.call(len(self._calls), call_id=call_id, name=name, arguments=json.dumps(as_object(arguments)))

    def count(self, **tokens: int | None) -> None:
        """What it has cost up to now. The latest counts; None says nothing."""
        self.usage.update({name: number for name, number in tokens.items() if number is not None})

    def finish(self, reason: str) -> None:
        """The model says that it is done, and why. The first time counts."""
        self.finish_reason = self.finish_reason or reason[:LONGEST_REASON]

    @property
    def reason(self) -> str:
        """Why it is done. Some formats say "stop" also when calls of tools are to be answered."""
        return TOOL_CALLS if self._calls and self.finish_reason == "stop" else self.finish_reason

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True

    def fail(self, code: str, detail: str) -> None:
        """There won't be a whole answer. The first time counts."""
        self.failure = self.failure or Failure(code, detail)

    def take(self) -> list[Event]:
        """The events since the last time."""
        if self.ended and self.failure is None:
            self._events += [Chunk(utf8(half).decode(), field) for field, half in self._halves.items()]
            self._halves.clear()
        if self.whole and len(self._calls) > self._told:
            self._told = len(self._calls)
            self._events.append(Data(TOOL_CALLS, [call.as_json() for call in self._calls]))
        events, self._events = self._events, []
        self.begun = self.begun or bool(events)
        return events


def _value(arguments: str) -> Any:
    """The arguments of a call. A model can write what is no JSON, or none that can be passed on."""
    if not arguments.strip():
        return {}
    try:
        value = json.loads(arguments)
        dumps(value, MAX_DEPTH - 4)
    except (ValueError, RecursionError, InvalidEvent):
        return arguments
    return value


class Framing(Protocol):
    """Cuts a stream into its events. `bridge.sse.Decoder` is one."""

    def feed(self, data: bytes) -> list[Frame]:
        """The events that these bytes complete. Raises `StreamTooLarge`."""


class Lines:
    """The framing of newline-delimited JSON: each line is one value, cut at LF alone."""

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._partial: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The lines that `data` completes, but for empty ones. Raises `StreamTooLarge`."""
        *lines, rest = data.split(b"\n")
        frames = []
        for line in lines:
            self._hold(line)
            text = b"".join(self._partial).decode(errors="replace")
            self._partial, self._held = [], 0
            if text.strip():
                frames.append(Frame("message", text, ""))
        self._hold(rest)
        return frames

    def _hold(self, data: bytes) -> None:
        if data:
            self._partial.append(data)
            self._held += len(data)
        if self._held > self._max_bytes:
            raise StreamTooLarge(f"a line is larger than {self._max_bytes} bytes")


class Parser(ABC):
    """Turns the bytes of one answer, cut anywhere, into events. Formats say what the JSON in it means."""

    def __init__(self, framing: Framing | None = None) -> None:
        self.answer = Answer()
        self._framing = framing or Decoder(max_bytes=MAX_EVENT_BYTES)

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        try:
            frames = [] if self.answer.over else self._framing.feed(data)
        except StreamTooLarge as error:
            self.answer.fail(UNAVAILABLE, str(error))
            frames = []
        for frame in frames:
            if self.answer.over:
                break
            self._take(frame)
        return self.answer.take()

    def close(self) -> list[Event]:
        """The connection has ended: what still came of it. An answer that isn't whole has failed now."""
        # The last event may lack its blank line. One that was cut off is no JSON, and so no event.
        events = [] if self.answer.whole else self.feed(b"\n\n")
        if not self.answer.whole:
            self.answer.fail(INTERRUPTED, "the connection ended before the answer did")
        self.answer.end()
        return events + self.answer.take()

    def whole(self, data: bytes) -> list[Event]:
        """The events of an answer that came as one JSON value."""
        value = self._json(data.decode(errors="replace"))
        if not self.answer.over and not self._refused(value):
            self._take_whole(value)
            if not self.answer.whole:
                self.answer.fail(UNAVAILABLE, "there is no answer in it")
        self.answer.end()
        return self.answer.take()

    @abstractmethod
    def _take(self, frame: Frame) -> None:
        """One event of the stream."""

    @abstractmethod
    def _take_whole(self, value: Any) -> None:
        """The answer as one JSON value. It is whole after that, if it is one."""

    def _object(self, text: str) -> dict[str, Any]:
        """The JSON object of one event; empty where it is none, or tells of an error."""
        value = self._json(text)
        if self.answer.over or self._refused(value):
            return {}
        return as_object(value)

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            self.answer.fail(INTERRUPTED, f"not JSON: {text[:100_000]!r}")
            return None

    def _refused(self, value: Any) -> bool:
        """Whether it is an error that stands where an answer should."""
        error = error_in(value)
        if error is not None:
            self.answer.failure = self.answer.failure or told(error)
        return error is not None

    def _finish(self, reason: str, *, refusals: frozenset[str], failures: frozenset[str]) -> None:
        """The reason why the model stopped, in the format's own word; some mean that it failed."""
        if reason in refusals:
            self.answer.fail(CONTENT_FILTER, f"finished with {reason!r}")
        elif reason in failures:
            self.answer.fail(INTERRUPTED, f"finished with {reason!r}")
        else:
            self.answer.finish(reason)
