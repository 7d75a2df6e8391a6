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

Arrival = tuple[Channel, Position, list[Entry]]
"""A message: whose, the position of its last event, and its events."""

_MOST_EVENTS: Final = 256
"""More aren't joined to one."""


def joined(arrivals: Iterable[Arrival]) -> Sequence[Arrival]:
    """The same events, each task's in order, in as few messages as they can be in. The lists are used up.

    Only what continues what came before it is joined to it, and nothing to an `end`: who watches is to have
    the answer whole before anything takes that back.
    """
    result: list[Arrival] = []
    newest: dict[Channel, int] = {}
    for arrival in arrivals:
        channel, last, entries = arrival
        index = newest.get(channel)
        if index is not None:
            _, end, held = result[index]
            if _continues(end, held, last, entries):
                held += entries
                result[index] = channel, last, held
                continue
        newest[channel] = len(result)
        result.append(arrival)
    return result


def _continues(end: Position, held: list[Entry], last: Position, entries: list[Entry]) -> bool:
    return (
        0 < len(held) < _MOST_EVENTS
        and held[-1].kind != "end"
        and last.epoch == end.epoch
        and last.seq - len(entries) == end.seq != last.seq
    )
