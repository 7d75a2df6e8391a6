"""Who reads a channel, and what is handed to them. How bytes get to a socket is decided in `stream.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.events import Entry, Position
from bridge.gateway.history import Dialect


class Batch:
    """Events that arrived together. Encoded when first wanted, once per dialect, however many follow."""

    __slots__ = ("_frames", "entries")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._frames: dict[Dialect, bytes] = {}

    def frames(self, dialect: Dialect) -> bytes:
        """The bytes to send in a dialect."""
        frames = self._frames.get(dialect)
        if frames is None:
            frames = self._frames[dialect] = dialect(self.entries)
        return frames


class Follower(Protocol):
    """Somebody who reads a channel: an open stream, or a waiting long poll.

    position: everything up to here was given to it. generation: of the channel, when that was so; -1 for
    a position that came from a client. read_awaited: the number of the read that rule 5 asks for, 0 if none.
    """

    position: Position
    generation: int
    read_awaited: int
    dialect: Dialect

    def offer(self, batch: Batch) -> bool:
        """Take a batch that follows `position`. False: busy now; it comes for it with `Channel.take`."""

    def wake(self) -> None:
        """Something changed that is not a batch: look at the channel again."""

    def tick(self, now: float) -> None:
        """The hub's clock (monotonic seconds): time for heartbeats, and for waits that are over."""

    def drain(self) -> None:
        """The gateway is going away: finish now, so that the client comes back elsewhere."""

    def cut(self) -> bool:
        """Break the client's connection off at once, as a network would. False: there is none to break."""
