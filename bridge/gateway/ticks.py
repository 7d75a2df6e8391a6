"""Who is told what time it is, and when: heartbeats, stalls and waits of all, without a timer for each.

Rules
-----
1. A follower is ticked within one turn after it asked to be: `Follower.tick` answers when the next one is
   due. One that has just come, or for whom `soon` was called, is ticked in the next turn.
2. Whose turn it isn't costs nothing, and isn't even looked at.
3. Followers whose ticks were taken but never came, because one before them broke, are due again in the next
   turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from bridge.gateway.follower import Follower


class Ticks:
    """All followers of a gateway, by their turn. Times are monotonic seconds, and a turn has so many."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._turn = 0
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

    def take(self, now: float) -> list[Follower]:
        """All whose turn has come. To be called about every `seconds`."""
        last = int(now / self.seconds)
        taken: list[Follower] = []
        for turn in [turn for turn in self._due if turn <= last]:
            taken += self._due.pop(turn)
        self._turn = last + 1
        for follower in taken:
            self._put(follower, self._turn)  # rule 3
        return taken

    def tick(self, follower: Follower, now: float) -> None:
        """Tick one that was taken, if it is still there."""
        if follower in self._turns:
            due = follower.tick(now)
            if due > now:
                self._put(follower, inf if due == inf else max(due // self.seconds + 1, self._turn))

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
