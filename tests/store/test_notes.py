from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
import redis

from bridge.errors import LeaseLost, StoreUnavailable
from bridge.settings import Settings
from bridge.store.notes import Notes
from tests.servers import RedisProcess
from tests.waiting import eventually_async


def settings(url: str, lease_seconds: float = 30.0) -> Settings:
    """The settings of a process that keeps notes there. With a short lease, too, Redis may take its time."""
    patient = f"{url}?socket_timeout=10&socket_connect_timeout=10"
    return Settings(redis_url=patient, lease_seconds=lease_seconds, live_ttl_seconds=100)


async def test_one_holds_it_and_the_next_goes_on(redis_url: str) -> None:
    """While one process has the lease no other gets it; the next one finds what was noted."""
    async with Notes(settings(redis_url)) as one, Notes(settings(redis_url)) as two:
        hold = await one.take("a")
        assert hold is not None
        assert hold.note == b""
        async with hold:
            assert await two.take("a") is None
            assert await two.take("b") is not None
            await hold.write(b"half")
        again = await two.take("a")
        assert again is not None
        assert again.note == b"half"


async def test_a_lease_is_renewed_and_runs_out(redis_url: str) -> None:
    """It lasts as long as its process, whatever its length; of one that is gone it runs out."""
    async with Notes(settings(redis_url, 3)) as one, Notes(settings(redis_url)) as two:
        hold = await one.take("a")
        assert hold is not None
        key = one.keys.note_lease("a")
        with redis.Redis.from_url(redis_url) as client:
            async with hold:
                client.pexpire(key, 2000)
                await eventually_async(lambda: int(client.pttl(key)) > 2000)
                assert await two.take("a") is None
            assert not client.exists(key)
            gone = await one.take("a")
            assert gone is not None
            assert 0 < int(client.pttl(key)) <= 3000
            client.pexpire(key, 1)
        await eventually_async(lambda: two.take("a"))


async def test_who_was_overtaken_can_note_nothing(redis_url: str, redis_client: redis.Redis) -> None:
    """A process that comes back after its lease was another's is told so, and writes over nothing."""
    async with Notes(settings(redis_url)) as one, Notes(settings(redis_url)) as two:
        frozen = await one.take("a")
        assert frozen is not None
        redis_client.delete(one.keys.note_lease("a"))
        other = await two.take("a")
        assert other is not None
        await other.write(b"newer")
        frozen.check()
        with pytest.raises(LeaseLost):
            await frozen.write(b"older")
        with pytest.raises(LeaseLost):
            frozen.check()
        async with frozen:
            pass
        assert await one.read("a") == b"newer"
        assert await one.take("a") is None


async def test_who_was_overtaken_stays_so(redis_url: str) -> None:
    """Also where the other has given the lease back since: what that one noted isn't written over."""
    async with Notes(settings(redis_url, 0.5)) as one, Notes(settings(redis_url)) as two:
        frozen = await one.take("a")
        assert frozen is not None
        other = await eventually_async(lambda: two.take("a"))
        assert other is not None
        async with other:
            await other.write(b"complete")
        with pytest.raises(LeaseLost):
            await frozen.write(b"half")
        again = await two.take("a")
        assert again is not None
        assert again.note == b"complete"


async def test_who_was_frozen_asks_before_it_goes_on(redis_url: str) -> None:
    """A lease that may have run out is confirmed, and kept where nobody has taken it."""
    async with Notes(settings(redis_url, 0.5)) as one, Notes(settings(redis_url)) as two:
        frozen = await one.take("a")
        assert frozen is not None
        await frozen.confirm()
        key = one.keys.note_lease("a")
        with redis.Redis.from_url(redis_url) as client:
            await eventually_async(lambda: not client.exists(key))

            async def kept() -> bool:
                await frozen.confirm()
                return bool(client.pexpire(key, 60_000))  # this test may be frozen, too

            await eventually_async(kept)
            assert await two.take("a") is None
            client.pexpire(key, 1)
        other = await eventually_async(lambda: two.take("a"))
        assert other is not None
        async with other:
            pass

        async def told() -> bool:
            with suppress(LeaseLost):
                await frozen.confirm()
                return False
            return True

        await eventually_async(told)


async def test_who_was_overtaken_learns_it_by_itself(redis_url: str, redis_client: redis.Redis) -> None:
    """The next renewal tells, also when nothing is noted."""
    async with Notes(settings(redis_url, 0.5)) as one:
        hold = await one.take("a")
        assert hold is not None
        async with hold:
            redis_client.set(one.keys.note_lease("a"), "somebody", px=60_000)
            await eventually_async(lambda: hold.lost)
        assert redis_client.get(one.keys.note_lease("a")) == b"somebody"


async def test_notes_end(redis_url: str, redis_client: redis.Redis) -> None:
    """Each has the time to live of a task, and so has one that needs no lease."""
    async with Notes(settings(redis_url)) as notes:
        hold = await notes.take("a")
        assert hold is not None
        await hold.write(b"x")
        await notes.write("b", b"y")
        assert await notes.read("b") == b"y"
        assert await notes.read("c") == b""
        for key in notes.keys.note("a"), notes.keys.note("b"), notes.keys.note_holder("a"):
            assert 90_000 < int(redis_client.pttl(key)) <= 100_000


async def test_without_redis() -> None:
    """It says so; who holds a lease goes on holding it, and gets it again where it was forgotten."""
    with RedisProcess() as server:
        async with Notes(settings(server.url, 0.5)) as notes:
            hold = await notes.take("a")
            assert hold is not None
            async with hold:
                server.stop()
                with pytest.raises(StoreUnavailable):
                    await notes.read("a")
                hold.check()
                await hold.confirm()
                server.start()
                with server.client() as client:
                    await eventually_async(
                        lambda: asyncio.to_thread(client.exists, notes.keys.note_lease("a"))
                    )
                hold.check()
                await hold.write(b"still")
            assert await notes.read("a") == b"still"
