"""The events of one epoch as a channel keeps them: contiguous, perhaps without the oldest ones.

What was forgotten (to save memory) still counts in `seq`, `bytes` and `last_reset`; `reaches` says whether
an event is still there. Nothing here waits or knows who reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.entries import Entry
from bridge.merge import compact

PIECE_BYTES: Final = 65_536
"""A follower that was left behind gets what it missed in pieces of about so many bytes."""

_SHARED_PIECES: Final = 32
_ENTRY_OVERHEAD: Final = 250
"""About what an entry costs in memory beside its data."""

Dialect = Callable[[Sequence[Entry]], bytes]
"""How events are written on a stream: entries in, the bytes to send out. Must be pure."""


def data_bytes(entries: Sequence[Entry]) -> int:
    """The size of the entries' data, as Redis counts it."""
    return sum(len(entry.data) for entry in entries)


def _cost(entries: Sequence[Entry], data: int) -> int:
    """About how many bytes of memory entries with so many bytes of data take."""
    return 2 * data + _ENTRY_OVERHEAD * len(entries)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Encoded entries up to seq `stop`; `full` when more of them didn't fit."""

    stop: int
    full: bool
    frames: bytes


class History:
    """Entries `base` + 1 … `seq` of one epoch, and the encoded pieces that several readers want."""

    def __init__(self) -> None:
        self.seq = 0
        self.base = 0
        self.bytes = 0
        """Of all event data of the epoch, forgotten ones included."""
        self.last_reset = 0
        """The seq of the newest `reset`; what stands before it is void."""
        self.size = 0
        """About how many bytes of memory it takes: the events as JSON and as such, and the pieces."""
        self._entries: list[Entry] = []
        self._pieces: dict[tuple[int, Dialect], _Piece] = {}

    def start(self, seq: int) -> int:
        """From where a reader at `seq` must go on: what a later reset made void is left out."""
        return max(seq, self.last_reset - 1)

    def reaches(self, seq: int) -> bool:
        """Whether all that a reader at `seq` still needs is held."""
        return self.start(seq) >= self.base

    def extend(self, entries: Sequence[Entry]) -> int:
        """Append entries that follow `seq`. Returns how many bytes of data they have."""
        added = 0
        for entry in entries:
            added += len(entry.data)
            if entry.kind == "reset":
                self.last_reset = entry.seq
        if self._pieces:  # those that went to the end don't any more, and nobody can use them
            for place in [place for place, piece in self._pieces.items() if not piece.full]:
                self._let_go(place)
        self._entries += entries
        self.size += _cost(entries, added)
        self.bytes += added
        self.seq += len(entries)
        return added

    def forget(self, until: int) -> None:
        """Drop the entries up to seq `until`."""
        if until > self.base:
            self._hold(self._entries[until - self.base :], until)

    def remember(self, entries: Sequence[Entry]) -> None:
        """Take back what was forgotten: these are the entries 1 … `seq`."""
        self._hold(entries, 0)

    def _hold(self, entries: Sequence[Entry], base: int) -> None:
        self._entries, self.base = list(entries), base
        self.size = _cost(entries, data_bytes(entries))
        self._pieces.clear()

    def differs(self, entry: Entry) -> bool:
        """Whether an entry is held at the same place with other data."""
        index = entry.seq - self.base - 1
        return 0 <= index < len(self._entries) and self._entries[index].data != entry.data

    def begins(self, entries: Sequence[Entry]) -> bool:
        """Whether a whole log, read anew, begins with what is held."""
        told = entries[: self.seq]
        return (
            len(told) == self.seq
            and data_bytes(told) == self.bytes
            and not any(self.differs(entry) for entry in told)
        )

    def after(self, seq: int) -> list[Entry]:
        """All that a reader at `seq` needs, merged."""
        return compact(self._entries[self.start(seq) - self.base :])

    def piece(self, seq: int, dialect: Dialect) -> tuple[int, bytes]:
        """The next piece for a reader at `seq`: up to which seq it goes, and its bytes, merged and encoded.

        Kept for a while for other readers at the same place: a crowd that comes at once costs one encode.
        """
        start = self.start(seq)
        piece = self._pieces.get((start, dialect))
        if piece is None:
            stop = self._cut(start)
            entries = self._entries[start - self.base : stop - self.base]
            piece = _Piece(stop, stop < self.seq, dialect(compact(entries)))
            if len(self._pieces) >= _SHARED_PIECES:
                self._let_go(next(iter(self._pieces)))
            self._pieces[start, dialect] = piece
            self.size += len(piece.frames)
        return piece.stop, piece.frames

    def _let_go(self, place: tuple[int, Dialect]) -> None:
        self.size -= len(self._pieces.pop(place).frames)

    def _cut(self, start: int) -> int:
        size = 0
        for index in range(start - self.base, len(self._entries)):
            size += len(self._entries[index].data)
            if size > PIECE_BYTES and index > start - self.base:
                return self.base + index
        return self.seq
