"""The vocabulary: task ids, positions, events, and the two rules about events.

This module is pure. Everybody else (worker, store, gateway, clients) speaks in these terms.

Rules
-----
1. **Merge.** Adjacent chunks of one field are the same as one chunk with their texts joined and the
   position of the last. Of several `progress` events, and of several `data` events of one name, only the
   last matters, so the others may be left out. What stands before a `reset` may be left out. `compact`
   applies all of this; it never changes what a fold over the events gives.
2. **Terminal.** `end` is the last event of its epoch.

So that rule 1 keeps the time of the last change as well, every event but a chunk carries `at`; of chunks
at most one a second does, and a merged chunk carries the last one's.

An event's data is one JSON object, and it is the same bytes everywhere: in the log, in the published
message and in the `data:` line of the stream. Readers ignore members and kinds that they don't know.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from bridge.errors import InvalidEvent, InvalidPosition, InvalidTaskId

TASK_ID: Final = re.compile(r"[A-Za-z0-9._:~-]{1,200}", re.ASCII)
_POSITION: Final = re.compile(r"(\d{1,16})-(\d{1,16})", re.ASCII)

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,49}", re.ASCII)
"""It becomes the name of an event on a stream, and one word of a published line."""
_EVENTSOURCE_NAMES: Final = frozenset({"error", "open"})
"""The browser dispatches these itself, so no event of ours has such a name."""

MAX_CHUNK_BYTES: Final = 65_536
"""A chunk event's text is at most this many UTF-8 bytes, in the log as well as in a merged replay."""

MAIN_FIELD: Final = "text"
"""The field of a chunk that doesn't say another."""

TERMINAL_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
STATES: Final = frozenset({"queued", "running"}) | TERMINAL_STATES
RESERVED_CODES: Final = frozenset({"worker_lost", "unknown_task"})
"""Error codes of ends that no worker writes."""
RESET_REASONS: Final = frozenset({"retry", "log_lost", "worker_returned", "compacted", "other_log"})

_LARGEST_COUNT: Final = 2**53 - 1
"""The largest whole number that Lua and JavaScript keep exact."""
_LATEST_TIME: Final = 253_402_300_799_999
"""The end of the year 9999, in ms since 1970: RFC 3339 has no more digits."""


def check_task_id(task_id: str) -> str:
    """Return `task_id` if it can name a task, else raise `InvalidTaskId`, or TypeError for what is no string.

    `.` and `..` can't: in a URL they are steps in the path, which clients take before they send it.
    """
    if not isinstance(task_id, str):
        raise TypeError(f"a task id is a string, not {type(task_id).__name__}: {task_id!r:.60}")
    if not TASK_ID.fullmatch(task_id) or task_id in (".", ".."):
        shown = repr(task_id[:60])
        raise InvalidTaskId(
            f"a task id is 1-200 characters of A-Z a-z 0-9 . _ : ~ - but not . or .. alone (got {shown})"
        )
    return task_id


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The id of an event: `epoch` (ms since 1970, one life of the log) and `seq` (1, 2, 3 … within it).

    Positions are ordered as numbers; as text they would not be (``…-9`` and ``…-10``).
    """

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<epoch>-<seq>``. Raises `InvalidPosition` for anything else."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise InvalidPosition(f"a position looks like 1763650000000-17 (got {text[:60]!r})")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START: Final = Position(0, 0)
"""Before every event of every epoch."""

UNKNOWN_TASK_END: Final = Position(0, 1)
"""The id of the `end` that a stream of a task nobody ever created gets."""


@dataclass(frozen=True, slots=True)
class State:
    """The task is queued or running, as the n-th attempt. Times in ms since 1970."""

    kind: ClassVar = "state"
    state: str
    attempt: int = 0
    cancel_requested: bool = False
    created_at: int | None = None
    started_at: int | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text to be appended to a field."""

    kind: ClassVar = "chunk"
    text: str
    field: str = MAIN_FIELD
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is: a fraction 0.0-1.0 and a status line, either may be unknown. The latest wins."""

    kind: ClassVar = "progress"
    progress: float | None = None
    message: str | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """A named JSON value beside the text. The latest of each name wins."""

    kind: ClassVar = "data"
    name: str
    value: Any
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget text, data, progress and end: what follows tells the task anew. See `RESET_REASONS`."""

    kind: ClassVar = "reset"
    reason: str
    attempt: int = 0
    at: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The task is over. `length` is the UTF-8 byte length of each field, so that a reader can check."""

    kind: ClassVar = "end"
    state: str
    error: Mapping[str, str] | None = None
    result: Any = None
    usage: Mapping[str, Any] | None = None
    length: Mapping[str, int] = field(default_factory=dict)
    truncated: bool = False
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a kind that this version doesn't know. It is passed on, and changes no view."""

    kind: str
    members: Mapping[str, Any]
    at: int | None = None


Event = State | Chunk | Progress | Data | Reset | End | Unknown


@dataclass(frozen=True, slots=True)
class Entry:
    """One event at its place in a log. `data` is its JSON as it stands there."""

    position: Position
    event: Event
    data: bytes


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises `InvalidEvent` for what JSON can't say (NaN, objects, bad keys).

    Lone surrogates, which UTF-8 can't carry, become U+FFFD.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not JSON: {error}") from None
    return utf8(text)


def utf8(text: str) -> bytes:
    """Encode `text`; lone surrogates become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def encode(event: Event) -> bytes:
    """An event's data as JSON bytes."""
    members = _members(event)
    if event.at is not None:
        members["at"] = event.at
    return dumps(members)


def _members(event: Event) -> dict[str, Any]:
    match event:
        case Chunk(text, field):
            return {"text": text} if field == MAIN_FIELD else {"text": text, "field": field}
        case State(state, attempt, cancel_requested, created_at, started_at):
            return {
                "state": state,
                "attempt": attempt,
                "cancel_requested": cancel_requested,
                "created_at": created_at,
                "started_at": started_at,
            }
        case Progress(progress, message):
            return {"progress": progress, "message": message}
        case Data(name, value):
            return {"name": name, "value": value}
        case Reset(reason, attempt):
            return {"reason": reason, "attempt": attempt}
        case End(state, error, result, usage, length, truncated):
            return {
                "state": state,
                "error": error,
                "result": result,
                "usage": usage,
                "length": dict(length),
                "truncated": truncated,
            }
        case Unknown(_, members):
            return dict(members)


def decode(kind: str, data: bytes | str) -> Event:
    """The event of a kind and its JSON data. Raises `InvalidEvent` when they don't fit together.

    Every decoded event can be encoded again: NaN, infinities and numbers out of range are refused, and
    lone surrogates, which JSON can spell as escapes, become U+FFFD as they do in `dumps`.
    """
    try:
        text = (utf8(data) if isinstance(data, str) else data).decode()
        members = _JSON.decode(text)
        if _SURROGATE_ESCAPE.search(text):
            members = _JSON.decode(dumps(members).decode())
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"the data of a {kind[:20]} event is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise InvalidEvent(f"the data of a {kind[:20]} event is not a JSON object")
    return _DECODERS.get(kind, _decode_unknown)(_Object(kind, members))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


# `json.loads` would accept NaN and Infinity, and read 1e999 as infinity; no one could write these again.
_JSON: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class _Object:
    """Typed access to a JSON object's members, with errors that name the member."""

    def __init__(self, kind: str, members: dict[str, Any]) -> None:
        self.kind = kind
        self.members = members

    def _wrong(self, name: str, wanted: str) -> InvalidEvent:
        return InvalidEvent(f'"{name}" of a {self.kind} event must be {wanted}')

    def text(self, name: str, default: str | None = None) -> str:
        value = self.members.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def one_of(self, name: str, allowed: frozenset[str]) -> str:
        value = self.text(name)
        if value not in allowed:
            raise self._wrong(name, "one of " + ", ".join(sorted(allowed)))
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self.members.get(name) is None else self.text(name)

    def count(self, name: str, most: int = _LARGEST_COUNT) -> int:
        value = self.members.get(name, 0)
        if not _is_count(value, most):
            raise self._wrong(name, f"a whole number from 0 to {most}")
        return int(value)

    def time(self, name: str) -> int | None:
        return None if self.members.get(name) is None else self.count(name, _LATEST_TIME)

    def flag(self, name: str) -> bool:
        value = self.members.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def fraction(self, name: str) -> float | None:
        value = self.members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self._wrong(name, "a number from 0 to 1")
        return float(value)

    def optional_object(self, name: str) -> dict[str, Any] | None:
        value = self.members.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, "an object or null")
        return value

    def error(self) -> dict[str, str] | None:
        value = self.optional_object("error")
        if value is not None and not all(isinstance(value.get(name), str) for name in ("code", "message")):
            raise self._wrong("error", 'null or an object with the strings "code" and "message"')
        return value

    def length(self) -> dict[str, int]:
        value = self.optional_object("length") or {}
        if not all(_is_count(size, _LARGEST_COUNT) for size in value.values()):
            raise self._wrong("length", "an object of whole numbers")
        return value

    def at(self) -> int | None:
        return self.time("at")


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _decode_state(m: _Object) -> Event:
    return State(
        m.one_of("state", frozenset({"queued", "running"})),
        m.count("attempt"),
        m.flag("cancel_requested"),
        m.time("created_at"),
        m.time("started_at"),
        m.at(),
    )


def _decode_unknown(m: _Object) -> Event:
    if not _KIND.fullmatch(m.kind) or m.kind in _EVENTSOURCE_NAMES:
        raise InvalidEvent(f"not a kind of event: {m.kind[:20]!r}")
    at = m.at()
    return Unknown(m.kind, {name: value for name, value in m.members.items() if name != "at"}, at)


def _decode_data(m: _Object) -> Event:
    if "value" not in m.members:
        raise InvalidEvent('a data event needs a "value"')
    return Data(m.text("name"), m.members["value"], m.at())


def _decode_end(m: _Object) -> Event:
    return End(
        m.one_of("state", TERMINAL_STATES),
        m.error(),
        m.members.get("result"),
        m.optional_object("usage"),
        m.length(),
        m.flag("truncated"),
        m.at(),
    )


_DECODERS: Final[Mapping[str, Callable[[_Object], Event]]] = {
    "state": _decode_state,
    "chunk": lambda m: Chunk(m.text("text"), m.text("field", MAIN_FIELD), m.at()),
    "progress": lambda m: Progress(m.fraction("progress"), m.optional_text("message"), m.at()),
    "data": _decode_data,
    "reset": lambda m: Reset(m.text("reason"), m.count("attempt"), m.at()),
    "end": _decode_end,
}


KINDS: Final = frozenset(_DECODERS)
"""The kinds of event that this version knows."""


def compact(entries: Sequence[Entry]) -> list[Entry]:
    """The fewest entries that fold to the same view: the merge rule (see the top of the module).

    Positions strictly increase and the last one is kept. Merged chunks stay within `MAX_CHUNK_BYTES`,
    except where a single one of the input is larger.
    """
    kept = _without_superseded(entries)
    merged: list[Entry] = []
    run: list[Entry] = []
    size = 0
    for entry in kept:
        event = entry.event
        if isinstance(event, Chunk):
            grown = len(utf8(event.text))
            if run and (_field(run[0]) != event.field or size + grown > MAX_CHUNK_BYTES):
                merged.append(_join(run))
                run, size = [], 0
            run.append(entry)
            size += grown
            continue
        if run:
            merged.append(_join(run))
            run, size = [], 0
        merged.append(entry)
    if run:
        merged.append(_join(run))
    return merged


def _without_superseded(entries: Sequence[Entry]) -> list[Entry]:
    """Drop what stands before the last reset, and progress and data that a later one replaces.

    The newest entry always stays (it is looked at first), so the last position is kept.
    """
    kept: list[Entry] = []
    seen: set[str] = set()
    for entry in reversed(entries):
        event = entry.event
        if isinstance(event, Progress | Data):
            key = event.kind if isinstance(event, Progress) else f"data {event.name}"
            if key in seen:
                continue
            seen.add(key)
        kept.append(entry)
        if isinstance(event, Reset):
            break
    kept.reverse()
    return kept


def _field(entry: Entry) -> str:
    assert isinstance(entry.event, Chunk)
    return entry.event.field


def _join(run: Sequence[Entry]) -> Entry:
    """One chunk entry for a run of chunk entries of one field."""
    if len(run) == 1:
        return run[0]
    chunks = [entry.event for entry in run if isinstance(entry.event, Chunk)]
    at = next((chunk.at for chunk in reversed(chunks) if chunk.at is not None), None)
    event = Chunk("".join(chunk.text for chunk in chunks), chunks[0].field, at)
    return Entry(run[-1].position, event, encode(event))


def split_text(text: str, limit: int = MAX_CHUNK_BYTES) -> Iterable[str]:
    """Cut `text` into pieces of at most `limit` UTF-8 bytes (4 or more), never inside a character."""
    if limit < 4:
        raise ValueError(f"a character may need 4 bytes (got a limit of {limit})")
    if len(text) * 4 <= limit:
        if text:
            yield text
        return
    data = utf8(text)
    start = 0
    while start < len(data):
        stop = min(start + limit, len(data))
        while stop < len(data) and data[stop] & 0xC0 == 0x80:
            stop -= 1
        yield data[start:stop].decode()
        start = stop
