"""A rolling restart behind a balancer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.gateways import GatewayProcess
from tests.chaos.kit.pages import ChromiumPage, NodePage, Page
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.workers import WorkerProcess
from tests.chaos.kit.world import World

FOLLOWERS = 400
DRAIN_SECONDS = 5.0
GRACE_SECONDS = DRAIN_SECONDS + 5
PARTS = 5
"""The drain window in so many parts; each must see some leave, and none more than twice its share."""


@scenario(9, "rolling restart (SIGTERM) under load", short=False, needs=("node", "eventsource", "chromium"))
async def rolling_restart(world: World) -> None:
    """One of two gateways after the other goes away and comes back. No client sees what it doesn't recover
    from by itself, two real EventSources among them; they leave spread over the drain window.
    """
    world.settings["drain_seconds"] = DRAIN_SECONDS
    gateways = [await world.gateway(), await world.gateway()]
    balancer = world.proxy(*(gateway.url for gateway in gateways)).http
    worker = await world.worker()
    await worker.begin("job")
    # They wait as long as they are told to, as EventSource does.
    crowd = await world.follow(["job"], FOLLOWERS, [balancer], haste=1.0)
    async with AsyncExitStack() as stack:
        url = f"{balancer}/tasks/job/events"
        pages: list[Page] = [
            await stack.enter_async_context(NodePage(url)),
            await stack.enter_async_context(ChromiumPage(url, world.folder)),
        ]
        await worker.write("job", 10)
        for page in pages:
            async with asyncio.timeout(30):
                await page.began.wait()
        writing = asyncio.create_task(keep_writing(worker))
        for number in world.rounds(4, 8):
            with world.tally.injecting():
                await restart(gateways[number % 2], crowd)
        writing.cancel()
        await asyncio.wait([writing])
        await worker.write("job", 10)
        await crowd.caught_up(worker)
        await worker.end("job")
        await crowd.ended()
        for page in pages:
            await page.ended()
            check_page(page, worker)
            world.tally.notes.append(f"{page.name} lost its connection {page.reconnects} times, and no event")
    await world.check()


async def keep_writing(worker: WorkerProcess) -> None:
    """Some twenty events a second, until cancelled."""
    while True:
        await worker.write("job", 10, every=0.05)


async def restart(gateway: GatewayProcess, crowd: Crowd) -> None:
    """SIGTERM, the wait for its end, and a new one; done when every follower has a connection again."""
    followers = (await gateway.census())["followers"]
    begun = time.monotonic()
    gateway.terminate()
    assert await gateway.wait() == 0, "the gateway failed"
    took = time.monotonic() - begun
    left = [at - begun for one in crowd for at in one.lost_at if at > begun]
    assert took <= GRACE_SECONDS, f"the gateway took {took:.1f} s to end"
    check_spread(left, followers)
    await gateway.start()
    await crowd.all(lambda one: one.connected)


def check_spread(left: list[float], followers: int) -> None:
    """They left when the drain window asked for it: not all at once."""
    shares = Counter(min(int(at * PARTS / DRAIN_SECONDS), PARTS - 1) for at in left)
    most = 2 * followers / PARTS
    assert all(0 < shares[part] <= most for part in range(PARTS)), f"not spread: {sorted(shares.items())}"


def check_page(page: Page, worker: WorkerProcess) -> None:
    """It has what the worker wrote, once and in order, and heard of the end."""
    wanted = worker.record("job").view
    assert page.texts == {"text": wanted.text, **wanted.fields}, f"{page.name} has another text"
    assert page.in_order, f"{page.name} got events in another order"
    assert not page.of("reset"), f"{page.name} had to begin anew"
    assert len(page.of("end")) == 1, f"{page.name} got {len(page.of('end'))} ends"
    assert page.reconnects, f"{page.name} was never disturbed"
