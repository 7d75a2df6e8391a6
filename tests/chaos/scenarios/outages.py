"""Redis stops, comes back with all, some or nothing of what it had, or forgets a key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bridge.settings import Settings
from bridge.store.keys import Keys
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.servers import RedisProcess

LEASE_SECONDS: Final = 3.0
"""A worker that gets little of the processor still renews such a lease in time."""
TASKS: Final = 5
AFTER_A_LOSS: Final = {"log_lost", "other_log"}
REFUSALS: Final = (("min-replicas-to-write", 1), ("maxmemory", 1))
"""Settings with which Redis refuses all writes, and answers reads. Both are usually 0."""
KEYS: Final = Keys.from_settings(Settings(), database=0)


@dataclass(frozen=True, slots=True)
class Work:
    """Tasks that are being written, and their readers."""

    world: World
    worker: WorkerProcess
    tasks: list[str]
    crowd: Crowd

    async def go_on_through(self, fault: Callable[[], Awaitable[None]]) -> None:
        """Let the fault happen while all tasks write, and wait until everyone has everything."""
        before = {one: one.view.position for one in self.crowd}
        writing = [self.worker.writing(task_id, 100, every=0.01) for task_id in self.tasks]
        await self.crowd.all(lambda one: one.view.position != before[one])
        with self.world.tally.injecting():
            await fault()
            assert all(await asyncio.gather(*writing)), "the hook told healthy work to stop"
            await self.crowd.caught_up(self.worker)
        assert not any(one.ends for one in self.crowd), "a healthy task was declared lost"

    async def finish(self) -> None:
        """End all tasks, and look at everything."""
        for task_id in self.tasks:
            await self.worker.end(task_id)
        await self.crowd.ended()
        await self.world.check()

    def all_were_reset(self) -> None:
        """Everyone was told that there is other text than before."""
        without = sum(not one.resets for one in self.crowd)
        assert not without, f"{without} of {len(self.crowd)} readers were not told that text was lost"


async def at_work(world: World) -> Work:
    """A worker with a few tasks, two gateways, and readers."""
    gateways = [await world.gateway(), await world.gateway()]
    worker = await world.worker()
    tasks = [f"job-{number}" for number in range(TASKS)]
    for task_id in tasks:
        await worker.begin(task_id)
    return Work(world, worker, tasks, await world.follow(tasks, 4, gateways))


@scenario(5, "Redis frozen (SIGSTOP) for longer than a lease")
async def redis_frozen(world: World) -> None:
    """Every lease looks over when it wakes; nobody is declared lost, and nothing is written anew."""
    world.settings["lease_seconds"] = LEASE_SECONDS
    work = await at_work(world)

    async def freeze() -> None:
        world.redis.pause()
        await asyncio.sleep(world.size(1.3, 2) * LEASE_SECONDS)
        world.redis.resume()

    for _ in world.rounds(1, 30):
        await work.go_on_through(freeze)
    await work.finish()


@scenario(5, "Redis refuses writes (NOREPLICAS, OOM)")
async def redis_refuses(world: World) -> None:
    """For longer than a lease. It answers reads meanwhile, so that nothing but a write can tell."""
    world.settings["lease_seconds"] = LEASE_SECONDS
    work = await at_work(world)
    for number in world.rounds(2, 30):
        setting, value = REFUSALS[number % 2]

        async def refuse(setting: str = setting, value: int = value) -> None:
            with world.redis.client() as client:
                client.config_set(setting, value)
                await all_not_ready(world)
                await asyncio.sleep(LEASE_SECONDS * world.random.uniform(1, world.size(1.2, 3)))
                client.config_set(setting, 0)

        await work.go_on_through(refuse)
    await work.finish()


async def all_not_ready(world: World) -> None:
    """Every gateway has noticed, and says so."""
    await asyncio.gather(*(gateway.wait_not_ready() for gateway in world.gateways))


@scenario(5, "Redis killed, restarted with its data (AOF)")
async def redis_restarted(world: World) -> None:
    """For longer than a lease; it has all that it acknowledged."""
    world.resets = AFTER_A_LOSS
    world.settings["lease_seconds"] = LEASE_SECONDS
    with RedisProcess(data_dir=world.folder, options=["--appendonly", "yes"]) as world.redis:
        work = await at_work(world)

        async def restart() -> None:
            world.redis.kill()
            await asyncio.sleep(LEASE_SECONDS)
            await asyncio.to_thread(world.redis.start)

        for _ in world.rounds(1, 20):
            await work.go_on_through(restart)
        await work.finish()


@scenario(5, "Redis killed, restarted with older data (RDB)")
async def redis_restarted_with_old_data(world: World) -> None:
    """What was written after the snapshot is gone, though it was acknowledged and read."""
    world.resets = AFTER_A_LOSS
    work = await at_work(world)
    for _ in world.rounds(1, 30):
        with world.redis.client() as client:
            client.save()
        for task_id in work.tasks:
            await work.worker.write(task_id, 10)
        await work.crowd.caught_up(work.worker)
        await work.go_on_through(restarter(world))
    work.all_were_reset()
    await work.finish()


@scenario(5, "Redis killed, restarted empty")
async def redis_restarted_empty(world: World) -> None:
    """It has forgotten all tasks and all scripts."""
    world.resets = AFTER_A_LOSS
    work = await at_work(world)
    for _ in world.rounds(2, 50):
        await work.go_on_through(restarter(world))
    work.all_were_reset()
    await work.finish()


@scenario(5, "log evicted, the hash lives")
async def log_evicted(world: World) -> None:
    """As a Redis does it that is short of memory."""
    world.resets = AFTER_A_LOSS
    work = await at_work(world)
    for _ in world.rounds(2, 50):
        await work.go_on_through(forgetter(world, KEYS.log))
    work.all_were_reset()
    await work.finish()


@scenario(5, "hash evicted, the log lives")
async def hash_evicted(world: World) -> None:
    """The other way round: text without a word on whose it is."""
    world.resets = AFTER_A_LOSS
    work = await at_work(world)
    for _ in world.rounds(2, 50):
        await work.go_on_through(forgetter(world, KEYS.task))
    work.all_were_reset()
    await work.finish()


def restarter(world: World) -> Callable[[], Awaitable[None]]:
    """A crash and a start."""

    async def restart() -> None:
        world.redis.kill()
        await asyncio.to_thread(world.redis.start)

    return restart


def forgetter(world: World, key: Callable[[str], str]) -> Callable[[], Awaitable[None]]:
    """Half of what Redis knows of every task is gone."""

    async def forget() -> None:
        with world.redis.client() as client:
            client.delete(*(key(f"job-{number}") for number in range(TASKS)))

    return forget
