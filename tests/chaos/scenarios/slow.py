"""Readers that are slow, and readers that read nothing at all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bridge.events import Chunk, Event
from tests.chaos.kit.gateways import GatewayProcess
from tests.chaos.kit.scenario import scenario
from tests.chaos.kit.script import stamps
from tests.chaos.kit.world import World
from tests.waiting import eventually_async

OTHERS = 198
STUCK = 50
BYTES_PER_SECOND = 1024
PAUSE_SECONDS = 1 / 25
PHASE_SECONDS = 30
STALL_SECONDS = 15
MEMORY_BYTES = 32 * 1024 * 1024
"""So much the gateway may grow by while two readers lag behind. The task itself is counted in it."""


class Slowly:
    """Makes a follower read at a steady, low rate; 0: nothing at all."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._transport: asyncio.Transport | None = None
        self.heard = 0

    def __call__(self, transport: asyncio.Transport, size: int) -> None:
        """A follower's connection was made, or has read something."""
        self._transport = transport
        self.heard += size
        if not transport.is_closing() and (size or not self._rate):
            transport.pause_reading()
            if self._rate:
                asyncio.get_running_loop().call_later(size / self._rate, self._resume)

    def hurry(self) -> None:
        """From now on as fast as it can."""
        self._rate = 1 << 40
        self._resume()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


class Stopwatch:
    """How long texts were on their way, from the worker's hook to a follower."""

    def __init__(self) -> None:
        self.delays: list[int] = []

    def __call__(self, event: Event) -> None:
        """A follower got an event."""
        if isinstance(event, Chunk):
            now = time.monotonic_ns()
            self.delays += [now - at for at in stamps(event.text)]

    def p99(self) -> float:
        """In milliseconds, of those since the last call."""
        delays, self.delays = sorted(self.delays), []
        return delays[len(delays) * 99 // 100] / 1e6


@scenario(8, "a reader of 1 KB/s and one that reads nothing, among 200", short=False)
async def slow_readers(world: World) -> None:
    """The others don't notice; memory is bounded; the slow one ends complete; the stuck one is closed, with
    nothing left of it even in the kernel, and can resume.
    """
    gateway = await world.gateway(stall_timeout_seconds=STALL_SECONDS)
    worker = await world.worker()
    await worker.begin("job")
    others = await world.follow(["job"], OTHERS, [gateway])
    watch = Stopwatch()
    for one in others:
        one.on_event = watch

    async def phase() -> float:
        for _ in range(PHASE_SECONDS):
            await worker.write("job", 25, every=PAUSE_SECONDS, size=100, stamped=True)
            world.tally.progress += 0.5 / PHASE_SECONDS
        return watch.p99()

    before = await phase()
    memory = (await gateway.census())["rss"]
    slow, stuck = (
        world.crowd(["job"], 1, [gateway], receive_buffer=4096),
        world.crowd(["job"], 1, [gateway], receive_buffer=4096, returns=False),
    )
    pace = slow.followers[0].slowly = Slowly(BYTES_PER_SECOND)
    stuck.followers[0].slowly = Slowly(0)
    world.tally.injected += 2
    await slow.join()
    await stuck.join()
    during = await phase()
    memory = (await gateway.census())["rss"] - memory

    # The stuck one's end of the connection is still open, ours is not.
    await eventually_async(lambda: connections(gateway) == OTHERS + 1, timeout=2 * STALL_SECONDS)
    assert slow.followers[0].connections == 1, "who reads slowly was thrown out"
    world.tally.notes += [
        f"p99 of the others {before:.1f} ms before, {during:.1f} ms with them ({during / before:.2f} times)",
        f"memory of the gateway grew by {memory / 1e6:.1f} MB; the slow one got {pace.heard:,} bytes",
    ]
    await worker.end("job")
    with world.tally.injecting(0):
        pace.hurry()
        stuck.leave()
        stuck.followers[0].slowly = None
        await eventually_async(lambda: stuck.followers[0].away)
        await stuck.join()
        for crowd in world.crowds:
            await crowd.ended()
    await world.check()
    assert during <= 2 * before, "the others were held up"
    assert memory <= MEMORY_BYTES, "a reader that lags behind costs memory"


@scenario(8, "readers that stop reading just before the end")
async def stuck_at_the_end(world: World) -> None:
    """What is left for them waits in the kernel, where nobody counts it; that, too, is not kept for ever."""
    gateway = await world.gateway(stall_timeout_seconds=1)
    worker = await world.worker()
    await worker.begin("job")
    for number in world.rounds(1, 5):
        crowd = world.crowd(["job"], STUCK, [gateway], receive_buffer=4096, returns=False)
        for one in crowd:
            one.slowly = Slowly(0)
        await worker.write("job", 20 * (number + 1), size=100)
        with world.tally.injecting(len(crowd)):
            await crowd.join()
            await eventually_async(lambda: connections(gateway) == STUCK)
            if number == world.size(1, 5) - 1:
                await worker.end("job")
            await eventually_async(lambda: connections(gateway) == 0, timeout=30)
        crowd.leave()
    for crowd in world.crowds:
        for one in crowd:
            one.slowly = None
        await crowd.all(lambda one: one.away)
        await crowd.join()
    for crowd in world.crowds:
        await crowd.ended()
    await world.check()


def connections(gateway: GatewayProcess) -> int:
    """How many the kernel still keeps on the gateway's side, closed by the process or not."""
    closed = {"06", "07", "0A"}  # TIME_WAIT, CLOSE, LISTEN
    port, count = f":{gateway.port:04X}", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        count += local.endswith(port) and state not in closed
    return count
