"""What a gateway has done so far, as plain numbers. `metrics.py` reads them when somebody asks.

Rules
-----
1. Whoever does something adds to a number, in the place where it is done. All of that is on the event loop,
   so there are no locks.
2. Nothing is counted per follower and event. What a stream was given it knows itself, by its cursor, and its
   numbers are added up when somebody asks, or when it is over. Delays are measured once per turn of the event
   loop (`delays.py`).
3. What can be seen by looking (channels, followers, memory) isn't kept here.
4. Reasons are of short, fixed lists. Nothing here knows a task, a user or an address.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final, Literal, Protocol, get_args

Heal = Literal["gap", "epoch", "conflict", "too_large", "backlog", "audit", "unreadable"]
"""Why a channel that was up to date had to read the log.

gap: a message before this one never came. epoch: another life of the log. conflict: other text under the same
positions. too_large: a message that was announced only. backlog: more messages came during a read than are
kept. audit: the comparison with Redis found it, as after an outage. unreadable: a message that is no message.
"""

Ending = Literal[
    "ended", "no_more", "gone", "stalled", "cut", "drained", "unknown_task", "redis_away", "refused", "failed"
]
"""Why a stream is over.

ended: the task has. no_more: the client had it all (204). gone: the client left. stalled: it took nothing
for too long. cut: for a drill. drained: the gateway goes away. unknown_task: nobody knows the task.
redis_away: it couldn't be read for too long. refused: over a limit, or the credentials weren't good or
couldn't be judged. failed: by a mistake of ours.
"""

DELAYS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The upper bounds that delays are sorted by, in seconds."""


class Histogram:
    """How many observations there were up to each of some bounds. The last number has no bound."""

    __slots__ = ("bounds", "numbers", "sum")

    def __init__(self, bounds: tuple[float, ...] = DELAYS) -> None:
        self.bounds = bounds
        self.numbers = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self.numbers[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Sending(Protocol):
    """An open stream."""

    @property
    def events_sent(self) -> int:
        """Over how many events of the log it was brought."""

    @property
    def bytes_sent(self) -> int:
        """How many bytes were handed to its connection."""


class Counts:
    """The numbers of one gateway, from its beginning on."""

    def __init__(self) -> None:
        self.events_received = 0
        self.messages_received = 0
        self.heals: dict[Heal, int] = dict.fromkeys(get_args(Heal), 0)
        self.resets = 0
        """Streams that were told to forget what they had, since the log they had followed was replaced."""
        self.leases_lost = 0
        self.link_drops = 0
        self.streams: dict[Ending, int] = dict.fromkeys(get_args(Ending), 0)
        self.open: set[Sending] = set()
        self.answers: Counter[tuple[str, int]] = Counter()
        """By what was asked for, of a fixed list, and HTTP status."""
        self.fan_out = Histogram()
        self.delivery = Histogram()
        self._events_sent = 0
        self._bytes_sent = 0

    @property
    def events_sent(self) -> int:
        """By all streams, open or over."""
        return self._events_sent + sum(stream.events_sent for stream in self.open)

    @property
    def bytes_sent(self) -> int:
        """By all streams, open or over."""
        return self._bytes_sent + sum(stream.bytes_sent for stream in self.open)

    def close(self, stream: Sending) -> None:
        """A stream of `open` is over; what it was given stays counted."""
        self.open.discard(stream)
        self._events_sent += stream.events_sent
        self._bytes_sent += stream.bytes_sent
