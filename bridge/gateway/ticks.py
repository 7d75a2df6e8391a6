"""Who is told what time it is, and when: heartbeats, stalls and waits of all, without a timer for each.

Rules
-----
1. `Follower.tick` answers when the next one is due, and that comes with the first turn after it. Turns begin
   at whole multiples of their length, so that none is late by more. One that has just come, or for whom
   `soon` was called, is ticked in the next turn.
2. Whose turn it isn't costs nothing, and isn't even looked at.
3. A tick that breaks is tried again in the next turn, and keeps no other from his. So is one that was taken,
   but never came.
4. Who has left is kept by nothing here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from math import ceil, inf

from bridge.gateway.follower import Follower

log = logging.getLogger("bridge.gateway")


class Ticks:
    """All followers of a gateway, by their turn. Times are monotonic seconds, and a turn has so many."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._turn = 0.0
        """The next one that is taken."""
        self._turns: dict[Follower, float] = {}
        self._due: dict[float, set[Follower]] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[Follower]:
        return iter(self._turns)

    def add(self, follower: Follower) -> None:
        """One comes."""
        self._put(follower, self._turn)

    def remove(self, follower: Follower) -> None:
        """One leaves; what was taken of it is not ticked any more."""
        self._lift(self._turns.pop(follower, inf), follower)

    def soon(self, follower: Follower) -> None:
        """Something changed that may make a tick due sooner than it asked for."""
        if follower in self._turns:
            self._put(follower, self._turn)

    def wait(self, now: float) -> float:
        """How many seconds it is until the turn after the one that was taken last; 0 if it has begun."""
        return max(0.0, self._turn * self.seconds - now)

    def take(self, now: float) -> list[Follower]:
        """All whose turn has come. To be called in every turn."""
        last = now // self.seconds
        taken: list[Follower] = []
        for turn in [turn for turn in self._due if turn <= last]:
            taken += self._due.pop(turn)
        self._turn = last + 1
        for follower in taken:
            self._put(follower, self._turn)  # rule 3
        return taken

    def tick(self, taken: Iterable[Follower], now: float) -> None:
        """Tick those that were taken, as far as they are still there."""
        for follower in taken:
            if follower not in self._turns:
                continue
            try:
                due = follower.tick(now)
            except Exception:
                log.exception("a tick broke in a way that it should not")
                continue
            if due > now:
                self._put(follower, inf if due == inf else max(ceil(due / self.seconds), self._turn))

    def _put(self, follower: Follower, turn: float) -> None:
        before = self._turns.get(follower)
        if before != turn:
            if before is not None:
                self._lift(before, follower)
            self._turns[follower] = turn
            if turn != inf:
                self._due.setdefault(turn, set()).add(follower)

    def _lift(self, turn: float, follower: Follower) -> None:
        due = self._due.get(turn)
        if due is not None:
            due.discard(follower)
            if not due:
                del self._due[turn]
