"""The polling source: what an app's status endpoint says, as a task's events. Pure: others do the asking.

Rules
-----
1. An answer becomes a `Snapshot`: all that the app says of the task at that moment. What it doesn't say, or
   says with null, or with a value of the wrong type, stays as it was before.
2. `diff` says what to add to a log so that its fold is the snapshot, laid over what was known: text that goes
   on is a chunk with what is new, progress and data come only when they have changed, and a terminal state is
   the end.
3. Text that doesn't begin with what was told before can't be told by appending: `reset`, then everything
   anew. Nothing that is still known is lost by that, only told twice, to readers who have forgotten it.
4. An answer that can't be understood is `Trouble`, and never a change: a proxy's error page ends no task.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.codec import MAX_DEPTH, dumps, utf8
from bridge.errors import InvalidEvent
from bridge.events import (
    MAIN_FIELD,
    RESERVED_CODES,
    TERMINAL_STATES,
    Chunk,
    Data,
    End,
    Event,
    Progress,
    Reset,
    State,
)
from bridge.merge import split_text
from bridge.sources.mapping import Fraction, Places, StatusMapping, Where, found
from bridge.sources.places import Place
from bridge.view import View

REWRITTEN: Final = "rewritten"
"""The reason of a reset: the app's text is another than what it was."""

_MAX_WORDS: Final = 1000
"""Characters of a message or an error; longer ones are cut."""
_FAILED: Final = "The app says that this task has failed."
_NEARLY: Final = 1.01
"""Up to here a fraction above 1 is a rounding, beyond it is no fraction."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the app says of a task. None and absent: nothing. doubts: what could not be used, for the log."""

    state: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    progress: float | None = None
    message: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    error: Mapping[str, str] | None = None
    usage: Mapping[str, Any] | None = None
    doubts: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the task is over."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class Absent:
    """The app knows no such task."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The answer says nothing about the task; the reason is for operators and followers alike."""

    reason: str


# --- from an answer to a snapshot ---------------------------------------------------------------------------


def read_answer(mapping: StatusMapping, status: int, body: bytes) -> Snapshot | Absent | Trouble:
    """What an answer with this status and body means."""
    meaning = mapping.meaning(status)
    if meaning is None:
        return Trouble(f"status {status}")
    if meaning == "unknown":
        return Absent()
    try:
        document = _loads(body)
    except ValueError:
        if meaning == "body":
            return Trouble(f"status {status}, but its body is not JSON")
        document = None
    word, place = _state_word(mapping.state, document)
    if word is None and meaning == "body":
        return Trouble(f"status {status}, but its body names no state")
    state = meaning if word is None else mapping.state_of(word)
    if state is None:
        return Trouble(f"the state {word!r:.60} is not in the mapping")
    try:
        return _snapshot(state, mapping.where.get(state, Where()), document, place)
    except InvalidEvent as error:
        return Trouble(f"status {status}, but its body can't be told: {error}")


def _loads(body: bytes) -> Any:
    """JSON as our readers take it: no NaN, nothing out of range. Raises ValueError."""
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _state_word(places: Places, document: Any) -> tuple[str | None, Place | None]:
    """The app's word for the state, and where it stood. Numbers and booleans are words, too."""
    for place, value in found(places, document):
        if isinstance(value, bool):
            return str(value).lower(), place
        if isinstance(value, str | int):
            return str(value), place
    return None, None


def _snapshot(state: str, where: Where, document: Any, state_place: Place | None) -> Snapshot:
    """Raises `InvalidEvent` for values that no event can carry."""
    doubts: list[str] = []
    texts = {
        name: text
        for name, places in where.texts.items()
        if (text := _text(name, places, document, doubts)) is not None
    }
    # Where apps have one member for both, a state and a message, the state is no message.
    messages = tuple(place for place in where.message if place != state_place)
    data = {
        name: value for name, places in where.data.items() if (value := _json(places, document)) is not None
    }
    usage = next((value for _, value in found(where.usage, document) if isinstance(value, dict)), None)
    return Snapshot(
        state,
        texts,
        _progress(where.progress, document, doubts),
        _words(messages, document),
        data,
        _json(where.result, document),
        _error(state, where, document, state_place),
        _checked(usage),
        tuple(doubts),
    )


def _text(name: str, places: Places, document: Any, doubts: list[str]) -> str | None:
    """A text, or a list of texts, which are its pieces."""
    other = ""
    for place, value in found(places, document):
        if isinstance(value, list) and all(isinstance(piece, str) for piece in value):
            value = "".join(value)
        if isinstance(value, str):
            return _clean(value)
        other = other or f"{name}: what stands at {place.spelling} is {_kind(value)}, not a text"
    if other:
        doubts.append(other)
    return None


def _clean(text: str) -> str:
    """The text as it will stand in the log. The first half of a character of two (a surrogate), at which an
    app may have cut, isn't there yet.
    """
    if text and "\ud800" <= text[-1] <= "\udbff":
        text = text[:-1]
    return utf8(text).decode()


def _progress(alternatives: tuple[Fraction, ...], document: Any, doubts: list[str]) -> float | None:
    for fraction in alternatives:
        part = _number(fraction.part.find(document))
        if part is None:
            continue
        counted = isinstance(fraction.of, Place)
        of = _number(fraction.of.find(document)) if isinstance(fraction.of, Place) else fraction.of
        if of is None or of <= 0:
            continue
        share = part / of
        if 0 <= share <= (math.inf if counted else _NEARLY):
            return min(share, 1.0)
        doubts.append(
            f"progress: {share:g} at {fraction.part.spelling} is no fraction (a percentage has `of = 100`)"
        )
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return None
    return float(value)


def _words(places: Places, document: Any) -> str | None:
    for _, value in found(places, document):
        if isinstance(value, str) and value:
            return _short(_clean(value))
    return None


def _short(text: str) -> str:
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"


def _json(places: Places, document: Any) -> Any:
    return _checked(next((value for _, value in found(places, document)), None))


def _checked(value: Any) -> Any:
    """The value as it will come back out of the log. Raises `InvalidEvent`."""
    return None if value is None else json.loads(dumps(value, MAX_DEPTH))


def _error(state: str, where: Where, document: Any, state_place: Place | None) -> Mapping[str, str] | None:
    if state != "failed":
        return None
    code = _words(where.error_code, document) or "failed"
    message = ""
    for place, value in found(where.error, document):
        if place == state_place or value in ("", [], {}):
            continue
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            named = value.get("code")
            code = named if isinstance(named, str) and named else code
            value = value["message"]
        message = _short(_clean(value if isinstance(value, str) else dumps(value, MAX_DEPTH).decode()))
        break
    # Ends with these codes have a meaning of their own, for clients and for the scripts.
    code = "failed" if code in RESERVED_CODES else utf8(code[:100]).decode()
    return {"code": code, "message": message or _FAILED}


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")


# --- from a snapshot to events ------------------------------------------------------------------------------


def diff(view: View, snapshot: Snapshot, now: int) -> list[Event]:
    """The events by which a log whose fold is `view` comes to say what the snapshot says; none when it does
    already.

    `now`, in ms since 1970, is when a task that runs now has begun, if it is only known to wait. An `End`, if
    there is one, comes last. A view that has ended stays as it is.
    """
    if view.ended:
        return []
    told = {MAIN_FIELD: view.text, **view.fields}
    rewritten = any(not text.startswith(told.get(name, "")) for name, text in snapshot.texts.items())
    known = View(view.task_id) if rewritten else view
    events: list[Event] = [Reset(REWRITTEN, view.attempt)] if rewritten else []
    events += _state(view, snapshot, now, anew=rewritten)
    for name, text in {**told, **snapshot.texts}.items():
        events += [Chunk(piece, name) for piece in split_text(text[len(known.text_of(name)) :])]
    events += [
        Data(name, value)
        for name, value in {**view.data, **snapshot.data}.items()
        if name not in known.data or not _same(known.data[name], value)
    ]
    progress = view.progress if snapshot.progress is None else snapshot.progress
    message = view.message if snapshot.message is None else snapshot.message
    if (progress, message) != (known.progress, known.message):
        events.append(Progress(progress, message))
    if snapshot.ended:
        events.append(_end(told, snapshot))
    return events


def _state(view: View, snapshot: Snapshot, now: int, *, anew: bool) -> list[Event]:
    """Queued or running. A task that ends without having been seen to run is told as it was."""
    state = view.state if snapshot.state is None or snapshot.ended else snapshot.state
    if state == view.state and not anew:
        return []
    started = (view.started_at or now) if state == "running" else None
    return [State(state, view.attempt, view.cancel_requested, view.created_at, started)]


def _end(told: Mapping[str, str], snapshot: Snapshot) -> End:
    assert snapshot.state is not None
    texts = {**told, **snapshot.texts}
    length = {name: len(utf8(text)) for name, text in texts.items() if text}
    return End(snapshot.state, snapshot.error, snapshot.result, snapshot.usage, length)


def _same(one: Any, other: Any) -> bool:
    """As JSON: in Python 1, 1.0 and True are equal."""
    return dumps(one) == dumps(other)
