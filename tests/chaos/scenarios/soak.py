"""No fault at all, but much of everything, counted."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.world import World

TASKS: Final = 1000
EVENTS: Final = 1_000_000
WORKERS: Final = 2
ROUNDS: Final = 50
SECONDS: Final = 600.0


@scenario(13, "none: a million events over 1,000 tasks", short=False)
async def soak(world: World) -> None:
    """Every task has a reader from its beginning, and in the end a second one that reads it all at once."""
    world.settings["lease_seconds"] = 30
    gateways = [await world.gateway(), await world.gateway()]
    workers = [await world.worker() for _ in range(WORKERS)]
    shares = [[f"job-{number}" for number in range(place, TASKS, WORKERS)] for place in range(WORKERS)]
    tasks = [task_id for share in shares for task_id in share]
    for worker, share in zip(workers, shares, strict=True):
        for task_id in share:
            await worker.begin(task_id)
    crowd = await world.follow(tasks, 1, gateways)
    for _ in world.rounds(ROUNDS, ROUNDS):
        for worker, share in zip(workers, shares, strict=True):
            await asyncio.gather(*(worker.write(task_id, EVENTS // TASKS // ROUNDS) for task_id in share))
        await crowd.all(
            lambda one: any(one.view.message == str(worker.written[one.view.task_id]) for worker in workers),
            seconds=SECONDS,
        )
    for worker, share in zip(workers, shares, strict=True):
        assert all(await asyncio.gather(*map(worker.end, share))), "an end was not confirmed"
    await crowd.ended(seconds=SECONDS)
    await (await world.follow(tasks, 1, gateways)).ended(seconds=SECONDS)
    await world.check()
