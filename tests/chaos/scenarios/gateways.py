"""Gateways that die and come back."""

from __future__ import annotations

from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.world import World


@scenario(1, "gateway killed (SIGKILL), 500 followers")
async def gateway_killed(world: World) -> None:
    """They resume at another by `Last-Event-ID`, in the midst of a stream."""
    gateways = [await world.gateway(), await world.gateway()]
    worker = await world.worker()
    await worker.begin("job")
    crowd = await world.follow(["job"], 500, gateways)
    for number in world.rounds(2, 20):
        victim = gateways[number % 2]
        writing = worker.writing("job", 150, every=0.002)
        await crowd.all(lambda one: one.view.position.seq > 10)
        with world.tally.injecting():
            await victim.kill()
            await writing
            await crowd.caught_up(worker)
        await victim.start()
    await worker.end("job")
    await crowd.ended()
    await world.check()
