"""Workers that die, and workers that only seemed to."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.record import Record
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.waiting import eventually_async

LEASE_SECONDS: Final = 2
FOLLOWERS: Final = 10


async def midstream(world: World, task_id: str) -> tuple[WorkerProcess, Crowd, asyncio.Task[bool]]:
    """A worker of its own in the midst of a task, its readers, and what it still writes."""
    if not world.gateways:
        world.settings["lease_seconds"] = LEASE_SECONDS
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
        assert one.view.error is not None
        assert (one.view.state, one.view.error["code"]) == ("failed", "worker_lost")
        assert one.view.text
        assert record.view.text.startswith(one.view.text)
    assert len({one.view.text for one in crowd}) == 1
    await crowd.join()
    await crowd.all(lambda one: one.statuses[-1] == 204)


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
    for number in world.rounds(1, 20):
        task_id = f"job-{number}"
        victim, crowd, writing = await midstream(world, task_id)
        with world.tally.injecting():
            await victim.kill()
            await ignored(writing)
            await lost(crowd, victim.record(task_id))
        heir = await world.worker()
        await heir.begin(task_id)
        await heir.write(task_id, 100)
        await running_again(world, task_id)
        await crowd.join()
        await crowd.caught_up(heir)
        assert all(one.resets == ["retry"] and one.view.attempt == 2 for one in crowd)
        await heir.end(task_id)
        await crowd.ended()
    await world.check()


@scenario(7, "worker killed, retried at once")
async def worker_replaced(world: World) -> None:
    """Whoever reads sees the reset and the second attempt, without an end in between."""
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
        assert all(one.resets == ["retry"] and one.view.attempt == 2 for one in crowd)
        await heir.end(task_id)
        await crowd.ended()
    await world.check()


@scenario(7, "worker frozen, superseded, thawed")
async def worker_superseded(world: World) -> None:
    """The zombie is told to stop, and nothing that it says is seen."""
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
            assert not await zombie.end(task_id)
        await heir.write(task_id, 100)
        await crowd.caught_up(heir)
        await heir.end(task_id)
        await crowd.ended()
        assert all(one.resets == ["retry"] for one in crowd)
    await world.check()


@scenario(7, "worker frozen for longer than its lease, thawed")
async def worker_returns(world: World) -> None:
    """It was declared lost, comes back, and finishes; those who come back have the whole text."""
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
        assert all(one.resets == ["worker_returned"] for one in crowd)
        await worker.end(task_id)
        await crowd.ended()
        await late.ended()
    await world.check()
