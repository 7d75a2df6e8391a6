"""Many followers, and what a scenario waits for them to have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from tests.chaos.kit.workers import WorkerProcess
from tests.followers import Follower
from tests.waiting import eventually_async

SECONDS = 60.0
_TOGETHER = 100
"""So many connect at the same moment."""


class Crowd:
    """Followers that were started together."""

    def __init__(self, followers: Iterable[Follower]) -> None:
        self.followers = list(followers)

    def __iter__(self) -> Iterator[Follower]:
        return iter(self.followers)

    def __len__(self) -> int:
        return len(self.followers)

    async def join(self) -> None:
        """Let them come, a hundred at a time."""
        for start in range(0, len(self.followers), _TOGETHER):
            await asyncio.gather(*(one.join() for one in self.followers[start : start + _TOGETHER]))

    async def all(self, true: Callable[[Follower], bool], *, seconds: float = SECONDS) -> None:
        """Wait until that holds for every one of them. Names the last that lack it when time is up."""

        def nobody_lacks_it() -> bool:
            lacking = [one for one in self.followers if not true(one)]
            shown = [
                f"{one.view.task_id} at {one.view.position}, {one.view.message!r}, {one.view.state},"
                f" {'' if one.connected else 'not '}connected, {one.statuses[-3:]}"
                for one in lacking[:3]
            ]
            assert not lacking, f"{len(lacking)} of {len(self)} don't have it: {shown}"
            return True

        await eventually_async(nobody_lacks_it, timeout=seconds)

    async def caught_up(self, worker: WorkerProcess, *, seconds: float = SECONDS) -> None:
        """Wait until everyone has read all that the worker was told to write."""
        await self.all(lambda one: one.view.message == str(worker.written[one.view.task_id]), seconds=seconds)

    async def ended(self, *, seconds: float = SECONDS) -> None:
        """Wait until everyone has an `end`."""
        await self.all(lambda one: one.view.ended, seconds=seconds)

    def leave(self) -> None:
        """Let all of them vanish."""
        for one in self.followers:
            one.leave()
