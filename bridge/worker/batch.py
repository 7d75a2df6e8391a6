"""One batch of an attempt's events: what fits into it, and what it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.store.scripts import Call
from bridge.worker.fold import Piece, encoded

BATCH_BYTES: Final = 1_000_000
"""A batch is no larger, except for a single event that is. So it can always be published."""
BATCH_EVENTS: Final = 1000
"""So a script is done within milliseconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch without an answer: its number, the call that is repeated until there is one, its content."""

    number: int
    call: Call
    pieces: Sequence[Piece]


def take_batch(waiting: deque[Piece]) -> tuple[list[Piece], list[bytes | str]]:
    """Remove what one batch may hold; the pieces, and the same on the wire: kind, data, kind, data …"""
    pieces: list[Piece] = []
    events: list[bytes | str] = []
    size = 0
    while waiting and len(pieces) < BATCH_EVENTS:
        data = encoded(waiting[0])
        size += len(data)
        if pieces and size > BATCH_BYTES:
            break
        piece = waiting.popleft()
        pieces.append(piece)
        events += (piece.kind, data)
    return pieces, events
