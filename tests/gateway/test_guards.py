"""What things cost, counted instead of timed: encodes, Redis commands, asyncio tasks.

Redis itself counts its commands: MONITOR names the connection that each came from.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import redis
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bridge import codec
from bridge import entries as entries_module
from bridge.codec import dumps
from bridge.entries import Entry
from bridge.events import Chunk, Event, Position
from bridge.gateway import stream, wire
from bridge.gateway.channel import Channel
from bridge.gateway.hub import Hub
from bridge.gateway.server import quick
from bridge.gateway.server.protocol import GatewayProtocol
from bridge.gateway.wire import native
from bridge.settings import Settings
from bridge.store.replies import _Replies
from bridge.store.scripts import wire as as_sent
from tests.gateway.readers import Reader
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import LIMIT, Writer
from tests.waiting import DEADLINE_SECONDS, eventually

STATUS = "/tasks/job-1/status"
QUIET: dict[str, Any] = {
    "audit_seconds": 1000.0, "probe_seconds": 1000.0, "lease_seconds": 3000.0,
    "heartbeat_seconds": 1000.0, "linger_seconds": 1000.0,
}  # fmt: skip
"""A gateway that audits and probes only when told to, and does nothing because time has passed."""
FIRST_READ = ["SUBSCRIBE", "MULTI", "TIME", "HMGET", "XRANGE", "EXISTS", "EXEC"]
"""Subscribe, then the task's hash and log in one transaction, that both belong together."""


class Commands:
    """What the gateways of a server have sent to it: all commands but those of the test's own clients."""

    def __init__(self, url: str, *own: redis.Redis) -> None:
        self._client = redis.Redis.from_url(url, protocol=2)
        self._listening: redis.Redis = redis.Redis.from_url(url, protocol=2)
        self._monitor: Any = self._listening.monitor()  # type: ignore[no-untyped-call] # redis-py has no type
        self._monitor.__enter__()
        self._own = {client.client_info()["addr"] for client in (self._client, *own)}
        self._marks = count(1)
        self.since_last()

    def since_last(self) -> list[str]:
        """Their names, since the last call. What scripts do inside of Redis isn't counted."""
        mark = f"mark-{next(self._marks)}"
        self._client.echo(mark)
        names = []
        while mark not in (one := self._monitor.next_command())["command"]:
            address = f"{one['client_address']}:{one['client_port']}"
            if one["client_type"] != "lua" and address not in self._own:
                names.append(one["command"].split(" ")[0].upper())
        return names

    def until(self, name: str) -> Counter[str]:
        """How many there were of each since the last call, when one of that name has come."""
        seen: Counter[str] = Counter()

        def came() -> bool:
            seen.update(self.since_last())
            return name in seen

        eventually(came)
        return seen

    def close(self) -> None:
        self._monitor.__exit__()
        self._listening.close()
        self._client.close()


@contextmanager
def counted(writer: Writer, **settings: Any) -> Iterator[tuple[Running, Commands]]:
    """A gateway that audits and probes only when told to, and the count of what it asks of Redis."""
    url = "redis://{host}:{port}/{db}".format(**writer.client.connection_pool.connection_kwargs)
    commands = Commands(url, writer.client)
    try:
        with running(url, **{**QUIET, **settings}) as gateway:
            commands.since_last()
            yield gateway, commands
    finally:
        commands.close()


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one, the number of entries, whenever a stream's bytes are made."""
    calls: list[int] = []

    def counting(entries: Sequence[Entry]) -> bytes:
        calls.append(len(entries))
        return native(entries)

    monkeypatch.setattr(stream, "native", counting)
    return calls


def unread(gateway: Running) -> socket.socket:
    """A stream that has begun, of which nothing is read any more."""
    sock = socket.create_connection(gateway.address, timeout=DEADLINE_SECONDS)
    sock.sendall(b"GET /tasks/job-1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    begun = b""
    while b"event: state" not in begun:
        begun += sock.recv(65536)
    return sock


def came(gateway: Running, position: Position) -> None:
    """Wait until everybody who follows the task was given that event."""

    def everybody_has_it() -> bool:
        channel = gateway.hub.channel("job-1")
        return channel is not None and all(each.position == position for each in channel.followers)

    eventually(lambda: gateway.inside(everybody_has_it))


def allocated() -> int:
    """How many blocks of memory Python has given out, without what only waits to be collected."""
    gc.collect()
    return sys.getallocatedblocks()


def fifty(gateway: Running) -> list[Viewer]:
    """Fifty streams of one task."""
    viewers = [watch(gateway) for _ in range(50)]
    for viewer in viewers:
        viewer.until(lambda v: len(v.frames) > 0)
    return viewers


def close(viewers: list[Viewer]) -> None:
    """Leave them all."""
    for viewer in viewers:
        viewer.close()


def test_a_batch_is_encoded_once_for_all(redis_url: str, writer: Writer, encodes: list[int]) -> None:
    """One encode per batch, whether one follows or fifty: the cost of a viewer is a write to its socket."""
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        viewers = fifty(gateway)
        encodes.clear()
        for number in range(1, 11):
            writer.text("a", "b")
            for viewer in viewers:
                viewer.until(lambda v: len(v.view.text) == 2 * number)  # noqa: B023 (called at once)
        writer.end()
        for viewer in viewers:
            viewer.to_end()
        assert encodes == [2] * 10 + [1]
        close(viewers)


def test_a_batch_wakes_no_task(redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """To streams that wait a batch is written at once, one write each, and none of them runs for it."""
    sent: list[bytes] = []
    real = wire.send_body

    async def counting(send: Send, body: bytes, *, more: bool = True) -> None:
        sent.append(body)
        await real(send, body, more=more)

    monkeypatch.setattr(stream, "send_body", counting)
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        viewers = fifty(gateway)
        before = len(sent)
        chunks = [len(viewer.sends) for viewer in viewers]
        for number in range(1, 11):
            writer.text("a", "b")
            for viewer in viewers:
                viewer.until(lambda v: len(v.view.text) == 2 * number)  # noqa: B023 (called at once)
        assert len(sent) == before
        assert [len(viewer.sends) for viewer in viewers] == [count + 10 for count in chunks]
        close(viewers)


def test_passing_a_chunk_on_reads_nothing_of_it(
    redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of a live event is not decoded until somebody asks for the view."""
    decoded: list[str] = []
    real = codec.decode

    def counting(kind: str, data: bytes) -> Event:
        decoded.append(kind)
        return real(kind, data)

    monkeypatch.setattr(entries_module, "decode", counting)
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        viewers = fifty(gateway)
        writer.text("a", "b", "c")
        for viewer in viewers:
            viewer.until(lambda v: v.view.text == "abc")
        assert decoded == []
        assert gateway.get(STATUS).json()["text"] == "abc"
        assert decoded == ["chunk"] * 3
        close(viewers)


@pytest.mark.parametrize("followers", [1, 50])
def test_a_token_leaves_a_few_objects_however_many_follow(
    redis_url: str, writer: Writer, followers: int
) -> None:
    """What is kept of it is in the channel, once: its data, its number, and what holds them together."""
    tokens = 200
    writer.open()
    with running(redis_url, **QUIET, stall_timeout_seconds=1000.0) as gateway:
        silent = [unread(gateway) for _ in range(followers)]
        came(gateway, writer.text("the first").position)
        before = gateway.inside(allocated)
        positions = [writer.text("x").position for _ in range(tokens)]
        came(gateway, positions.pop())
        positions.clear()
        assert gateway.inside(allocated) - before < 4 * tokens
        for each in silent:
            each.close()


def test_messages_that_come_together_are_one_step_of_the_event_loop(
    redis_url: str, redis_client: redis.Redis, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred that Redis sends at once are handled at once: no task wakes up in between, and who watches
    gets one write.
    """
    pieces: list[int] = []
    real = _Replies.data_received

    def counting(replies: _Replies, data: bytes) -> None:
        pieces.append(data.count(b"message"))
        real(replies, data)

    monkeypatch.setattr(_Replies, "data_received", counting)
    writer.open()
    together: Any = redis_client.pipeline(transaction=True)
    for batch in range(1, 101):
        call = writer.calls.append(
            "job-1", token=writer.token, batch=batch, length=b"{}", limit=LIMIT, events=as_sent([Chunk("x")])
        )
        together.execute_command(*call.by_source())
    with running(redis_url, **QUIET) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        pieces.clear()
        sends = len(viewer.sends)
        together.execute()
        viewer.text_is("x" * 100)
        assert sum(pieces) == 100
        assert len(pieces) <= 2
        assert len(viewer.sends) - sends <= len(pieces)


def test_the_kernel_is_not_asked_about_streams_that_have_all(
    redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a client takes what it gets matters where something was sent: asking costs a token's worth."""
    done: list[str] = []
    unsent, tick = GatewayProtocol.unsent, stream.StreamFollower.tick

    def asking(connection: GatewayProtocol) -> int:
        done.append("asked")
        return unsent(connection)

    def ticking(follower: stream.StreamFollower, now: float) -> float:
        done.append("tick")
        return tick(follower, now)

    monkeypatch.setattr(GatewayProtocol, "unsent", asking)
    monkeypatch.setattr(stream.StreamFollower, "tick", ticking)
    writer.open()
    quick: dict[str, Any] = {"linger_seconds": 0.2, "heartbeat_seconds": 1000.0, "stall_timeout_seconds": 4.0}
    with running(redis_url, **quick) as gateway:
        viewers = fifty(gateway)
        writer.text("x")
        eventually(lambda: done.count("asked") >= 50)
        eventually(lambda: done[-200:] == ["tick"] * 200)
        close(viewers)


def test_a_second_looks_at_none_of_ten_thousand_tasks_that_have_all() -> None:
    """Neither at their channels, which count their memory themselves, nor at followers with nothing due."""

    class Patient(Reader):
        """A follower with nothing due for a while."""

        def tick(self, now: float) -> float:
            return now + 50

    class Unseen(dict[str, Channel]):
        """The channels, which may be counted, but not looked at."""

        def values(self) -> Any:
            return self.keys()

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("somebody looks at all channels")

    hub = Hub(Settings(redis_url="redis://127.0.0.1:1/0", linger_seconds=30))
    for number in range(10_000):
        hub.enter(str(number), Patient())
    hub._channels = Unseen(hub._channels)
    looks = 0
    for now in range(100):
        due = hub._followers.take(float(now))
        hub._followers.tick(due, float(now))
        looks += len(due)
        hub._let_go(float(now))
    assert looks == 10_000 * 2


def test_a_crowd_that_joins_late_is_encoded_once(redis_url: str, writer: Writer, encodes: list[int]) -> None:
    """Fifty who come to a task that stands still share one replay: the pieces are kept for a while."""
    writer.open()
    for _ in range(100):
        writer.text("x")
    with running(redis_url, **QUIET) as gateway:
        close(fifty(gateway))
        assert len(encodes) == 1


def test_a_live_event_costs_no_redis(writer: Writer) -> None:
    """None: the message carries the event. With one read per event and viewer Redis would be the limit."""
    writer.open()
    with counted(writer) as (gateway, commands):
        viewers = fifty(gateway)
        commands.since_last()
        for _ in range(100):
            writer.text("x")
        for viewer in viewers:
            viewer.text_is("x" * 100)
        assert commands.since_last() == []
        close(viewers)


def test_a_poll_of_a_hot_task_costs_no_redis(writer: Writer) -> None:
    """None, however old clients ask, also between changes: that is what lingering is for."""
    writer.open()
    with counted(writer) as (gateway, commands):
        position = gateway.get(STATUS).json()["position"]
        commands.since_last()
        for number in range(25):
            writer.text("x")
            text = "x" * (number + 1)
            eventually(lambda: gateway.get(STATUS).json()["text"] == text)  # noqa: B023 (called at once)
            assert gateway.get(f"{STATUS}?after={position}").json()["text"] == text
            assert gateway.get(f"{STATUS}?wait=0.001").status_code == 200
            tag = gateway.get("/status/job-1").headers["etag"]
            assert gateway.get(STATUS, headers={"If-None-Match": tag}).status_code == 304
        assert commands.since_last() == []


def test_an_unchanged_view_is_encoded_once(
    redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once per change, and not per poll: most polls of a large answer find nothing new."""
    calls: list[object] = []

    def counting(value: object) -> bytes:
        calls.append(value)
        return dumps(value)

    monkeypatch.setattr("bridge.gateway.content.dumps", counting)
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        for _ in range(20):
            gateway.get(STATUS)
        assert len(calls) == 1


def test_a_hot_poll_begins_nothing(redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request of ASGI, and so no task; nothing is encoded but a head, once per change and status."""
    begun: list[object] = []
    made: list[object] = []

    def counting(made: list[object], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            made.append(arguments)
            return real(*arguments)

        return call

    monkeypatch.setattr(
        GatewayProtocol, "_start_asgi_task", counting(begun, GatewayProtocol._start_asgi_task)
    )
    for name in ("whole", "unchanged"):
        monkeypatch.setattr(quick, name, counting(made, getattr(quick, name)))
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        tag = gateway.get(STATUS).headers["etag"]
        assert len(begun) == 1
        for _ in range(10):
            assert gateway.get(STATUS).status_code == 200
            assert gateway.get(STATUS, headers={"If-None-Match": tag}).status_code == 304
        assert (len(begun), len(made)) == (1, 2)
        writer.text("x")
        eventually(lambda: gateway.get(STATUS).json()["text"] == "x")
        assert (len(begun), len(made)) == (1, 3)


def test_a_follower_that_joins_a_live_task_costs_no_redis(writer: Writer) -> None:
    """None: the replay comes from memory. A viral task must not become Redis's trouble."""
    writer.open()
    position = writer.text("x").position
    with counted(writer) as (gateway, commands), watch(gateway) as first:
        first.text_is("x")
        commands.since_last()
        viewers = fifty(gateway)
        resumed = watch(gateway, after=str(position)).head()
        assert commands.since_last() == []
        close([*viewers, resumed])


def test_the_first_join_costs_one_subscription_and_one_read(writer: Writer) -> None:
    """Seven commands in two round trips, also when fifty come at the same moment."""
    writer.open()
    with counted(writer) as (gateway, commands):
        viewers = fifty(gateway)
        assert commands.since_last() == FIRST_READ
        close(viewers)


def test_the_first_poll_costs_the_same(writer: Writer) -> None:
    """It makes a channel, from which the next ones are served."""
    writer.open()
    with counted(writer) as (gateway, commands):
        gateway.get(STATUS)
        assert commands.since_last() == FIRST_READ


def test_a_task_that_goes_costs_one_command(writer: Writer) -> None:
    """Nothing is said to Redis but that its messages are not wanted any more."""
    writer.open()
    with counted(writer, linger_seconds=0.1) as (gateway, commands):
        gateway.get(STATUS)
        eventually(lambda: gateway.inside(lambda: not gateway.hub._channels))
        assert commands.until("UNSUBSCRIBE") == Counter([*FIRST_READ, "UNSUBSCRIBE"])


def test_a_join_in_parts_reads_only_what_is_new(writer: Writer) -> None:
    """A client ahead of the gateway costs one more read, and that only of what follows."""
    writer.open()
    with counted(writer) as (gateway, commands), watch(gateway) as other:
        other.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        newest = writer.text("unheard").position
        writer.elsewhere = False
        commands.since_last()
        with watch(gateway, after=str(newest)) as ahead:
            ahead.head()
            other.text_is("unheard")
            assert commands.since_last() == FIRST_READ[1:]


def test_a_hole_costs_one_read(writer: Writer) -> None:
    """Many messages behind a hole are healed by one read, not by one each."""
    writer.open()
    with counted(writer) as (gateway, commands), watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        writer.text("lost ")
        writer.elsewhere = False
        commands.since_last()
        writer.text("found")
        viewer.text_is("lost found")
        assert commands.since_last() == FIRST_READ[1:]


def test_an_audit_costs_a_command_a_task(redis_url: str, writer: Writer) -> None:
    """And three a round trip: the clock, whether all logs are there, and the probe. One lookup per task and
    interval, in one round trip for two hundred tasks, is the price of finding a lost last message.
    """
    tasks = 20
    writers = [Writer(redis_url, f"job-{number}").open() for number in range(tasks)]
    with counted(writer) as (gateway, commands):
        for number in range(tasks):
            gateway.get(f"/tasks/job-{number}/status")
        commands.since_last()
        gateway.inside(gateway.hub._audit.soon)
        expected = Counter({"TIME": 1, "HMGET": tasks, "EXISTS": 1, "EVALSHA": 1})
        assert commands.until("EVALSHA") == expected
    for one in writers:
        one.client.close()


def test_an_idle_gateway_asks_for_the_time_and_probes(writer: Writer) -> None:
    """Two commands a round, without any task."""
    with counted(writer) as (gateway, commands):
        for _ in range(3):
            gateway.inside(gateway.hub._audit.soon)
            assert commands.until("EVALSHA") == Counter({"TIME": 1, "EVALSHA": 1})
            gateway.wait_ready()


def test_a_stream_is_one_task_and_no_timer(redis_url: str, writer: Writer) -> None:
    """Its request: the server tells when the client is gone; heartbeats and stalls share the hub's clock."""
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        watch(gateway).until(lambda v: len(v.frames) == 1).close()
        eventually(lambda: gateway.followers() == 0 and gateway.connections() == 0)
        before = gateway.inside(lambda: len(asyncio.all_tasks()))
        viewers = fifty(gateway)
        assert gateway.inside(lambda: len(asyncio.all_tasks())) == before + 50
        close(viewers)
        eventually(lambda: gateway.inside(lambda: len(asyncio.all_tasks())) == before)


def test_what_is_over_leaves_nothing_to_the_garbage_collector(redis_url: str, writer: Writer) -> None:
    """Streams and polls, whoever ends them, refer to nothing that refers to them: their memory is free at
    once, and the collector, which would hold everything up, need not look for it.
    """
    writer.open().text("x")
    with running(redis_url, **QUIET) as gateway:
        gateway.get(STATUS)
        gc.collect()
        gc.disable()
        try:
            viewers = fifty(gateway)
            for path in (STATUS, f"{STATUS}?wait=0.01", "/status/nobody") * 5:
                gateway.get(path)
            close(viewers[:25])
            writer.end()
            for viewer in viewers[25:]:
                viewer.to_end()
            close(viewers)
            eventually(lambda: gateway.followers() == 0 and gateway.connections() == 0)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gateway.inside(gc.collect)
            kinds = (GatewayProtocol, RequestResponseCycle, stream.StreamFollower, asyncio.Task)
            assert [one for one in gc.garbage if isinstance(one, kinds)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_a_redis_connection_does_not_depend_on_the_readers(
    redis_url: str, redis_client: redis.Redis, writer: Writer
) -> None:
    """One link, and one connection for commands as long as they come one after the other."""
    writer.open()
    with running(redis_url, **QUIET) as gateway:
        before = len(redis_client.client_list())
        viewers = fifty(gateway)
        assert len(redis_client.client_list()) <= before + 1
        close(viewers)
