from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import encode
from bridge.entries import Entry
from bridge.errors import CorruptLog, InvalidEvent, StoreError, StoreUnavailable
from bridge.events import START, UNKNOWN_TASK_END, Chunk, End, Position
from bridge.settings import Settings
from bridge.store.connect import async_client, keys_for
from bridge.store.log import PAGE, POLLER_TOKEN, SCRIPTS_AT_ONCE, Store, parse_message
from bridge.store.scripts import Answer, Call, wire
from tests.servers import RedisProcess
from tests.strategies import as_log, logs
from tests.waiting import eventually, eventually_async

LONG = 2 * PAGE + PAGE // 2
"""Entries of a log that takes three pages."""


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """The asynchronous side of an empty server."""
    settings = Settings(redis_url=redis_url)
    client = async_client(settings)
    yield Store(client, keys_for(settings, client))
    await client.aclose()


async def opened(store: Store, task_id: str = "a", token: str = "t1") -> Position:
    """A running task."""
    return (await store.run(store.calls.open(task_id, token=token, lease_ms=30_000))).position


async def appended(store: Store, batch: int, count: int, token: str = "t1") -> Position:
    """The last position after so many more chunks, each with a text of its own."""
    events = [Chunk(f"{batch}.{n} ") for n in range(count)]
    call = store.calls.append("a", token=token, batch=batch, length=b"{}", limit=10**9, events=wire(events))
    answer = await store.run(call)
    assert answer.verdict == "applied"
    return answer.position


def seqs(entries: list[Entry]) -> list[int]:
    """The places within the epoch."""
    return [entry.position.seq for entry in entries]


async def test_unknown_task(store: Store) -> None:
    """A task that Redis doesn't know has no head and no entries, wherever the reading begins."""
    for after in (START, UNKNOWN_TASK_END, Position(1_763_650_000_000, 17)):
        reading = await store.read("nobody", after)
        assert (reading.head, reading.entries, reading.whole) == (None, [], True)
        assert reading.now > 1_763_650_000_000


async def test_read_from_the_start(store: Store) -> None:
    """Everything comes in order, with a head that tells the newest position, the size, and the lease."""
    answer = await store.run(store.calls.create("a", owner="ann", creation="c1"))
    await opened(store)
    last = await appended(store, 1, 3)
    reading = await store.read("a")
    assert reading.whole
    assert seqs(reading.entries) == [1, 2, 3, 4, 5]
    assert reading.head is not None
    assert reading.head.position == last == Position(answer.position.epoch, 5)
    assert reading.head.bytes == sum(len(entry.data) for entry in reading.entries)
    assert (reading.head.state, reading.head.owner) == ("running", "ann")
    assert 0 < reading.head.lease - reading.now <= 30_000
    call = store.calls.close(
        "a",
        token="t1",
        batch=2,
        length=b"{}",
        limit=10**9,
        state="failed",
        code="c",
        end=encode(End("failed")),
    )
    await store.run(call)
    head = (await store.read("a")).head
    assert head is not None
    assert (head.state, head.lease) == ("failed", 0)


@pytest.mark.parametrize("seq", [0, 1, 2, 3, 4])
async def test_read_after_a_position(store: Store, seq: int) -> None:
    """Only what stands after the position comes."""
    first = await opened(store)
    last = await appended(store, 1, 3)
    reading = await store.read("a", Position(first.epoch, seq))
    assert seqs(reading.entries) == list(range(seq + 1, 5))
    assert not reading.whole
    assert reading.head is not None
    assert reading.head.position == last


@pytest.mark.parametrize(
    "after", [UNKNOWN_TASK_END, Position(1, 1), Position(9_999_999_999_999_999, 9_999_999_999_999_999)]
)
async def test_read_after_a_position_of_another_epoch(store: Store, after: Position) -> None:
    """A position of an older, a newer or no epoch is worth nothing: everything comes."""
    await opened(store)
    reading = await store.read("a", after)
    assert reading.whole
    assert seqs(reading.entries) == [1]


@pytest.mark.parametrize("ahead", [1, 2, 10**15])
async def test_read_after_a_position_ahead_of_the_log(store: Store, ahead: int) -> None:
    """A position that the log hasn't reached is of a log that was lost: everything comes, and says so."""
    last = await opened(store)
    reading = await store.read("a", Position(last.epoch, last.seq + ahead))
    assert reading.whole
    assert seqs(reading.entries) == [1]


@pytest.mark.parametrize("skip", [0, 1, PAGE - 1, PAGE, PAGE + 1, LONG])
async def test_read_of_many_pages(store: Store, skip: int) -> None:
    """A log longer than a page comes without hole or repetition, from every place."""
    first = await opened(store)
    last = await appended(store, 1, LONG - 1)
    reading = await store.read("a", Position(first.epoch, skip))
    assert reading.head is not None
    assert reading.head.position == last
    assert seqs(reading.entries) == list(range(skip + 1, LONG + 1))
    assert not reading.whole


async def test_read_while_the_log_grows(store: Store) -> None:
    """What is appended between two pages is either part of the reading or of the next one."""
    await opened(store)
    await appended(store, 1, LONG)
    reading_task = asyncio.create_task(store.read("a"))
    for batch in range(2, 40):
        await appended(store, batch, 100)
    reading = await reading_task
    rest = await store.read("a", reading.entries[-1].position)
    assert seqs(reading.entries + rest.entries) == list(range(1, LONG + 38 * 100 + 2))


class Interrupted(redis.asyncio.Redis):
    """A client during whose pipelines something happens: once, after the first has been answered."""

    happening: Call | None = None

    def pipeline(
        self, transaction: bool = True, shard_hint: str | None = None
    ) -> redis.asyncio.client.Pipeline:
        call, self.happening = self.happening, None
        pipeline = super().pipeline(transaction, shard_hint)
        if call is not None:
            plain = pipeline.execute

            async def execute(raise_on_error: bool = True) -> list[object]:
                replies = await plain(raise_on_error)
                await self.execute_command(*call.by_source())  # type: ignore[no-untyped-call]  # no types there
                return replies

            pipeline.execute = execute  # type: ignore[method-assign]  # the seam is redis-py's, not ours
        return pipeline


@pytest.mark.parametrize("skip", [0, 1])
async def test_epoch_changes_between_two_pages(redis_url: str, skip: int) -> None:
    """When the log is replaced in the middle of a reading, only the new one comes, and all of it."""
    settings = Settings(redis_url=redis_url)
    client: Any = Interrupted.from_url(redis_url, protocol=2)
    store = Store(client, keys_for(settings, client))
    first = await opened(store)
    await appended(store, 1, LONG)
    client.happening = store.calls.restore(
        "a", token="t1", attempt=1, name="r1", reason="log_lost", batch=1, known_epoch=first.epoch,
        lease_ms=9, length=b"{}", cancel_requested=False, created_at=0, started_at=1,
        events=wire([Chunk("new")] * LONG),
    )  # fmt: skip
    reading = await store.read("a", Position(first.epoch, skip) if skip else START)
    assert reading.whole
    assert {entry.position.epoch for entry in reading.entries} == {reading.entries[0].position.epoch}
    assert reading.entries[0].position.epoch > first.epoch
    assert seqs(reading.entries) == list(range(1, LONG + 3))
    await client.aclose()


@pytest.mark.parametrize("lost", ["log", "task"])
async def test_half_a_task_is_unknown(store: Store, lost: str) -> None:
    """With only one of the two keys left a task is unknown, to a reader as to an audit."""
    await opened(store)
    await store.client.delete(store.keys.log("a") if lost == "log" else store.keys.task("a"))
    reading = await store.read("a")
    assert (reading.head, reading.entries) == (None, [])
    assert (await store.heads(["a"]))[0] == [None]


async def test_heads_of_many_tasks(store: Store) -> None:
    """Each task's head comes in the order asked for, None for those that Redis doesn't know."""
    a, b = await opened(store, "a"), await opened(store, "b")
    last = await appended(store, 1, 5)
    heads, now = await store.heads(["b", "nobody", "a", "b"])
    assert [head and head.position for head in heads] == [b, None, last, b]
    assert last == Position(a.epoch, 6)
    assert heads[2] == (await store.read("a")).head
    assert now >= a.epoch
    assert (await store.heads([]))[0] == []


async def test_heads_where_logs_can_not_be_asked_about_together() -> None:
    """A cluster's server takes no command with keys of several slots, even where it has all slots."""
    with RedisProcess(options=["--cluster-enabled", "yes"]) as server, server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok")
        settings = Settings(redis_url=server.url)
        async with async_client(settings) as own:
            store = Store(own, keys_for(settings, own))
            a, b = await opened(store, "a"), await opened(store, "b")
            await opened(store, "half")
            await own.delete(store.keys.log("half"))
            heads, _ = await store.heads(["b", "half", "nobody", "a"])
            assert [head and head.position for head in heads] == [b, None, None, a]


@pytest.mark.parametrize("command", ["hmget", "exists"])
async def test_no_task_is_taken_for_gone_where_redis_does_not_tell(command: str) -> None:
    """A refusal that says nothing of the keys is an error of the whole question."""
    with RedisProcess() as server, server.client() as client:
        settings = Settings(redis_url=server.url)
        async with async_client(settings) as own:
            store = Store(own, keys_for(settings, own))
            await opened(store)
            client.execute_command("ACL", "SETUSER", "default", f"-{command}")
            with pytest.raises(StoreError, match=command):
                await store.heads(["a", "nobody"])


async def test_run_teaches_the_server_a_script(store: Store) -> None:
    """A server that doesn't know the script, also after it forgot it, gets the source."""
    assert (await store.run(store.calls.cancel("a"))).verdict == "unknown"
    await store.client.script_flush()
    assert (await store.run(store.calls.cancel("a"))).verdict == "unknown"


async def test_probe_writes_and_publishes_in_one_step(store: Store, redis_client: redis.Redis) -> None:
    """Also on a server that doesn't know the script; what it writes is gone in a minute."""
    name = store.keys.probe("here")
    listener: Any = redis_client.pubsub()  # type: ignore[no-untyped-call] # redis-py has no type
    listener.subscribe(name)
    eventually(lambda: listener.get_message(timeout=1.0))
    await store.client.script_flush()
    await store.probe(name, b"\xff\n1")
    eventually(lambda: (listener.get_message(timeout=1.0) or {}).get("data") == b"\xff\n1")
    assert 0 < await store.client.pttl(name) <= 60_000
    listener.close()


@pytest.mark.parametrize("setting", ["min-replicas-to-write", "maxmemory"])
async def test_probe_of_a_server_that_refuses_writes_is_unavailable(setting: str) -> None:
    """Nothing is published either: a probe that comes back says that Redis takes writes."""
    with RedisProcess() as server:
        settings = Settings(redis_url=server.url)
        client = async_client(settings)
        store = Store(client, keys_for(settings, client))
        await store.probe("here", b"1")
        await client.config_set(setting, 1)
        with pytest.raises(StoreUnavailable):
            await store.probe("here", b"2")
        assert await client.hget("here", "message") == b"1"
        await client.config_set(setting, 0)
        await store.probe("here", b"3")
        await client.aclose()


async def test_a_lease_has_one_holder(store: Store) -> None:
    """Until it gives it back, or its time is over; keeping it prolongs it."""
    name = store.keys.poller("a")
    assert await store.claim(name, "one", 60_000)
    assert await store.claim(name, "one", 90_000)
    assert 60_000 < await store.client.pttl(name) <= 90_000
    assert not await store.claim(name, "two", 60_000)
    assert not await store.claim(name, "two", 0)
    assert await store.claim(name, "one", 0)
    assert await store.claim(name, "two", 1)
    await eventually_async(lambda: store.claim(name, "one", 60_000))


async def test_a_task_that_was_polled_is_known_by_its_head(store: Store) -> None:
    """Any gateway can tell it from a worker's."""
    await opened(store, "a")
    await opened(store, "b", POLLER_TOKEN)
    heads, _ = await store.heads(["a", "b"])
    assert [head is not None and head.polled for head in heads] == [False, True]


async def test_another_server_is_noticed(store: Store) -> None:
    """By the replication id under which the epoch began; an unknown task began nowhere."""
    await opened(store)
    assert not await store.moved("a")
    await store.client.hset(store.keys.task("a"), "server", "0" * 40)
    assert await store.moved("a")
    assert not await store.moved("nobody")


async def test_refusal_is_a_store_error_that_lasts(store: Store) -> None:
    """Where another program uses our names, each call says so as a `StoreError`; but of heads it is None."""
    await opened(store, "b")
    await store.client.set(store.keys.task("a"), "text", ex=60)
    broken, whole = (await store.heads(["a", "b"]))[0]
    assert broken is None
    assert whole is not None
    for call in (store.run(store.calls.cancel("a")), store.read("a")):
        with pytest.raises(StoreError) as caught:
            await call
        assert not isinstance(caught.value, StoreUnavailable)


@pytest.mark.parametrize(
    "fields",
    [{"epoch": "soon"}, {"epoch": "1", "seq": ""}, {"epoch": "1", "seq": "1", "bytes": "x"},
     {"epoch": "1", "seq": "1", "bytes": "1", "owner": b"\xff"}],
)  # fmt: skip
async def test_hash_of_another_program_is_corrupt(store: Store, fields: dict) -> None:
    """A hash that no script of ours wrote is `CorruptLog` to who reads it, and spoils no other's head."""
    await opened(store)
    await opened(store, "b")
    await store.client.hset(store.keys.task("a"), mapping=fields)
    with pytest.raises(CorruptLog):
        await store.read("a")
    broken, whole = (await store.heads(["a", "b"]))[0]
    assert broken is None
    assert whole is not None


async def test_hash_of_another_epoch_than_the_log_is_corrupt(store: Store) -> None:
    """Neither belongs to the other, and no second look would tell more."""
    position = await opened(store)
    await store.client.hset(store.keys.task("a"), "epoch", position.epoch + 1)
    for after in (START, position):
        with pytest.raises(CorruptLog, match="of epoch"):
            await store.read("a", after)


@pytest.mark.parametrize(
    "fields",
    [{"kind": "chunk"}, {"data": "{}"}, {"kind": b"\xff", "data": "{}"}, {"kind": "chunk", "data": "{}"},
     {"kind": "a surprise", "data": "{}"}, {"kind": "chunk", "data": b"\xff"}],
)  # fmt: skip
async def test_entry_of_another_program_is_corrupt(store: Store, fields: dict) -> None:
    """A log entry that no script of ours wrote is `CorruptLog`."""
    await opened(store)
    await store.client.xadd(store.keys.log("a"), fields)
    with pytest.raises(CorruptLog):
        await store.read("a")


async def test_no_server_is_unavailable_and_passes() -> None:
    """While Redis is away each call says so; when it is back the same client works."""
    with RedisProcess() as server:
        settings = Settings(redis_url=server.url)
        client = async_client(settings)
        store = Store(client, keys_for(settings, client))
        assert (await store.run(store.calls.cancel("a"))).verdict == "unknown"
        server.stop()
        for _ in range(2):
            for call in (store.run(store.calls.cancel("a")), store.read("a"), store.heads(["a"])):
                with pytest.raises(StoreUnavailable):
                    await call
        server.start()
        assert (await store.read("a")).head is None
        await client.aclose()


async def test_crowd_of_calls_shares_a_few_connections(store: Store, redis_client: redis.Redis) -> None:
    """A hundred cancels at once wait for each other, instead of opening a hundred connections."""
    before = len(redis_client.client_list())
    answers = await asyncio.gather(*(store.run(store.calls.cancel(f"job-{n}")) for n in range(100)))
    assert {answer.verdict for answer in answers} == {"unknown"}
    assert len(redis_client.client_list()) <= before + SCRIPTS_AT_ONCE


async def test_frozen_server_is_unavailable_in_time() -> None:
    """A server that accepts and doesn't answer costs a third of a lease at most, not for ever."""
    with RedisProcess() as server:
        settings = Settings(redis_url=server.url, lease_seconds=0.6)
        client = async_client(settings)
        store = Store(client, keys_for(settings, client))

        async def answers() -> bool:
            with suppress(StoreUnavailable):
                return (await store.read("a")).head is None
            return False

        await eventually_async(answers)
        server.pause()
        for call in (store.run(store.calls.cancel("a")), store.read("a"), store.heads(["a"])):
            with pytest.raises(StoreUnavailable):
                await call
        server.resume()
        await client.aclose()


# Published messages


def message_of(entries: list[Entry]) -> bytes:
    """As the scripts publish it."""
    lines = [f"{entry.event.kind} ".encode() + entry.data for entry in entries]
    return b"\n".join([str(entries[-1].position).encode(), *lines])


@given(logs().filter(bool), st.integers(0, 100))
def test_message_carries_the_entries(log: list[Entry], before: int) -> None:
    """Position and data of each event arrive as they stand in the log, wherever in it they stand."""
    entries = as_log([entry.event for entry in log], before + 1)
    assert parse_message(message_of(entries)) == (entries[-1].position, entries)


def test_message_without_events() -> None:
    """The position alone says: read the log."""
    assert parse_message(b"5-9") == (Position(5, 9), [])


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"x", b"5", b"5-", b"5-0", b"-1-2", b"\xff", b"5-1\n", b"5-1\n\n", b"5-1\nchunk",
     b"5-1\nchunk ", b'5-1\nchunk{"text":"a"}', b'5-1\n {"text":"a"}', b'5-1\nchunk {"text":"a"}\n',
     b'5-1\nchunk {"text":"a"}\nchunk {"text":"a"}', b'5-0\nchunk {"text":"a"}', b'5-1\n\xff {"text":"a"}',
     b'5-1\r\nchunk {"text":"a"}', b"5-1\nchunk " + b"[" * 100_000, b'5-1\nerror {"text":"a"}',
     b'chunk {"text":"a"}', b"99999999999999999999-1", b"5-1\nchunk " + b"9" * 10_000],
)  # fmt: skip
def test_message_of_another_program_is_corrupt(message: bytes) -> None:
    """Whatever no script of ours publishes is `CorruptLog`, with a short message."""
    with pytest.raises(CorruptLog) as caught:
        parse_message(message)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("data", [b'{"text":1}', b'{"text":"\xff"}', b"{,}"])
def test_message_is_read_when_it_is_needed(data: bytes) -> None:
    """What an event says is no matter of passing it on: who asks is told that it can't be read."""
    _, [entry] = parse_message(b"5-1\nchunk " + data)
    with pytest.raises(InvalidEvent):
        _ = entry.event


@given(st.binary() | st.tuples(logs().filter(bool), st.integers(0, 500), st.binary(max_size=3)).map(
    lambda cut: message_of(cut[0])[: cut[1]] + cut[2] + message_of(cut[0])[cut[1] + 1 :]
))  # fmt: skip
def test_any_bytes_are_a_message_or_corrupt(message: bytes) -> None:
    """Noise and damaged messages never raise anything but `CorruptLog`, and positions are whole."""
    with suppress(CorruptLog):
        last, entries = parse_message(message)
        assert seqs(entries) == list(range(last.seq - len(entries) + 1, last.seq + 1))
        assert last.seq >= max(1, len(entries))


def test_answer_reads_bytes_and_text() -> None:
    """A script's reply means the same with and without `decode_responses`."""
    raw = b"applied|5|9|1|3|1|running||77|ann|66|2".split(b"|")
    answer = Answer("applied", Position(5, 9), 1, 3, True, "running", "", 77, "ann", 66, 2)
    assert Answer.parse(raw) == answer
    assert Answer.parse([item.decode() for item in raw]) == answer
