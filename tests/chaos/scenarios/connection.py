"""The worker's connection to Redis is cut, at every script and at any byte."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import product
from typing import Final

from bridge.settings import Settings
from bridge.store.keys import Keys
from bridge.store.scripts import SCRIPTS
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.proxy import Deed, Proxy, Way
from tests.waiting import eventually_async

SIDE_BY_SIDE: Final = 4
"""So many tasks are written at once, so that a pipeline holds scripts of several."""
TYPICAL_BYTES: Final[dict[Way, int]] = {"up": 8000, "down": 2000}
"""About what passes each way for so many tasks."""
SCRIPTS_OF_A_WORKER: Final = ("create", "open", "append", "renew", "close", "restore")
TOLD_TO_STOP: Final = "the hook told healthy work to stop"
DEEDS: Final[tuple[Deed, ...]] = ("cut_before", "cut_within", "cut_after")


@scenario(4, "worker's connection cut, at every script")
async def cut_at_scripts(world: World) -> None:
    """Before the call arrives, within it, and after it, so that only the answer is lost."""
    relay, worker = await cuttable(world)
    world.resets = {"log_lost"}
    cases = list(product(SCRIPTS_OF_A_WORKER, DEEDS))
    for number in world.rounds(len(cases), 20 * len(cases)):
        script, deed = cases[number % len(cases)]
        lost = script == "restore"
        with world.tally.injecting():
            trap = relay.trap(SCRIPTS[script].sha.encode(), deed)
            crowd = await write_some(world, worker, f"{script}-{deed}-{number}", lose_logs=lost)
            if script == "renew":
                # A worker that has nothing to say still renews its lease, here very often.
                await eventually_async(partial(getattr, trap, "sprung"))
            await end(worker, crowd)
        assert trap.sprung, f"no call of {script} came by"
        wanted = {"log_lost"} if lost else set()
        assert all(set(one.resets) == wanted for one in crowd), (
            f"not all were reset for {wanted or 'nothing'}"
        )
    assert "taken over" not in worker.said(), "the worker was fenced by itself"
    await world.check()


@scenario(4, "worker's connection cut, after any byte")
async def cut_at_bytes(world: World) -> None:
    """Of what it sends, or of what it is answered."""
    relay, worker = await cuttable(world)
    for number in world.rounds(25, 1000):
        due: list[Way] = [way for way in TYPICAL_BYTES if relay.cut_happened(way)]
        with world.tally.injecting(len(due)):
            for way in due:
                relay.cut_at(world.random.randrange(TYPICAL_BYTES[way]), way=way)
            crowd = await write_some(world, worker, f"job-{number}")
            await end(worker, crowd)
    assert "taken over" not in worker.said(), "the worker was fenced by itself"
    await world.check()


async def cuttable(world: World) -> tuple[Proxy, WorkerProcess]:
    """A worker behind a relay, and a gateway that is well."""
    world.settings["cancel_check_seconds"] = 0.05
    await world.gateway()
    relay = world.proxy(world.redis.url)
    return relay, await world.worker(relay.url)


async def write_some(world: World, worker: WorkerProcess, name: str, *, lose_logs: bool = False) -> Crowd:
    """A few tasks side by side, from their announcement to some text; who reads them."""
    tasks = [f"{name}-{place}" for place in range(SIDE_BY_SIDE)]
    crowd = await world.follow(tasks, 1, world.gateways)

    async def write(task_id: str) -> None:
        assert await worker.create(task_id), "the announcement was not confirmed"
        await worker.begin(task_id)
        assert await worker.write(task_id, 4), TOLD_TO_STOP
        # Otherwise all of it might wait for the `close`, and no `append` be sent at all.
        await crowd.caught_up(worker)
        if lose_logs:
            with world.redis.client() as client:
                client.delete(Keys.from_settings(Settings(), database=0).log(task_id))
        assert await worker.write(task_id, 4), TOLD_TO_STOP

    await asyncio.gather(*map(write, tasks))
    return crowd


async def end(worker: WorkerProcess, crowd: Crowd) -> None:
    """End these tasks, and wait until everyone has that."""
    tasks = {one.view.task_id for one in crowd}
    confirmed = await asyncio.gather(*(worker.end(task_id) for task_id in tasks))
    assert all(confirmed), "an end was not confirmed"
    await crowd.ended()
