"""Who reads a channel, what is handed to them, and who is told that they do. How bytes get to a socket is
decided in `stream.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Final, Protocol

from bridge.entries import Entry
from bridge.events import Position
from bridge.gateway.history import Dialect

TICK_SECONDS: Final = 1.0
"""A tick comes at most so late; at most twice that, where hundreds are due at the same time."""


class Batch:
    """Events that arrived together. Encoded when first wanted, once per dialect, however many follow.

    at: when, on the monotonic clock (seconds). last: whether the end is among them.
    """

    __slots__ = ("_encoded", "at", "entries", "last")

    def __init__(self, entries: Sequence[Entry], *, last: bool = False) -> None:
        self.entries = entries
        self.last = last
        self.at = monotonic()
        self._encoded: dict[Dialect, tuple[bytes, bytes]] = {}

    def frames(self, dialect: Dialect) -> bytes:
        """The bytes to send in a dialect."""
        return (self._encoded.get(dialect) or self._encode(dialect))[0]

    def chunk(self, dialect: Dialect) -> bytes:
        """The same as one chunk of an HTTP/1.1 body (RFC 9112, 7.1), ready for the socket. Of a batch
        that the dialect has no word for, none: an empty chunk would be the body's end.
        """
        return (self._encoded.get(dialect) or self._encode(dialect))[1]

    def _encode(self, dialect: Dialect) -> tuple[bytes, bytes]:
        frames = dialect(self.entries)
        chunk = b"%x\r\n%b\r\n" % (len(frames), frames) if frames else b""
        encoded = self._encoded[dialect] = (frames, chunk)
        return encoded


class Follower(Protocol):
    """Somebody who reads a channel: an open stream, or a waiting long poll.

    position: everything up to here was given to it. generation: of the channel, when that was so; -1 for
    a position that came from a client. read_awaited: the number of the read that rule 6 asks for, 0 if none.
    """

    position: Position
    generation: int
    read_awaited: int
    dialect: Dialect

    def offer(self, batch: Batch) -> bool:
        """Take a batch that follows `position`. False: busy now; it comes for it with `Channel.take`."""

    def restarted(self) -> None:
        """All that was given up to `position` is void. Called before the cursor is put back."""

    def wake(self) -> None:
        """Something changed that is not a batch: look at the channel again."""

    def tick(self, now: float) -> float:
        """The hub's clock (monotonic seconds): time for heartbeats, and for waits that are over. Returns when
        the next tick is due, if not before then `Hub.tick_soon` is called.
        """

    def drain(self) -> None:
        """The gateway is going away: finish now, so that the client comes back elsewhere."""

    def cut(self) -> bool:
        """Break the client's connection off at once, as a network would. False: there is none to break."""


class Observer(Protocol):
    """Who wants to know which tasks are followed. Plain calls that must not block."""

    def joined(self, task_id: str) -> None:
        """Somebody follows this task from now on."""

    def left(self, task_id: str) -> None:
        """One of those who followed it doesn't any more."""


class Nobody:
    """An observer that doesn't care."""

    def joined(self, task_id: str) -> None:
        """Nothing follows from it."""

    def left(self, task_id: str) -> None:
        """Nothing follows from it."""
