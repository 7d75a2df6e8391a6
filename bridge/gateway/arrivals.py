"""What came over the link together: each task's messages joined to one. Pure.

A gateway that is busy finds several messages of a task when it looks at the link again. Joined, they are one
write per viewer. So the further it is behind, the less an event costs, and it catches up; one that has little
to do finds single messages, and hands them on as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bridge.entries import Entry
from bridge.events import Position
from bridge.gateway.channel import Channel
from bridge.gateway.history import PIECE_BYTES, data_bytes

Arrival = tuple[Channel, Position, list[Entry]]
"""A message: whose, the position of its last event, and its events."""

_MOST_EVENTS: Final = 256
"""To so many none are joined."""


def joined(arrivals: Iterable[Arrival]) -> Sequence[Arrival]:
    """The same events, each task's in order, in as few messages as they can be in. The lists are used up.

    Only what continues what came before it is joined to it, and nothing to an `end`: who watches is to have
    the answer whole before anything takes that back. Nor is more joined than a channel lets wait while it
    reads, or hands to viewers as it is: `PIECE_BYTES`.
    """
    result: list[Arrival] = []
    newest: dict[Channel, tuple[int, int]] = {}
    """Of each task the newest in `result`: where, and how many bytes of data it has."""
    for arrival in arrivals:
        channel, last, entries = arrival
        size = data_bytes(entries)
        if channel in newest:
            index, bytes_held = newest[channel]
            _, end, held = result[index]
            if bytes_held + size <= PIECE_BYTES and _continues(end, held, last, entries):
                held += entries
                result[index] = channel, last, held
                newest[channel] = index, bytes_held + size
                continue
        newest[channel] = len(result), size
        result.append(arrival)
    return result


def _continues(end: Position, held: list[Entry], last: Position, entries: list[Entry]) -> bool:
    return (
        0 < len(held) < _MOST_EVENTS
        and held[-1].kind != "end"
        and last.epoch == end.epoch
        and last.seq - len(entries) == end.seq
    )
