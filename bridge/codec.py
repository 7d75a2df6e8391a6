"""Events as JSON: the same bytes in the log, in the published message and on a stream. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.errors import InvalidEvent
from bridge.events import (
    MAIN_FIELD,
    TERMINAL_STATES,
    Chunk,
    Data,
    End,
    Event,
    Progress,
    Reset,
    State,
    Unknown,
)

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,49}", re.ASCII)
"""It becomes the name of an event on a stream, and one word of a published line."""
_EVENTSOURCE_NAMES: Final = frozenset({"error", "open"})
"""The browser dispatches these itself, so no event of ours has such a name."""

_LARGEST_COUNT: Final = 2**53 - 1
"""The largest whole number that Lua and JavaScript keep exact."""
_LATEST_TIME: Final = 253_402_300_799_999
"""The end of the year 9999, in ms since 1970: RFC 3339 has no more digits."""


MAX_DEPTH: Final = 100
"""How deep a value may be nested. One much deeper may be too deep for a reader, but not for its writer."""

_WRAPPING: Final = 8
"""More than the levels that an event, a view or an answer puts around a value."""


_to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""One encoder for all: `json.dumps` makes one with each call, and that takes longer than a short event."""


def dumps(value: Any, depth: int = MAX_DEPTH + _WRAPPING) -> bytes:
    """Compact JSON in UTF-8. Raises `InvalidEvent` for what JSON can't say (NaN, objects, bad keys), and for
    what is nested deeper than `depth` levels.

    Lone surrogates, which UTF-8 can't carry, become U+FFFD.
    """
    try:
        text = _to_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not JSON: {error}") from None
    _check_depth(text, value, depth)
    return utf8(text)


def _check_depth(text: str, value: Any, most: int) -> None:
    """Raise `InvalidEvent` when `value`, whose JSON is `text`, is nested deeper than `most`."""
    if text.count("[") + text.count("{") <= most:
        return  # it can't be; to count is much quicker than to look
    level = [value]
    for _ in range(most + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
        if not inner:
            return
        level = inner
    raise InvalidEvent(f"nested deeper than {most} levels")


def utf8(text: str) -> bytes:
    """Encode `text`; lone surrogates become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def encode(event: Event) -> bytes:
    """An event's data as JSON bytes."""
    if isinstance(event, Chunk) and event.at is None:
        # Nearly all events are such: what `_members` and `dumps` would make of it, in a fifth of the time.
        field = "" if event.field == MAIN_FIELD else f',"field":{_to_json(event.field)}'
        return utf8(f'{{"text":{_to_json(event.text)}{field}}}')
    members = _members(event)
    if event.at is not None:
        members["at"] = event.at
    return dumps(members, MAX_DEPTH + 1)


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
        raise InvalidEvent(f"the data of a {kind[:20]!r} event is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise InvalidEvent(f"the data of a {kind[:20]!r} event is not a JSON object")
    _check_depth(text, members, MAX_DEPTH + 1)
    return event_of(kind, members)


def event_of(kind: str, members: dict[str, Any]) -> Event:
    """The event of a kind and its data's members. Raises `InvalidEvent` when they don't fit together."""
    return _DECODERS.get(kind, _decode_unknown)(_Object(kind, members))


def parse_json(data: bytes) -> Any:
    """The value of JSON that comes from outside, nested no deeper than a list of events.

    Raises `InvalidEvent`, also for what could not be written again: NaN, numbers out of range, and lone
    surrogates.
    """
    try:
        text = data.decode()
        value = _JSON.decode(text)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "a lone surrogate" if isinstance(error, UnicodeEncodeError) else str(error)[:200]
        raise InvalidEvent(f"not JSON: {reason}") from None
    _check_depth(text, value, MAX_DEPTH + 2)
    return value


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
    at = m.at()
    return Unknown(check_kind(m.kind), {name: value for name, value in m.members.items() if name != "at"}, at)


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


def check_kind(kind: str) -> str:
    """Return `kind` if an event may be of it, known or not, else raise `InvalidEvent`."""
    if kind not in KINDS and (not _KIND.fullmatch(kind) or kind in _EVENTSOURCE_NAMES):
        raise InvalidEvent(f"not a kind of event: {kind[:20]!r}")
    return kind
