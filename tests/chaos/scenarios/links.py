"""The pub/sub link of a gateway: cut, silent, overrun, and single messages lost."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.gateways import GatewayProcess
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World
from tests.proxy import Proxy
from tests.waiting import eventually_async

FOLLOWERS = 50
NO_AUDIT: dict[str, Any] = {"audit_seconds": 600, "probe_seconds": 600, "lease_seconds": 1800}
"""Of a gateway that makes one round when it starts, and then none in the time of a scenario."""
SLOW_PROBE_SECONDS = 20
"""So that Redis closes a link that takes nothing before the gateway itself gives it up."""


async def relayed(world: World, **settings: Any) -> tuple[Proxy, GatewayProcess, WorkerProcess, Crowd]:
    """A gateway whose connections to Redis can be broken, one beside it that is well, and a task."""
    relay = world.proxy(world.redis.url)
    gateway, other = await world.gateway(relay.url, **settings), await world.gateway()
    worker = await world.worker()
    await worker.begin("job")
    crowd = await world.follow(["job"], FOLLOWERS, [gateway, other])
    return relay, gateway, worker, crowd


async def finish(world: World, worker: WorkerProcess, crowd: Crowd) -> None:
    """Let the task end, and look at everything."""
    await worker.end("job")
    await crowd.ended()
    await world.check()


def links(world: World) -> set[str]:
    """The ids of the connections that listen."""
    with world.redis.client() as client:
        found: Any = client.client_list(_type="pubsub")
        return {one["id"] for one in found}


@scenario(2, "link cut by Redis (CLIENT KILL TYPE pubsub)")
async def link_killed(world: World) -> None:
    """In the midst of a stream; the gateways make new ones and find what they missed."""
    _, _, worker, crowd = await relayed(world)
    for _ in world.rounds(3, 100):
        writing = worker.writing("job", 100, every=0.002)
        with world.tally.injecting(), world.redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await writing
            await crowd.caught_up(worker)
    await finish(world, worker, crowd)


@scenario(2, "link cut by the network")
async def link_cut(world: World) -> None:
    """A reset of the connection that neither side asked for."""
    relay, _, worker, crowd = await relayed(world)
    for _ in world.rounds(3, 100):
        writing = worker.writing("job", 100, every=0.002)
        with world.tally.injecting():
            assert relay.cut(links=True) == 1, "the gateway has several links, or none"
            await writing
            await crowd.caught_up(worker)
        await world.gateways[0].wait_ready()
    await finish(world, worker, crowd)


@scenario(2, "link half-open (bytes vanish, no close)")
async def link_half_open(world: World) -> None:
    """The probe notices it; until there is a new link the gateway isn't ready, and polls read the log."""
    relay, gateway, worker, crowd = await relayed(world)
    for _ in world.rounds(2, 30):
        with world.tally.injecting():
            relay.silence()
            relay.refuse()  # also the next link, so that there is time to look
            await worker.write("job", 20)
            await gateway.wait_not_ready()
            await worker.write("job", 20)
            await eventually_async(partial(polled, gateway, worker))
            assert not await gateway.is_ready(), "it was ready without a link"
            relay.refuse(False)
            await gateway.wait_ready()
            await crowd.caught_up(worker)
    await finish(world, worker, crowd)


async def polled(gateway: GatewayProcess, worker: WorkerProcess) -> bool:
    """Whether a poll is answered with all that was written. The worker sends it a moment after it reports."""
    answer = await gateway.get("/tasks/job/status")
    assert answer.status_code == 200, f"a poll was answered {answer.status_code}"
    assert answer.json()["message"] == str(worker.written["job"]), "a poll is behind the log"
    return True


@scenario(2, "single pub/sub message lost")
async def message_lost(world: World) -> None:
    """Followed by others, by nothing, or being the `end`: the hole, or the audit, tells."""
    relay, gateway, worker, _ = await relayed(world)
    for number in world.rounds(4, 60):
        task_id = f"lost-{number}"
        await worker.begin(task_id)
        crowd = await world.follow([task_id], 5, [gateway])
        await worker.write(task_id, 10)
        await crowd.caught_up(worker)
        for count in (1, 50, 0):
            with world.tally.injecting():
                trap = relay.trap(f"{{{task_id}}}:live".encode(), "swallow")
                if count:
                    await worker.write(task_id, count)
                    await crowd.caught_up(worker)
                else:
                    await worker.end(task_id)
                    await crowd.ended()
                assert trap.sprung == 1, "nothing was lost"
    await finish(world, worker, world.crowds[0])


@scenario(2, "single pub/sub message lost, no audit")
async def message_lost_between_audits(world: World) -> None:
    """The next message betrays it: the hole is filled from the log, long before a round would find it."""
    relay, gateway, worker, _ = await relayed(world, **NO_AUDIT)
    for number in world.rounds(3, 60):
        task_id = f"hole-{number}"
        await worker.begin(task_id)
        crowd = await world.follow([task_id], 5, [gateway])
        await worker.write(task_id, 10)
        await crowd.caught_up(worker)
        with world.tally.injecting():
            trap = relay.trap(f"{{{task_id}}}:live".encode(), "swallow")
            await worker.write(task_id, 1)
            await eventually_async(partial(getattr, trap, "sprung"))
            await worker.write(task_id, 1)
            await crowd.caught_up(worker)
        await worker.end(task_id)
        await crowd.ended()
    await finish(world, worker, world.crowds[0])


@scenario(3, "subscriber's output buffer overrun")
async def buffer_overrun(world: World) -> None:
    """Redis closes the link of a gateway that doesn't take its messages, because its tiny buffer is full."""
    with world.redis.client() as client:
        client.config_set("client-output-buffer-limit", "pubsub 32kb 16kb 1")
    relay = world.proxy(world.redis.url)
    gateway = await world.gateway(relay.url, probe_seconds=SLOW_PROBE_SECONDS)
    worker = await world.worker()
    for number in world.rounds(1, 10):
        task_id = f"big-{number}"
        await worker.begin(task_id)
        crowd = await world.follow([task_id], 3, [gateway])
        await worker.write(task_id, 10)
        await crowd.caught_up(worker)
        before = links(world)
        with world.tally.injecting():
            relay.stall(links=True)
            # More than the buffers of all sockets on the way hold.
            await worker.write(task_id, 400, size=4000)
            await eventually_async(partial(lost_a_link, world, before))
            relay.flow()
            await crowd.caught_up(worker)
        await gateway.wait_ready()
        await worker.end(task_id)
        await crowd.ended()
    await world.check()


def lost_a_link(world: World, before: set[str]) -> bool:
    """Whether Redis has closed one of those links."""
    return not before <= links(world)
