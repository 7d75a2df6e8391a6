"""Workers that die, and workers that only seemed to."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Final

from bridge.settings import Settings
from bridge.store.keys import Keys
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.record import Record
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.waiting import eventually_async

LEASE_SECONDS: Final = 2
LATEST_MS: Final = 3 * LEASE_SECONDS * 1000
"""So long after its lease a dead worker's task may end. In health it takes an audit, 0.2 s."""
PROBE_SECONDS: Final = 20
"""On a busy machine no link may be given up because of a late probe: on the next one a gateway would wait for
a whole lease before it judges.
"""
FOLLOWERS: Final = 10
STOP_SECONDS: Final = 30
NOT_ONE_RESET: Final = "not everyone was reset just once, for that reason"
KEYS: Final = Keys.from_settings(Settings(), database=0)


async def midstream(world: World, task_id: str) -> tuple[WorkerProcess, Crowd, asyncio.Task[bool]]:
    """A worker of its own in the midst of a task, its readers, and what it still writes."""
    if not world.gateways:
        world.settings |= {"lease_seconds": LEASE_SECONDS, "probe_seconds": PROBE_SECONDS}
        await world.gateway()
        await world.gateway()
    worker = await world.worker()
    await worker.begin(task_id)
    crowd = await world.follow([task_id], FOLLOWERS, world.gateways)
    writing = worker.writing(task_id, 300, every=0.005)
    await crowd.all(lambda one: one.view.position.seq > 10)
    return worker, crowd, writing


async def lost(crowd: Crowd, record: Record) -> None:
    """Everyone is told that the worker is lost, has the same beginning of its text, and needn't come back."""
    await crowd.ended()
    for one in crowd:
        said = (one.view.state, (one.view.error or {}).get("code"))
        assert said == ("failed", "worker_lost"), f"the end was {said}"
        assert one.view.text, "nothing was left of the text"
        assert record.view.text.startswith(one.view.text), "not the beginning of what was written"
    assert len({one.view.text for one in crowd}) == 1, "readers were left with different texts"
    await crowd.join()
    await crowd.all(lambda one: one.statuses[-1] == 204)


def in_hash(world: World, task_id: str, field: str) -> int:
    """One of the times in the task's hash: Redis time in ms, so that nobody else's clock matters."""
    with world.redis.client() as client:
        found: Any = client.hget(KEYS.task(task_id), field)
    return int(found or 0)


async def running_again(world: World, task_id: str) -> None:
    """Every gateway knows that the task has not ended after all."""

    async def all_know() -> bool:
        polled = [await gateway.get(f"/tasks/{task_id}/status") for gateway in world.gateways]
        return all(answer.json()["state"] == "running" for answer in polled)

    await eventually_async(all_know)


async def ignored(writing: asyncio.Task[bool]) -> None:
    """The worker that should have written this is dead."""
    try:
        await writing
    except ConnectionError:
        pass


@scenario(7, "worker killed (SIGKILL), then retried")
async def worker_killed(world: World) -> None:
    """`worker_lost` with the partial text; after the retry those who come back get a reset and its text."""
    world.resets = {"retry"}
    for number in world.rounds(1, 20):
        task_id = f"job-{number}"
        victim, crowd, writing = await midstream(world, task_id)
        with world.tally.injecting():
            deadline = in_hash(world, task_id, "lease")
            await victim.kill()
            deadline = max(deadline, in_hash(world, task_id, "lease"))  # 0 when the task has ended already
            await ignored(writing)
            await lost(crowd, victim.record(task_id))
        late_ms = in_hash(world, task_id, "ended") - deadline
        assert 0 <= late_ms <= LATEST_MS, f"declared lost {late_ms} ms after its lease"
        heir = await world.worker()
        await heir.begin(task_id)
        await heir.write(task_id, 100)
        await running_again(world, task_id)
        await crowd.join()
        await crowd.caught_up(heir)
        assert all(one.resets == ["retry"] and one.view.attempt == 2 for one in crowd), NOT_ONE_RESET
        await heir.end(task_id)
        await crowd.ended()
    await world.check()


@scenario(7, "worker killed, retried at once")
async def worker_replaced(world: World) -> None:
    """Whoever reads sees the reset and the second attempt, without an end in between."""
    world.resets = {"retry"}
    for number in world.rounds(1, 30):
        task_id = f"job-{number}"
        victim, crowd, writing = await midstream(world, task_id)
        heir = await world.worker()
        with world.tally.injecting():
            await victim.kill()
            await ignored(writing)
            await heir.begin(task_id)
            await heir.write(task_id, 100)
            await crowd.caught_up(heir)
        assert all(one.resets == ["retry"] and one.view.attempt == 2 for one in crowd), NOT_ONE_RESET
        await heir.end(task_id)
        await crowd.ended()
    await world.check()


@scenario(7, "worker frozen, superseded, thawed")
async def worker_superseded(world: World) -> None:
    """The zombie is told to stop, and nothing that it says is seen."""
    world.resets = {"retry"}
    for number in world.rounds(1, 20):
        task_id = f"job-{number}"
        zombie, crowd, writing = await midstream(world, task_id)
        heir = await world.worker()
        with world.tally.injecting():
            zombie.signal(signal.SIGSTOP)
            await heir.begin(task_id)
            await heir.write(task_id, 100)
            await crowd.caught_up(heir)
            zombie.signal(signal.SIGCONT)
            assert not await writing, "the hook told a superseded worker to go on"
            assert not await zombie.end(task_id), "a superseded worker ended the task"
        await heir.write(task_id, 100)
        await crowd.caught_up(heir)
        await heir.end(task_id)
        await crowd.ended()
        assert all(one.resets == ["retry"] for one in crowd), NOT_ONE_RESET
    await world.check()


@scenario(7, "worker frozen for longer than its lease, thawed")
async def worker_returns(world: World) -> None:
    """It was declared lost, comes back, and finishes; those who come back have the whole text."""
    world.resets = {"worker_returned"}
    for number in world.rounds(1, 20):
        task_id = f"job-{number}"
        worker, crowd, writing = await midstream(world, task_id)
        with world.tally.injecting():
            worker.signal(signal.SIGSTOP)
            await lost(crowd, worker.record(task_id))
            worker.signal(signal.SIGCONT)
            assert await writing, "the hook told a worker to stop that may go on"
            await running_again(world, task_id)
            late = await world.follow([task_id], FOLLOWERS, world.gateways)
            await late.caught_up(worker)
            await crowd.join()
            await crowd.caught_up(worker)
        assert all(one.resets == ["worker_returned"] for one in crowd), NOT_ONE_RESET
        await worker.end(task_id)
        await crowd.ended()
        await late.ended()
    await world.check()


@scenario(7, "worker frozen before its first word, superseded, thawed")
async def silent_superseded(world: World) -> None:
    """No batch number gives it away: its next is the one that Redis waits for, so only the token tells."""
    world.settings["lease_seconds"] = LEASE_SECONDS
    world.resets = {"retry"}
    gateways = [await world.gateway(), await world.gateway()]
    for number in world.rounds(2, 20):
        zombie, heir = await world.worker(), await world.worker()
        task_id = f"job-{number}"
        await zombie.begin(task_id)
        crowd = await world.follow([task_id], FOLLOWERS, gateways)
        await crowd.all(lambda one: one.view.state == "running")
        with world.tally.injecting():
            zombie.signal(signal.SIGSTOP)
            await heir.begin(task_id)
            await crowd.all(lambda one: one.view.attempt == 2)
            zombie.signal(signal.SIGCONT)
            if number % 2:
                async with asyncio.timeout(STOP_SECONDS):
                    while await zombie.write(task_id, 5, every=0.01):
                        pass  # the hook learns it from the answer to what was said before
            assert not await zombie.end(task_id), "a superseded worker ended the task"
            await heir.write(task_id, 100)
            await crowd.caught_up(heir)
        await heir.end(task_id)
        await crowd.ended()
    await world.check()
