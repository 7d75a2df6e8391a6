"""The world of one scenario: its Redis, gateways, workers, relays and followers, all started here and ended
here, and the generator of chance that makes a run repeatable.
"""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.gateways import GatewayProcess
from tests.chaos.kit.invariants import Ending, Invariants
from tests.chaos.kit.tally import Tally
from tests.chaos.kit.workers import WorkerProcess
from tests.followers import Follower
from tests.proxy import Proxy, proxy
from tests.servers import RedisProcess
from tests.tools import find_tool

T = TypeVar("T")

QUICK: dict[str, Any] = {
    "heartbeat_seconds": 1,
    "linger_seconds": 0.3,
    "audit_seconds": 0.2,
    "probe_seconds": 0.5,
    "drain_seconds": 1,
    "lease_seconds": 6,
    # All readers come from one address, and by the hundred.
    "max_streams_per_principal": 0,
    "max_streams_per_address": 0,
    "max_connections_per_address": 0,
    "new_streams_per_second": 0,
    "polls_per_second": 0,
}
"""Settings of all gateways and workers, where a scenario says nothing else."""

HASTE = 0.1
"""Followers come back after a tenth of the time that they were told, so that tests are quick."""

_FILES = 20_000


class World:
    """What a scenario gets. Whatever it starts here is ended when the scenario is over."""

    def __init__(self, *, long: bool, seed: int, tally: Tally, folder: Path) -> None:
        self.long = long
        self.seed = seed
        self.random = Random(seed)
        self.tally = tally
        self.folder = folder
        self.redis = RedisProcess(data_dir=folder, binary=_chosen_server())
        self.settings: dict[str, Any] = dict(QUICK)
        self.gateways: list[GatewayProcess] = []
        self.workers: list[WorkerProcess] = []
        self.crowds: list[Crowd] = []
        self.endings: dict[str, Ending] = {}
        """How tasks end that end otherwise than their worker's record says."""
        self.resets: set[str] = set()
        """Reasons for which readers may be told to begin anew; none, where nothing is lost."""
        self._proxies: list[Any] = []

    def size(self, short: T, long: T) -> T:
        """The one for the short form, or the one for the long."""
        return long if self.long else short

    def rounds(self, short: int, long: int) -> Iterator[int]:
        """The numbers of that many rounds, shown by the progress bar."""
        count = self.size(short, long)
        for number in range(count):
            self.tally.progress = number / count
            yield number
        self.tally.progress = 1.0

    def proxy(self, *urls: str) -> Proxy:
        """A relay to those servers, in turn."""
        running = proxy(*urls)
        self._proxies.append(running)
        return running.__enter__()

    async def gateway(self, redis_url: str | None = None, **settings: Any) -> GatewayProcess:
        """A gateway that is ready. `redis_url` may be a relay's."""
        log = self.folder / f"gateway-{len(self.gateways)}.log"
        one = GatewayProcess(self._environ(redis_url, settings), log)
        self.gateways.append(one)
        await one.start()
        return one

    async def worker(self, redis_url: str | None = None, **settings: Any) -> WorkerProcess:
        """A worker process that has nothing to do yet."""
        folder = self.folder / f"worker-{len(self.workers)}"
        one = WorkerProcess(self._environ(redis_url, settings), folder, f"{self.seed} {folder.name}")
        self.workers.append(one)
        await one.start()
        return one

    def crowd(
        self, tasks: Iterable[str], each: int, gateways: Sequence[GatewayProcess | str], **how: Any
    ) -> Crowd:
        """`each` followers of each task, who begin at any of the gateways, and come back to the next one
        when they lose their connection. They connect with `join`.
        """
        urls = [one if isinstance(one, str) else one.url for one in gateways]
        how = {"returns": True, "haste": HASTE, **how}
        crowd = Crowd(Follower(self._in_turn(urls), task_id, **how) for task_id in tasks for _ in range(each))
        self.crowds.append(crowd)
        return crowd

    def _in_turn(self, urls: Sequence[str]) -> Callable[[], str]:
        turn = itertools.cycle(self.random.sample(urls, len(urls)))
        return lambda: next(turn)

    async def follow(
        self, tasks: Iterable[str], each: int, gateways: Sequence[GatewayProcess | str], **how: Any
    ) -> Crowd:
        """A `crowd` that is there already."""
        crowd = self.crowd(tasks, each, gateways, **how)
        await crowd.join()
        await crowd.all(lambda one: bool(one.statuses))
        return crowd

    async def check(self) -> None:
        """All invariants. The last thing that a scenario does, when every follower has its end."""
        await Invariants(
            self.redis, self.gateways, self.workers, self.crowds, self.endings, self.resets, self.tally
        ).check()

    def _environ(self, redis_url: str | None, settings: dict[str, Any]) -> dict[str, str]:
        chosen = {"redis_url": redis_url or self.redis.url, **self.settings, **settings}
        return {f"BRIDGE_{name.upper()}": str(value) for name, value in chosen.items()}

    async def _close(self) -> None:
        for crowd in self.crowds:
            crowd.leave()
        for worker in self.workers:
            await worker.abandon()
        for gateway in self.gateways:
            if gateway.running:
                await gateway.kill()
        for one in self._proxies:
            one.__exit__(None, None, None)


def _chosen_server() -> Path | None:
    """The server program that BRIDGE_TEST_SERVER names, as in all tests."""
    name = os.environ.get("BRIDGE_TEST_SERVER")
    return find_tool(name) if name else None


@asynccontextmanager
async def world(*, long: bool, seed: int, tally: Tally, folder: Path) -> AsyncIterator[World]:
    """A world with a running Redis, and nothing left of it afterwards."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(limits[0], _FILES), limits[1]), limits[1]))
    one = World(long=long, seed=seed, tally=tally, folder=folder)
    try:
        with one.redis:
            try:
                yield one
            finally:
                await one._close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
