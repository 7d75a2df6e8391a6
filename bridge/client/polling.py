"""A poll told as events, so that polls and streams are folded by one and the same rule. Pure.

Rules
-----
1. The answer to ``?after=POSITION`` holds the text since then and the present state of everything else.
   Folding the events that are made of it gives the full `/status` at its position. All of them have that
   position, and their order is: reset, state, data, progress, chunk (the main text, then the fields), end.
2. An answer that is not newer than the view, within one epoch, changes nothing, unless it says `reset`: the
   gateway says that of the very position that it was asked about. With `look`, of a view that has a position
   and nothing else yet, an answer of that position is news too.
3. An event stands for what changed, so most polls give few. What an `end` doesn't carry (attempt, cancel
   request, times) is told by a `state` before it, as a stream would have told it.
4. Every event is made by `decode`: what is no view raises `InvalidInput`, as what is no event does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.codec import decode, dumps
from bridge.errors import InvalidEvent
from bridge.events import MAIN_FIELD, START, TERMINAL_STATES, Event, Position
from bridge.view import View, parse_rfc3339

_OF_THE_END: Final = ("state", "error", "result", "usage", "truncated")


@dataclass(frozen=True, slots=True)
class Poll:
    """What one answer says. `news`: whether there was anything new; `ended`: whether that was the last."""

    position: Position
    events: list[Event]
    updated_at: int | None
    news: bool
    ended: bool

    def fold(self, view: View) -> None:
        """Bring `view` to the position of the answer."""
        for event in self.events:
            view.apply(self.position, event)
        if self.news:
            view.position, view.updated_at = self.position, self.updated_at


def polled(view: View, answer: Mapping[str, Any], *, look: bool = False) -> Poll:
    """Compare an answer with the view that was had before. Raises `InvalidInput` for what is no view."""
    position = Position.parse(_text(answer, "position"))
    ended = _text(answer, "state") in TERMINAL_STATES
    at = _time(answer, "updated_at")
    known = view.position
    again = answer.get("reset") is True or (known != START and position.epoch != known.epoch)
    if not again and (position < known or (position == known and not look)):
        # Who asks with the position of the end has had it all: a stream would say 204 here.
        return Poll(position, [], at, news=False, ended=ended and position == known)
    events: list[Event] = []
    if again:
        attempt = answer.get("attempt", 0)
        reason = "retry" if isinstance(attempt, int) and attempt > view.attempt else "other_log"
        events.append(_event("reset", {"reason": reason, "attempt": attempt}, at))
        view = View(view.task_id)
        view.apply(position, events[0])
    events += _changes(view, answer, at)
    if ended:
        end = {name: answer[name] for name in _OF_THE_END if name in answer}
        events.append(_event("end", end, _time(answer, "ended_at")))
    return Poll(position, events, at, news=True, ended=ended)


def _changes(view: View, answer: Mapping[str, Any], at: int | None) -> Iterator[Event]:
    """What the answer has that `view` hasn't, but for the end."""
    state = {
        "state": answer["state"],
        "attempt": answer.get("attempt", 0),
        "cancel_requested": answer.get("cancel_requested", False),
        "created_at": _time(answer, "created_at"),
        "started_at": _time(answer, "started_at"),
    }
    if answer["state"] in TERMINAL_STATES:
        state["state"] = view.state if state["started_at"] is None else "running"
    if any(getattr(view, name) != value for name, value in state.items()):
        yield _event("state", state, at)
    for name, value in _data_since(view, _object(answer, "data")):
        yield _event("data", {"name": name, "value": value}, at)
    progress = {"progress": answer.get("progress"), "message": answer.get("message")}
    if any(getattr(view, name) != value for name, value in progress.items()):
        yield _event("progress", progress, at)
    for field, text in {MAIN_FIELD: _text(answer, "text"), **_object(answer, "fields")}.items():
        if text:
            yield _event("chunk", {"text": text, "field": field}, None)


def _data_since(view: View, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values that were written since, some of them maybe as they had been: whatever is written moves to
    the end, so all that follows the first one that changed or moved was written.
    """
    older = iter(view.data)
    written = False
    for name, value in values.items():
        # `in` goes on from where it stopped: an older name found behind the one before it hasn't moved.
        written = written or name not in older or dumps(view.data[name]) != dumps(value)
        if written:
            yield name, value


def _event(kind: str, members: dict[str, Any], at: int | None) -> Event:
    return decode(kind, dumps({**members, "at": at}))


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise InvalidEvent(f'"{name}" of a view must be a string')
    return value


def _object(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = answer.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidEvent(f'"{name}" of a view must be an object')
    return value


def _time(answer: Mapping[str, Any], name: str) -> int | None:
    """A time as events have it, in ms since 1970."""
    value = answer.get(name)
    if value is None:
        return None
    return parse_rfc3339(_text(answer, name))
