"""A master dies with writes that its replica never got, and the Sentinel promotes the replica."""

from __future__ import annotations

import asyncio

from tests.chaos.kit.invariants import Ending
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.sentinels import Replicated


@scenario(6, "failover by Sentinel, acknowledged writes lost", needs=("redis-server", "redis-sentinel"))
async def failover(world: World) -> None:
    """What was written last is acknowledged, read, and lost. Most tasks go on; the worker of one dies, too,
    and the next one would write other text under the same ids; one has ended, and nobody holds its end.
    """
    with Replicated() as servers:
        world.settings |= {"redis_url": servers.url, "lease_seconds": 3}
        gateways = [await world.gateway(), await world.gateway()]
        worker = await world.worker()
        for number in world.rounds(1, 6):
            if number:
                await asyncio.to_thread(servers.revive)
            await one_failover(world, servers, worker, number)
            for gateway in gateways:
                await gateway.wait_ready()
        world.redis = servers.master
        await world.check()


async def one_failover(world: World, servers: Replicated, worker: WorkerProcess, number: int) -> None:
    """The master dies once; afterwards all tasks of this round have ended."""
    doomed, heir = await world.worker(), await world.worker()
    jobs = [f"job-{number}-{place}" for place in range(world.size(4, 20))]
    retried, forgotten = f"retried-{number}", f"forgotten-{number}"
    for task_id in (*jobs, forgotten):
        await worker.begin(task_id)
    await doomed.begin(retried)
    crowd = await world.follow(jobs, 3, world.gateways)
    witnesses = await world.follow([retried], 10, world.gateways)
    await asyncio.gather(
        *(worker.write(task_id, 50) for task_id in (*jobs, forgotten)), doomed.write(retried, 50)
    )
    await crowd.caught_up(worker)
    await witnesses.caught_up(doomed)

    await asyncio.to_thread(servers.detach)
    await asyncio.gather(*(worker.write(task_id, 30) for task_id in jobs), doomed.write(retried, 30))
    await crowd.caught_up(worker)
    await witnesses.caught_up(doomed)
    assert await worker.end(forgotten), "its end was acknowledged"
    assert servers.lost() > 0

    writing = [worker.writing(task_id, 100, every=0.03) for task_id in jobs]
    await doomed.kill()
    with world.tally.injecting():
        await asyncio.to_thread(servers.fail_over)
        await heir.begin(retried)
        await heir.write(retried, 100)
        await asyncio.gather(*writing)
        await crowd.caught_up(worker)
        await witnesses.caught_up(heir)
    assert all(one.resets for one in (*crowd, *witnesses)), "nothing was lost"
    for task_id in jobs:
        await worker.end(task_id)
    await heir.end(retried)
    await crowd.ended()
    await witnesses.ended()
    world.endings[forgotten] = Ending("failed", "worker_lost", partial=True)
    await (await world.follow([forgotten], 2, world.gateways)).ended()


@scenario(6, "master frozen, replaced, awake again", short=False, needs=("redis-server", "redis-sentinel"))
async def master_replaced(world: World) -> None:
    """It wakes as a master, with all its connections, and would acknowledge writes that nobody will ever see,
    the end of a task among them.
    """
    with Replicated() as servers:
        world.settings |= {"redis_url": servers.url, "lease_seconds": 30}
        gateways = [await world.gateway(), await world.gateway()]
        worker = await world.worker()
        for number in world.rounds(1, 4):
            tasks = [f"job-{number}-{place}" for place in range(10)]
            for task_id in tasks:
                await worker.begin(task_id)
            crowd = await world.follow(tasks, 3, gateways)
            await asyncio.gather(*(worker.write(task_id, 50) for task_id in tasks))
            await crowd.caught_up(worker)
            with world.tally.injecting():
                servers.master.pause()
                await asyncio.to_thread(servers.await_failover)
                servers.replica.resume()
                await asyncio.gather(*(worker.write(task_id, 50) for task_id in tasks))
                assert all(await asyncio.gather(*(worker.end(task_id) for task_id in tasks)))
                await crowd.ended()
            await asyncio.to_thread(servers.await_replication)
            # Those who had the end from the old master have the right text; who looks again gets it anew.
            await crowd.join()
            await crowd.all(lambda one: bool(one.resets) and one.view.ended)
        world.redis = servers.master
        await world.check()
