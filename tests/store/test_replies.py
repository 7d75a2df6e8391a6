"""How replies are taken from a connection, against a server that says what the test wants."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from redis.exceptions import InvalidResponse, ResponseError

from bridge.errors import LinkDown
from bridge.store import replies
from bridge.store.embedded import HOST
from bridge.store.replies import read_replies
from tests.store.test_link import linked
from tests.waiting import eventually_async

THREE = b"*2\r\n$1\r\na\r\n:1\r\n$-1\r\n*1\r\n$3\r\nb\r\n\r\n"
PARSED = [[b"a", 1], None, [b"b\r\n"]]


@dataclass
class Wire:
    """Both ends: what redis-py's connection is for us, and the server's reader and writer."""

    connection: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    taken: list[Any] = field(default_factory=list)


class Connection:
    """As much of redis-py's as is looked at."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Wire, asyncio.Task[None]]]:
    """A connection whose replies are being read."""
    ends: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.put((reader, writer))

    async with await asyncio.start_server(serve, HOST, 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        wire = Wire(Connection(writer), *await ends.get())
        reading = asyncio.create_task(read_replies(wire.connection, wire.taken.extend))
        try:
            yield wire, reading
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, LinkDown, OSError, redis.RedisError):
                await reading
            writer.close()
            wire.writer.close()


async def test_replies_may_be_cut_anywhere() -> None:
    """A piece may hold some replies, and any part of one."""
    async with wired() as (wire, _):
        for byte in THREE * 2:
            wire.writer.write(bytes([byte]))
            await wire.writer.drain()
        await eventually_async(lambda: wire.taken == PARSED * 2)


async def test_an_error_is_handed_over_as_one() -> None:
    """What it means, whoever takes it decides."""
    async with wired() as (wire, reading):
        wire.writer.write(b"-NOPERM no\r\n+OK\r\n")
        await eventually_async(lambda: len(wire.taken) == 2)
        assert isinstance(wire.taken[0], ResponseError)
        assert wire.taken[1] == b"OK"
        assert not reading.done()


@pytest.mark.parametrize(
    ("sent", "error"), [(b"!nonsense\r\n", InvalidResponse), (b"", LinkDown), (b"$5\r\nab", LinkDown)]
)
async def test_a_connection_that_is_no_good_ends_it(sent: bytes, error: type[Exception]) -> None:
    """One that is closed, also in the midst of a reply, and one that doesn't speak Redis."""
    async with wired() as (wire, reading):
        wire.writer.write(sent)
        wire.writer.close()
        with pytest.raises(error):
            await reading


async def test_a_connection_that_is_reset_ends_it() -> None:
    """Nothing is said before that; and redis-py, which may wait to write, hears of it as well."""
    async with wired() as (wire, reading):
        writer: asyncio.StreamWriter = wire.connection._writer
        writer.write(b"x" * 50_000_000)
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0)
        end = wire.writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.writer.transport.abort()
        with pytest.raises(ConnectionError):
            await reading
        with pytest.raises(ConnectionError):
            await draining


async def test_what_the_taker_raises_ends_it() -> None:
    """And nothing that comes behind is handed over."""
    async with wired() as (wire, reading):

        def refuse(reply: Any) -> None:
            wire.taken.extend(reply)
            raise LinkDown("enough")

        reading.cancel()
        await asyncio.wait([reading])
        again = asyncio.create_task(read_replies(wire.connection, refuse))
        wire.writer.write(THREE)
        with pytest.raises(LinkDown, match="enough"):
            await again
        wire.writer.write(THREE)
        await wire.writer.drain()
        assert wire.taken == PARSED


async def test_a_connection_that_was_lost_before_is_noticed() -> None:
    """Nobody would tell of it any more."""
    async with wired() as (wire, reading):
        wire.connection._writer.close()
        with pytest.raises(LinkDown):
            await reading
        with pytest.raises(LinkDown):
            await read_replies(wire.connection, wire.taken.extend)


async def test_redis_py_goes_on_writing() -> None:
    """It waits while the other side takes nothing, and goes on when it does."""
    async with wired() as (wire, _):
        writer: asyncio.StreamWriter = wire.connection._writer
        writer.write(b"x" * 50_000_000)
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not draining.done()
        await wire.reader.readexactly(50_000_000)
        await draining


async def test_redis_py_reads_where_it_hides_the_transport(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it costs more, and is the same: also when the connection is killed."""
    monkeypatch.setattr(replies, "_transport", lambda connection: None)
    async with linked(redis_url, "a") as (_, ear):
        await ear.told("up")
        redis_client.publish("a", b"1")
        await ear.heard(("a", b"1"))
        redis_client.client_kill_filter(_type="pubsub")
        await ear.told("up", "down", "up")
        redis_client.publish("a", b"2")
        await ear.heard(("a", b"1"), ("a", b"2"))
