"""The view: the fold of all events of a task up to a position, and its JSON.

`/status` prints it, clients and sinks build the same one from the stream, and the worker's pump keeps one
to repair a log that Redis lost. Two views that have applied the same events (or a compacted form of
them) are equal. This module is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridge.entries import Entry
from bridge.errors import InvalidEvent
from bridge.events import (
    MAIN_FIELD,
    START,
    TERMINAL_STATES,
    Chunk,
    Data,
    End,
    Event,
    Position,
    Progress,
    Reset,
    State,
)
from bridge.merge import split_text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class View:
    """What a task looks like at `position`. Grows by `apply`; read it by attributes or `as_dict`."""

    __slots__ = (
        "_parts",
        "attempt",
        "cancel_requested",
        "created_at",
        "data",
        "ended_at",
        "error",
        "message",
        "position",
        "progress",
        "result",
        "started_at",
        "state",
        "task_id",
        "truncated",
        "updated_at",
        "usage",
    )

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.position = START
        self._clear(attempt=0)

    def __repr__(self) -> str:
        """For a terminal: where it is and how much it holds, not the text itself."""
        return f"<View {self.task_id} {self.state} at {self.position}: {len(self.text)} characters>"

    def _clear(self, attempt: int) -> None:
        self.state = "queued"
        self.attempt = attempt
        self.cancel_requested = False
        self._parts: dict[str, list[str]] = {}
        self.progress: float | None = None
        self.message: str | None = None
        self.data: dict[str, Any] = {}
        self.result: Any = None
        self.error: dict[str, str] | None = None
        self.usage: dict[str, Any] | None = None
        self.truncated = False
        self.created_at: int | None = None
        self.started_at: int | None = None
        self.updated_at: int | None = None
        self.ended_at: int | None = None

    def apply(self, position: Position, event: Event) -> None:
        """Fold one event in. Events come in order; the caller sees to that."""
        match event:
            case Chunk(text, field):
                self._parts.setdefault(field, []).append(text)
            case Progress(progress, message):
                self.progress, self.message = progress, message
            case Data(name, value):
                # The latest stands last, so that the order is the same where older ones were left out.
                self.data.pop(name, None)
                self.data[name] = value
            case State(state, attempt, cancel_requested, created_at, started_at):
                self.state, self.attempt, self.cancel_requested = state, attempt, cancel_requested
                self.created_at, self.started_at = created_at, started_at
            case Reset(_, attempt):
                self._clear(attempt)
            case End(state, error, result, usage, _, truncated, at):
                self.state, self.result, self.truncated = state, result, truncated
                self.error = None if error is None else dict(error)
                self.usage = None if usage is None else dict(usage)
                self.ended_at = at
        if event.at is not None:
            self.updated_at = event.at
        self.position = position

    def apply_all(self, entries: Iterable[Entry]) -> None:
        """Fold entries of a log in, in their order."""
        for entry in entries:
            self.apply(entry.position, entry.event)

    def text_of(self, field: str = MAIN_FIELD) -> str:
        """The whole text of a field so far; empty for a field that got none."""
        parts = self._parts.get(field)
        if not parts:
            return ""
        if len(parts) > 1:
            parts[:] = ["".join(parts)]
        return parts[0]

    @property
    def text(self) -> str:
        """The main text."""
        return self.text_of(MAIN_FIELD)

    @property
    def fields(self) -> dict[str, str]:
        """The text of every other field that got any."""
        texts = {field: self.text_of(field) for field in self._parts if field != MAIN_FIELD}
        return {field: text for field, text in texts.items() if text}

    @property
    def ended(self) -> bool:
        """Whether the `end` has come."""
        return self.state in TERMINAL_STATES

    def as_dict(self, texts: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON shape of a view, the same for `/status`, clients and sinks. Times in RFC 3339, UTC.

        `texts` stands for the text of all fields where only a part of it is wanted.
        """
        if texts is None:
            texts = {field: self.text_of(field) for field in self._parts}
        return {
            "id": self.task_id,
            "state": self.state,
            "attempt": self.attempt,
            "position": str(self.position),
            "text": texts.get(MAIN_FIELD, ""),
            "fields": {field: text for field, text in texts.items() if text and field != MAIN_FIELD},
            "progress": self.progress,
            "message": self.message,
            "data": dict(self.data),
            "cancel_requested": self.cancel_requested,
            "result": self.result,
            "error": self.error,
            "usage": self.usage,
            "truncated": self.truncated,
            "created_at": rfc3339(self.created_at),
            "started_at": rfc3339(self.started_at),
            "updated_at": rfc3339(self.updated_at),
            "ended_at": rfc3339(self.ended_at),
        }

    def content(self) -> list[Event]:
        """The fewest events that give an empty view this one's text, data and progress."""
        events: list[Event] = []
        for field in self._parts:
            events += [Chunk(piece, field) for piece in split_text(self.text_of(field))]
        events += [Data(name, value) for name, value in self.data.items()]
        if self.progress is not None or self.message is not None:
            events.append(Progress(self.progress, self.message))
        return events


def rfc3339(ms: int | None) -> str | None:
    """Milliseconds since 1970 as RFC 3339 text in UTC, or None."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def parse_rfc3339(text: str) -> int:
    """The milliseconds since 1970 that `rfc3339` wrote. Raises `InvalidEvent` for what is no such time."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError):
        raise InvalidEvent(f"a time looks like 2026-01-01T00:00:00.000Z (got {text[:40]!r})") from None
