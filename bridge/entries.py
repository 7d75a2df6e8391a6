"""Events at their places in a log, as JSON until somebody asks what they say.

A gateway hands most events on as they are, so reading each would be most of its work. What was read from
the log has been checked (`bridge.store.log`); what came over the link is only looked at when it is needed.

There is one for every event of every task that is read, so it is small: the position is two plain numbers.
A `Position` would be another object for the garbage collector to look at again and again.
"""

from __future__ import annotations

from typing import Self

from bridge.codec import decode
from bridge.events import Event, Position, Unknown


class Entry:
    """One event at its place. `data` is its JSON as it stands in the log. Two are equal if that is."""

    __slots__ = ("_event", "data", "epoch", "kind", "seq")

    def __init__(self, position: Position, event: Event, data: bytes) -> None:
        self.epoch, self.seq = position
        self.kind: str = event.kind
        self.data = data
        self._event: Event | None = event

    @classmethod
    def unread(cls, epoch: int, seq: int, kind: str, data: bytes) -> Self:
        """An entry whose data nobody has looked at yet."""
        entry = cls.__new__(cls)
        entry.epoch = epoch
        entry.seq = seq
        entry.kind = kind
        entry.data = data
        entry._event = None
        return entry

    @property
    def position(self) -> Position:
        """Its place."""
        return Position(self.epoch, self.seq)

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
        return (self.epoch, self.seq, self.kind, self.data) == (
            other.epoch,
            other.seq,
            other.kind,
            other.data,
        )

    def __hash__(self) -> int:
        """By its place."""
        return hash((self.epoch, self.seq))

    def __repr__(self) -> str:
        """For a terminal: the data cut short."""
        return f"<Entry {self.position} {self.kind} {self.data[:60]!r}>"
