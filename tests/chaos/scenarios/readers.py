"""Readers that come late, vanish and return."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bridge.entries import Entry
from bridge.events import UNKNOWN_TASK_END
from bridge.settings import Settings
from bridge.store.connect import async_client, keys_for
from bridge.store.log import Store
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.invariants import Ending
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.waiting import eventually_async

CLIENTS = 2000
ACTS_AT_ONCE = 50
TASKS = 20


async def entries_of(world: World, task_id: str) -> list[Entry]:
    """The task's log."""
    settings = Settings(redis_url=world.redis.url)
    client = async_client(settings)
    try:
        return (await Store(client, keys_for(settings, client)).read(task_id)).entries
    finally:
        await client.aclose()


@scenario(12, "late join at every position, and during the end")
async def late_join(world: World) -> None:
    """A reader comes after every single event, some in the moment of the `end`, and afterwards one resumes
    from every position that there was.
    """
    gateways = [await world.gateway(), await world.gateway()]
    worker = await world.worker()
    await worker.begin("job")
    for _ in world.rounds(40, 300):
        crowd = world.crowd(["job"], 1, gateways)
        with world.tally.injecting():
            await asyncio.gather(crowd.join(), worker.write("job", 2))
            await crowd.caught_up(worker)
    during = world.crowd(["job"], 100, gateways)
    with world.tally.injecting(len(during)):
        await asyncio.gather(during.join(), worker.end("job"))
        await during.ended()
    for crowd in world.crowds:
        await crowd.ended()

    entries = await entries_of(world, "job")
    late = world.crowd(["job"], len(entries) + 1, gateways)
    for number, follower in enumerate(late):
        follower.view.apply_all(entries[:number])
        follower.ends.update(entry.position.epoch for entry in entries[:number] if entry.event.kind == "end")
    with world.tally.injecting(len(late)):
        await late.join()
        await late.all(lambda one: one.view.ended and one.done.is_set())
    assert late.followers[-1].statuses == [204], "who has the end is not told so"
    assert {status for one in late.followers[:-1] for status in one.statuses} == {200}, "some were refused"
    await world.check()


@scenario(12, "readers after the task's keys expired")
async def late_after_expiry(world: World) -> None:
    """They are told that the task is unknown, whatever they had, and 204 when they come back all the same."""
    world.settings.update(ended_ttl_seconds=1, unknown_task_wait_seconds=0.3)
    gateway, worker = await world.gateway(), await world.worker()
    for number in world.rounds(2, 10):
        task_id = f"gone-{number}"
        world.endings[task_id] = Ending("failed", "unknown_task", partial=True)
        await worker.begin(task_id)
        await worker.write(task_id, 10)
        await worker.end(task_id)
        entries = await entries_of(world, task_id)
        readers = world.crowd([task_id], len(entries), [gateway])
        for had, reader in enumerate(readers):
            reader.view.apply_all(entries[:had])
        await expired(world, task_id)
        with world.tally.injecting(len(readers)):
            await readers.join()
            await readers.ended()
        for reader in readers:
            assert reader.view.position == UNKNOWN_TASK_END, "it was told another end"
        await readers.join()
        await readers.all(lambda one: one.statuses == [200, 204])
    await world.check()


async def expired(world: World, task_id: str) -> None:
    """Wait until Redis has forgotten the task."""
    with world.redis.client() as client:
        keys: Any = [f"bridge:{{{task_id}}}:task", f"bridge:{{{task_id}}}:log"]
        await eventually_async(lambda: client.exists(*keys) == 0)


@scenario(10, "2,000 clients that vanish and return at random")
async def churn(world: World) -> None:
    """Without a word, in the midst of whatever they were told; while all tasks are written."""
    gateways = [await world.gateway(), await world.gateway()]
    worker = await world.worker()
    tasks = [f"job-{number}" for number in range(TASKS)]
    await asyncio.gather(*(worker.begin(task_id) for task_id in tasks))
    crowd = world.crowd(tasks, CLIENTS // TASKS, gateways)
    await crowd.join()
    writing = asyncio.create_task(keep_writing(worker, tasks))
    try:
        if world.long:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                world.tally.progress = 1 - (end - time.monotonic()) / 60
                await act(world, crowd)
        else:
            for _ in world.rounds(40, 40):
                await act(world, crowd)
    finally:
        writing.cancel()
        await asyncio.wait([writing])
    with world.tally.injecting(0):
        await asyncio.gather(*(one.join() for one in crowd if one.away))
        await asyncio.gather(*(worker.write(task_id, 5) for task_id in tasks))
        await crowd.caught_up(worker)
    await asyncio.gather(*(worker.end(task_id) for task_id in tasks))
    await crowd.ended()
    await world.check()


async def keep_writing(worker: WorkerProcess, tasks: list[str]) -> None:
    """Write to all tasks, some ten events a second each, until cancelled."""
    while True:
        await asyncio.gather(*(worker.write(task_id, 10, every=0.1) for task_id in tasks))


async def act(world: World, crowd: Crowd) -> None:
    """Some vanish for a while, some only lose their connection, and some who were away return."""
    coming = []
    for one in world.random.sample(crowd.followers, ACTS_AT_ONCE):
        world.tally.injected += 1
        if one.away:
            coming.append(one.join())
        elif world.random.random() < 0.5:
            one.leave()
        else:
            one.break_off()
    await asyncio.gather(asyncio.sleep(0), *coming)
