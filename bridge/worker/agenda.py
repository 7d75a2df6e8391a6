"""Which of the pump's jobs is due when. For one thread, and pure: it is told the time.

Rules
-----
1. A job stands here at most once. To put it again moves it.
2. What is due is taken in the order in which it became due, or was put.
3. A timer is never moved or removed. It only says when to look at a job, which may want another time then.
   So a job that is put off needs no timer while it has an earlier one. A task that reports all the time has
   two or three, instead of leaving one behind with each event, for the heap and the garbage collector.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from itertools import count

from bridge.worker.job import Job


class Agenda:
    """Jobs with their times."""

    def __init__(self) -> None:
        self._due: OrderedDict[Job, None] = OrderedDict()
        self._later: dict[Job, float] = {}
        self._timers: list[tuple[float, int, Job]] = []
        self._timed: dict[Job, list[float]] = {}
        """The times of a job's timers, the earliest last: each further one is earlier than those before."""
        self._tick = count()

    def put(self, job: Job, when: float, now: float) -> None:
        """Have a job taken at that time; never, if it is infinite."""
        if when <= now:
            self._later.pop(job, None)
            self._due[job] = None
            return
        self._due.pop(job, None)
        if when == math.inf:
            self._later.pop(job, None)
            return
        self._later[job] = when
        timed = self._timed.setdefault(job, [])
        if not timed or when < timed[-1]:
            timed.append(when)
            heapq.heappush(self._timers, (when, next(self._tick), job))

    def next(self) -> float:
        """When to look again, at the latest: there may be nothing to take then."""
        if self._due:
            return -math.inf
        return self._timers[0][0] if self._timers else math.inf

    def take(self, now: float) -> Job | None:
        """Remove the first job that is due, and return it."""
        while self._timers and self._timers[0][0] <= now:
            _, _, job = heapq.heappop(self._timers)
            timed = self._timed[job]
            timed.pop()
            if not timed:
                del self._timed[job]
            if job in self._later:
                self.put(job, self._later[job], now)
        return self._due.popitem(last=False)[0] if self._due else None
