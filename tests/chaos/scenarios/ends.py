"""Several ends of one task at the same instant."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import Any, Final

import httpx

from bridge.events import START
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.gateways import GatewayProcess
from tests.chaos.kit.invariants import Ending
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.waiting import eventually_async

LEASE_SECONDS: Final = 1.0
TOGETHER: Final = 50


@scenario(11, "cancel, finish and expire at the same instant")
async def ends_collide(world: World) -> None:
    """A frozen worker wakes just when its leases end, with the ends of its tasks to send, while somebody
    cancels them all. Every other task is still queued when it is frozen. One end each, and everyone agrees.
    """
    world.settings |= {"lease_seconds": LEASE_SECONDS, "audit_seconds": 0.05, "linger_seconds": 1}
    world.resets = {"worker_returned"}
    gateways = [await world.gateway(), await world.gateway()]
    worker = await world.worker()
    outcomes: Counter[str] = Counter()
    for number in world.rounds(2, 20):
        tasks = [f"job-{number}-{place}" for place in range(TOGETHER)]
        queued, running = tasks[::2], tasks[1::2]
        crowd = await world.follow(tasks, 2, gateways)
        await asyncio.gather(*map(worker.create, queued))
        for task_id in running:
            await worker.begin(task_id)
            await worker.write(task_id, 3)
        await crowd.all(lambda one: one.view.position != START)
        with world.tally.injecting(TOGETHER):
            await collide(world, worker, queued, running, gateways)
            await crowd.ended()
            async with httpx.AsyncClient(timeout=30) as client:
                for task_id in tasks:
                    outcomes[await agreed(world, crowd, task_id, client)] += 1
    if world.long:
        assert any("worker_lost" in how for how in outcomes), "no lease ended before its task"
    world.tally.notes.append(", ".join(f"{count:,} {how}" for how, count in sorted(outcomes.items())))
    await world.check()


async def collide(
    world: World,
    worker: WorkerProcess,
    queued: list[str],
    running: list[str],
    gateways: list[GatewayProcess],
) -> None:
    """Freeze the worker, give it its orders, and let it go while the leases end and the cancels come."""
    worker.signal(signal.SIGSTOP)

    async def end(task_id: str) -> None:
        if task_id in queued:
            await worker.begin(task_id)
            await worker.write(task_id, 3)
        await worker.end(task_id)

    orders = [asyncio.create_task(end(task_id)) for task_id in (*queued, *running)]
    await asyncio.sleep(LEASE_SECONDS * world.random.uniform(0.6, 1.05))
    tasks = [*queued, *running]
    world.random.shuffle(tasks)
    async with httpx.AsyncClient(timeout=30) as client:
        cancels = [
            asyncio.create_task(client.post(f"{gateways[place % 2].url}/tasks/{task_id}/cancel"))
            for place, task_id in enumerate(tasks)
        ]
        await asyncio.sleep(world.random.uniform(0, 0.05))
        worker.signal(signal.SIGCONT)
        for answer in await asyncio.gather(*cancels):
            assert answer.is_success, answer.text
    await asyncio.gather(*orders)


async def agreed(world: World, crowd: Crowd, task_id: str, client: httpx.AsyncClient) -> str:
    """Wait until all readers and all gateways tell the same end of a task; how it is called. Who was told
    `worker_lost` before the worker came back looks once more, as a user does.
    """
    readers = [one for one in crowd if one.view.task_id == task_id]

    async def all_agree() -> dict[str, Any]:
        paths = [f"{gateway.url}/tasks/{task_id}/status" for gateway in world.gateways]
        polled: list[dict[str, Any]] = [(await client.get(path)).json() for path in paths]
        assert all(view == polled[0] for view in polled), "the gateways tell different ends"
        assert polled[0]["ended_at"], "it has not ended"
        behind = [one for one in readers if one.view.as_dict() != polled[0]]
        for one in behind:
            was_lost = (one.view.error or {}).get("code") == "worker_lost"
            assert was_lost or not one.view.ended, f"{one.view.state}, not {polled[0]['state']}"
            if one.done.is_set():
                await one.join()
        assert not behind, f"{len(behind)} readers have another view than the gateways"
        return polled[0]

    view = await eventually_async(all_agree, timeout=30)
    code = (view["error"] or {}).get("code")
    world.endings[task_id] = Ending(view["state"], code, partial=view["state"] != "succeeded")
    back = any("worker_returned" in one.resets for one in readers)
    return f"{code or view['state']}{' after worker_lost was taken back' if back else ''}"
