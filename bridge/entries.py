"""Events at their places in a log, as JSON until somebody asks what they say.

A gateway hands most events on as they are, so reading each would be most of its work. What was read from
the log has been checked (`bridge.store.log`); what came over the link is only looked at when it is needed.
"""

from __future__ import annotations

from typing import Self

from bridge.codec import decode
from bridge.events import Event, Position, Unknown


class Entry:
    """One event at its place. `data` is its JSON as it stands in the log. Two are equal if that is."""

    __slots__ = ("_event", "data", "kind", "position")

    def __init__(self, position: Position, event: Event, data: bytes) -> None:
        self.position = position
        self.kind: str = event.kind
        self.data = data
        self._event: Event | None = event

    @classmethod
    def unread(cls, position: Position, kind: str, data: bytes) -> Self:
        """An entry whose data nobody has looked at yet."""
        entry = cls.__new__(cls)
        entry.position = position
        entry.kind = kind
        entry.data = data
        entry._event = None
        return entry

    @property
    def event(self) -> Event:
        """What the data says. Raises `InvalidEvent` when it was unread and can't be."""
        event = self._event
        if event is None:
            event = self._event = decode(self.kind, self.data)
        return event

    def give_up(self) -> Event:
        """Take the data for that of an event that this version doesn't know."""
        event = self._event = Unknown(self.kind, {})
        return event

    def __eq__(self, other: object) -> bool:
        """Whether it is the same data of the same kind at the same place."""
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.position, self.kind, self.data) == (other.position, other.kind, other.data)

    def __hash__(self) -> int:
        """By its place."""
        return hash(self.position)

    def __repr__(self) -> str:
        """For a terminal: the data cut short."""
        return f"<Entry {self.position} {self.kind} {self.data[:60]!r}>"
