"""The link against a real server, and against one that is told when to be silent."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
import uvloop

from bridge.errors import LinkDown
from bridge.settings import Settings
from bridge.store.connect import async_client
from bridge.store.embedded import HOST
from bridge.store.link import Link, Message
from tests.servers import RedisProcess
from tests.waiting import eventually_async


class Ear:
    """A listener that notes all it is told, and raises what it is asked to."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.heard_of: list[Message] = []
        self.then: Callable[[str], None] = lambda what: None

    def up(self) -> None:
        self.changes.append("up")
        self.then("up")

    def down(self) -> None:
        self.changes.append("down")
        self.then("down")

    def messages(self, came: Sequence[Message]) -> None:
        self.heard_of += came
        for _, data in came:
            self.then(data.decode(errors="replace"))

    async def heard(self, *messages: tuple[str, bytes]) -> None:
        """Wait until exactly these messages have come."""
        await eventually_async(lambda: self.heard_of == list(messages))

    async def told(self, *changes: str) -> None:
        """Wait until exactly these changes were told."""
        await eventually_async(lambda: self.changes == list(changes))


@asynccontextmanager
async def linked(url: str, *wanted: str, **settings: Any) -> AsyncIterator[tuple[Link, Ear]]:
    """A running link that wants these channels. A task that it leaves behind fails the test."""
    tasks = asyncio.all_tasks()
    client = async_client(Settings(redis_url=url, **settings))
    ear = Ear()
    link = Link(client, ear)
    for channel in wanted:
        with pytest.raises(LinkDown):
            await link.subscribe(channel)
    running = asyncio.create_task(link.run())
    try:
        yield link, ear
    finally:
        assert not running.done(), "the link ended by itself"
        running.cancel()
        await asyncio.wait([running])
        await client.aclose()
        assert not link.is_up
        await eventually_async(lambda: asyncio.all_tasks() <= tasks)


def connections(client: redis.Redis) -> list[str]:
    """The ids of all connections of ours that the server sees."""
    listed: Any = client.client_list()
    return [one["id"] for one in listed if one["name"] == "bridge"]


def subscribers(client: redis.Redis, *channels: str) -> list[int]:
    """How many connections are subscribed to each."""
    answer: Any = client.pubsub_numsub(*channels)
    return [count for _, count in answer]


def kill_pubsub(client: redis.Redis) -> int:
    """Cut all pub/sub connections off, and say how many there were."""
    killed: int = client.client_kill_filter(_type="pubsub")
    return killed


@pytest.fixture
def server(redis_binary: Any) -> Iterator[RedisProcess]:
    """A server that the test may stop."""
    with RedisProcess(binary=redis_binary) as process:
        yield process


# --- in health ------------------------------------------------------------------------------------------


async def test_what_is_published_after_subscribe_returned_arrives(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """`subscribe` waits for the acknowledgement, so no message can fall between."""
    async with linked(redis_url) as (link, ear):
        await ear.told("up")
        for number in range(100):
            await link.subscribe(f"channel-{number}")
            assert redis_client.publish(f"channel-{number}", b"now\n\xff") == 1
        await ear.heard(*[(f"channel-{number}", b"now\n\xff") for number in range(100)])


async def test_messages_come_in_the_order_of_redis(redis_url: str, redis_client: redis.Redis) -> None:
    """Also across channels."""
    async with linked(redis_url, "a", "b") as (_, ear):
        await ear.told("up")
        pipeline = redis_client.pipeline(transaction=False)
        sent = [("ab"[number % 3 % 2], b"%d" % number) for number in range(5000)]
        for channel, data in sent:
            pipeline.publish(channel, data)
        pipeline.execute()
        await ear.heard(*sent)


async def test_who_unsubscribes_hears_no_more(redis_url: str, redis_client: redis.Redis) -> None:
    """The other channels go on."""
    async with linked(redis_url, "a", "b") as (link, ear):
        await ear.told("up")
        link.unsubscribe("a")
        await eventually_async(lambda: subscribers(redis_client, "a", "b") == [0, 1])
        redis_client.publish("a", b"1")
        redis_client.publish("b", b"2")
        await ear.heard(("b", b"2"))


async def test_acknowledgements_are_counted(redis_url: str, redis_client: redis.Redis) -> None:
    """Subscribe, unsubscribe, subscribe in one breath: the second one waits for its own acknowledgement."""
    async with linked(redis_url) as (link, ear):
        await ear.told("up")
        for number in range(50):
            channel = f"channel-{number}"
            first = asyncio.create_task(link.subscribe(channel))
            await asyncio.sleep(0)
            link.unsubscribe(channel)
            await asyncio.gather(first, link.subscribe(channel), link.subscribe(channel))
            assert redis_client.publish(channel, b"x") == 1
        await ear.heard(*[(f"channel-{number}", b"x") for number in range(50)])


async def test_subscribing_twice_is_harmless(redis_url: str, redis_client: redis.Redis) -> None:
    """A channel that is subscribed already is acknowledged again, and each message comes once."""
    async with linked(redis_url, "a") as (link, ear):
        await ear.told("up")
        await link.subscribe("a")
        redis_client.publish("a", b"1")
        await ear.heard(("a", b"1"))


async def test_a_thousand_subscribes_are_a_few_commands(redis_url: str, redis_client: redis.Redis) -> None:
    """A crowd that joins a thousand tasks at once costs Redis few commands."""

    def commands() -> int:
        stats: Any = redis_client.info("commandstats")
        return int(stats.get("cmdstat_subscribe", {"calls": 0})["calls"])

    channels = [f"channel-{number}" for number in range(1000)]
    async with linked(redis_url) as (link, ear):
        await ear.told("up")
        before = commands()
        await asyncio.gather(*[link.subscribe(channel) for channel in channels])
        assert commands() - before <= 3
        assert subscribers(redis_client, *channels) == [1] * 1000


async def test_a_subscriber_that_gives_up_disturbs_no_other(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Two wait for one acknowledgement; the one that is cancelled doesn't take it away."""
    async with linked(redis_url) as (link, ear):
        await ear.told("up")
        one, other = (asyncio.create_task(link.subscribe("a")) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await other
        assert redis_client.publish("a", b"1") == 1
        await ear.heard(("a", b"1"))


@pytest.mark.parametrize("what", ["up", "down", "2"])
async def test_a_listener_that_raises_is_logged_and_disturbs_nothing(
    what: str, redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The link stays, the other messages come, and the log has the traceback."""

    def fail(said: str) -> None:
        if said == what:
            raise RuntimeError("a bug in the listener")

    async with linked(redis_url, "a") as (link, ear):
        ear.then = fail
        await ear.told("up")
        if what == "down":
            link.drop()
            await ear.told("up", "down", "up")
        changes = list(ear.changes)
        for data in (b"1", b"2", b"3"):
            redis_client.publish("a", data)
        await ear.heard(("a", b"1"), ("a", b"2"), ("a", b"3"))
        assert ear.changes == changes
        assert link.is_up
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "a bug in the listener"
    ]


def test_it_runs_on_the_gateways_own_event_loop(redis_url: str, redis_client: redis.Redis) -> None:
    """uvloop's, whose transports and timers are other ones."""

    async def main() -> None:
        async with linked(redis_url, "a") as (link, ear):
            await ear.told("up")
            await link.subscribe("b")
            redis_client.publish("b", b"1")
            await ear.heard(("b", b"1"))
            assert kill_pubsub(redis_client) == 1
            await ear.told("up", "down", "up")
            redis_client.publish("a", b"2")
            await ear.heard(("b", b"1"), ("a", b"2"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# --- in trouble -----------------------------------------------------------------------------------------


async def test_a_killed_link_comes_back_with_all_its_channels(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """`down`, then `up` when the last channel is acknowledged, also one wished for while it was down."""
    channels = [f"channel-{number}" for number in range(1200)]
    async with linked(redis_url, *channels) as (link, ear):
        await ear.told("up")
        assert kill_pubsub(redis_client) == 1
        await eventually_async(lambda: not link.is_up)
        with pytest.raises(LinkDown):
            await link.subscribe("one more")
        link.unsubscribe(channels[0])
        await ear.told("up", "down", "up")
        assert subscribers(redis_client, *channels[1:], "one more") == [1] * 1200
        assert subscribers(redis_client, channels[0]) == [0]
        redis_client.publish("one more", b"1")
        await ear.heard(("one more", b"1"))


async def test_a_subscribe_that_is_under_way_fails_with_the_link(server: RedisProcess) -> None:
    """Who waits for an acknowledgement of a link that drops is told so, and is subscribed at `up`."""
    async with linked(server.url) as (link, ear):
        await ear.told("up")
        server.pause()
        waiting = asyncio.create_task(link.subscribe("a"))
        await asyncio.sleep(0)
        link.drop()
        with pytest.raises(LinkDown):
            await waiting
        server.resume()
        await ear.told("up", "down", "up")
        with server.client() as client:
            assert client.publish("a", b"1") == 1
        await ear.heard(("a", b"1"))


async def test_dropping_makes_a_new_connection(redis_url: str, redis_client: redis.Redis) -> None:
    """The old one is closed."""

    async with linked(redis_url, "a") as (link, ear):
        await ear.told("up")
        before = connections(redis_client)
        link.drop()
        await ear.told("up", "down", "up")
        await eventually_async(lambda: len(connections(redis_client)) == 1)
        assert connections(redis_client) != before
        redis_client.publish("a", b"1")
        await ear.heard(("a", b"1"))


async def test_it_waits_for_a_server_that_is_not_there(
    server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts without one and survives a restart; each outage is one line in the log."""
    caplog.set_level(logging.DEBUG, "bridge.link")
    server.stop()
    async with linked(server.url, "a") as (link, ear):
        await eventually_async(lambda: attempts(caplog) >= 2)
        assert ear.changes == []
        server.start()
        await ear.told("up")
        server.stop()
        await ear.told("up", "down")
        with pytest.raises(LinkDown):
            await link.subscribe("b")
        count = attempts(caplog)
        await eventually_async(lambda: attempts(caplog) >= count + 2)
        server.start()
        await ear.told("up", "down", "up")
        with server.client() as client:
            client.publish("b", b"1")
            client.publish("a", b"2")
        await ear.heard(("b", b"1"), ("a", b"2"))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2


def attempts(caplog: pytest.LogCaptureFixture) -> int:
    """How often the link said that it is down."""
    return len([record for record in caplog.records if "is down" in record.message])


async def test_a_hung_server_does_not_keep_it_for_ever(
    server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """Connecting to a server that accepts and says nothing ends after the time that an answer may take."""
    server.pause()
    async with linked(server.url, "a", lease_seconds=0.5) as (_, ear):
        await eventually_async(lambda: attempts(caplog) == 1)
        server.resume()
        await ear.told("up")


# --- a server that does as it is told ---------------------------------------------------------------


class Puppet:
    """A server that answers every command but acknowledges subscriptions only when the test says so."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str]] = []
        self.connections = self.open = 0
        self.silent = True
        self._writer: asyncio.StreamWriter | None = None
        self._acknowledged = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        self._writer, self._acknowledged = writer, len(self.orders)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while command := parser.gets():
                    verb, *channels = [word.decode() for word in command]
                    if verb in ("SUBSCRIBE", "UNSUBSCRIBE"):
                        self.orders += [(verb.lower(), channel) for channel in channels]
                    else:
                        writer.write(b"+OK\r\n")
                if not self.silent:
                    self.acknowledge()
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            self.open -= 1

    def acknowledge(self) -> None:
        """Answer all orders of this connection that were not answered yet."""
        assert self._writer is not None
        orders, self._acknowledged = self.orders[self._acknowledged :], len(self.orders)
        for verb, channel in orders:
            reply = f"*3\r\n${len(verb)}\r\n{verb}\r\n${len(channel)}\r\n{channel}\r\n:1\r\n"
            self._writer.write(reply.encode())

    def refuse(self) -> None:
        """Answer an order by an error."""
        assert self._writer is not None
        self._writer.write(b"-NOPERM No.\r\n")


@pytest.fixture
async def puppet() -> AsyncIterator[tuple[str, Puppet]]:
    """The puppet and its URL."""
    made = Puppet()
    listening = await asyncio.start_server(made.serve, HOST, 0, family=socket.AF_INET)
    yield f"redis://{HOST}:{listening.sockets[0].getsockname()[1]}/0", made
    listening.close()


async def test_it_is_up_only_when_all_is_acknowledged(puppet: tuple[str, Puppet]) -> None:
    """What is wished for meanwhile is waited for as well."""
    url, server = puppet
    async with linked(url, "a") as (link, ear):
        await eventually_async(lambda: server.orders == [("subscribe", "a")])
        with pytest.raises(LinkDown):
            await link.subscribe("b")
        server.acknowledge()
        await eventually_async(lambda: ("subscribe", "b") in server.orders)
        assert ear.changes == []
        server.acknowledge()
        await ear.told("up")


async def test_an_order_that_is_refused_means_a_new_link(
    puppet: tuple[str, Puppet], caplog: pytest.LogCaptureFixture
) -> None:
    """Of what was ordered something would never come; the reason stands in the log."""
    url, server = puppet
    server.silent = False
    async with linked(url, "a") as (_, ear):
        await ear.told("up")
        server.refuse()
        await ear.told("up", "down", "up")
    assert [record.message for record in caplog.records] == ["the link to Redis is down: NOPERM No."]


async def test_a_wish_taken_back_and_made_again_while_it_comes_up_is_kept(
    puppet: tuple[str, Puppet],
) -> None:
    """The channel was unsubscribed in between, so it is subscribed once more before the link is up."""
    url, server = puppet
    async with linked(url, "a", "b") as (link, ear):
        await eventually_async(lambda: len(server.orders) == 2)
        link.unsubscribe("a")
        with pytest.raises(LinkDown):
            await link.subscribe("a")
        server.silent = False
        server.acknowledge()
        await ear.told("up")
        assert [verb for verb, channel in server.orders if channel == "a"] == [
            "subscribe",
            "unsubscribe",
            "subscribe",
        ]


async def test_a_server_that_never_acknowledges_is_given_up(puppet: tuple[str, Puppet]) -> None:
    """The connection looks alive, and no probe watches it yet, so the link itself makes a new one."""
    url, server = puppet
    async with linked(url, "a", lease_seconds=0.5) as (_, ear):
        await eventually_async(lambda: server.connections >= 2)
        assert ear.changes == []
        server.silent = False
        await ear.told("up")


async def test_cancelling_while_up_leaves_nothing(redis_url: str, redis_client: redis.Redis) -> None:
    """The connection is closed."""
    async with linked(redis_url, "a") as (_, ear):
        await ear.told("up")
        assert len(connections(redis_client)) == 1
    await eventually_async(lambda: not connections(redis_client))


async def test_cancelling_while_it_comes_up_leaves_nothing(puppet: tuple[str, Puppet]) -> None:
    """The connection is closed, though a `subscribe` was never answered."""
    url, server = puppet
    async with linked(url, "a") as (_, ear):
        await eventually_async(lambda: server.orders)
        assert server.open == 1
    await eventually_async(lambda: server.open == 0)
    assert ear.changes == []


async def test_cancelling_while_it_connects_leaves_nothing(server: RedisProcess) -> None:
    """The connection is closed, though the server has not yet said a word."""
    server.pause()
    async with linked(server.url, "a"):
        await eventually_async(lambda: connected_to(server.port))
    await eventually_async(lambda: not connected_to(server.port))
    server.resume()


def connected_to(port: int) -> bool:
    """Whether the kernel knows an established connection from here to a port on loopback."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(int(row[2].rpartition(":")[2], 16) == port and row[3] == "01" for row in rows)
