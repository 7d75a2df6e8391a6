"""A master dies with writes that its replica never got, and the Sentinel promotes the replica."""

from __future__ import annotations

import asyncio

from tests.chaos.kit.invariants import Ending
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.sentinels import Replicated
from tests.waiting import eventually_async


@scenario(6, "failover by Sentinel, acknowledged writes lost", needs=("redis-server", "redis-sentinel"))
async def failover(world: World) -> None:
    """What was written last is acknowledged, read, and lost. Most tasks go on. The worker of two dies, too:
    the next one would write other text of the first under the same ids, and nobody holds the second. One has
    ended, and nobody holds its end.
    """
    with Replicated() as servers:
        world.settings |= {"redis_url": servers.url, "lease_seconds": 3}
        world.resets = {"log_lost", "other_log", "retry"}
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
    retried, orphan, forgotten = f"retried-{number}", f"orphan-{number}", f"forgotten-{number}"
    for task_id in (*jobs, forgotten):
        await worker.begin(task_id)
    for task_id in (retried, orphan):
        await doomed.begin(task_id)
    crowd = await world.follow(jobs, 3, world.gateways)
    witnesses = await world.follow([retried], 10, world.gateways)
    # These leave with ids that would be given again: by the next worker, or by those who end a task.
    away, bereft, absent = [
        await world.follow([one], 5, world.gateways) for one in (retried, orphan, forgotten)
    ]
    written = [worker.write(task_id, 50) for task_id in (*jobs, forgotten)]
    await asyncio.gather(*written, doomed.write(retried, 50), doomed.write(orphan, 50))
    await absent.caught_up(worker)
    await bereft.caught_up(doomed)
    await eventually_async(lambda: servers.lost() <= 0)

    await asyncio.to_thread(servers.detach)
    # A single entry of the orphan: `expire` would give its very id to the end.
    await asyncio.gather(
        *(worker.write(task_id, 30) for task_id in jobs), doomed.write(retried, 30), doomed.write(orphan, 1)
    )
    await crowd.caught_up(worker)
    for readers in (witnesses, away, bereft):
        await readers.caught_up(doomed)
    for readers in (away, bereft, absent):
        readers.leave()
    assert await worker.end(forgotten), "its end was not acknowledged"
    assert servers.lost() > 0, "the replica has everything"

    writing = [worker.writing(task_id, 100, every=0.03) for task_id in jobs]
    await doomed.kill()
    with world.tally.injecting():
        await asyncio.to_thread(servers.fail_over)
        await heir.begin(retried)
        await heir.write(retried, 100)
        await asyncio.gather(*writing)
        await crowd.caught_up(worker)
        await away.join()
        for readers in (witnesses, away):
            await readers.caught_up(heir)
    for task_id in jobs:
        await worker.end(task_id)
    await heir.end(retried)
    for task_id in (orphan, forgotten):
        world.endings[task_id] = Ending("failed", "worker_lost", partial=True)
    late = await world.follow([orphan, forgotten], 2, world.gateways)
    for readers in (bereft, absent):
        await readers.join()
    for readers in (crowd, witnesses, away, bereft, absent, late):
        await readers.ended()
    for readers in (crowd, witnesses, away, bereft, absent):
        assert all(one.resets for one in readers), "some were not told that text was lost"
    kept = worker.record(forgotten).view.text
    assert all(one.view.text == kept for one in absent), "text that the replica had is gone"


@scenario(6, "master frozen, replaced, awake again", short=False, needs=("redis-server", "redis-sentinel"))
async def master_replaced(world: World) -> None:
    """It wakes as a master, with all its connections, and would acknowledge writes that nobody will ever see,
    the end of a task among them.
    """
    with Replicated() as servers:
        world.settings |= {"redis_url": servers.url, "lease_seconds": 30}
        world.resets = {"log_lost", "other_log"}
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
                confirmed = await asyncio.gather(*(worker.end(task_id) for task_id in tasks))
                assert all(confirmed), "an end was not acknowledged"
                await crowd.ended()
            await asyncio.to_thread(servers.await_replication)
            # Those who had the end from the old master have the right text; who looks again gets it anew.
            await crowd.join()
            await crowd.all(lambda one: bool(one.resets) and one.view.ended)
        world.redis = servers.master
        await world.check()
