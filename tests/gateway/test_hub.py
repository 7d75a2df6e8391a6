"""The hub: channels that come and go, memory that is bounded, and trouble that stays where it is."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest
import redis

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import Chunk, Position, State
from bridge.gateway import hub as module
from bridge.gateway.audit import Audit
from bridge.gateway.channel import Channel
from bridge.gateway.hub import Hub
from bridge.gateway.status import PollFollower
from bridge.settings import Settings
from bridge.store.link import Message
from bridge.store.log import Head, parse_message
from tests.gateway.readers import Reader, entries, head, read
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

STATUS = "/tasks/job-1/status"


def channels(gateway: Running) -> list[str]:
    """The tasks that the gateway holds."""
    return gateway.inside(lambda: list(gateway.hub._channels))


def subscribed(client: redis.Redis) -> list[bytes]:
    """The tasks' channels that somebody listens to in Redis."""
    return [name for name in client.pubsub_channels("*:live:*") if isinstance(name, bytes)]


def test_a_channel_lingers_and_then_goes(redis_url: str, redis_client: redis.Redis, writer: Writer) -> None:
    """After its last reader a task stays in memory for a while, and then nothing of it is left."""
    writer.open()
    with running(redis_url, linger_seconds=1000.0) as gateway:
        with watch(gateway) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
        eventually(lambda: gateway.followers() == 0)
        assert channels(gateway) == ["job-1"]
        gateway.change(linger_seconds=0.3)
        eventually(lambda: channels(gateway) == [])
        assert gateway.inside(lambda: gateway.hub._by_name) == {}
        eventually(lambda: subscribed(redis_client) == [])


def test_a_channel_that_is_read_stays(redis_url: str, writer: Writer) -> None:
    """However short the lingering, whoever watches keeps it."""
    writer.open()
    with running(redis_url, linger_seconds=0) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.text("still")
        viewer.text_is("still")


def test_an_unknown_task_does_not_linger(redis_url: str, redis_client: redis.Redis) -> None:
    """Asking for ids that don't exist fills neither the gateway's memory nor the list of subscriptions."""
    with running(redis_url, linger_seconds=1000) as gateway:
        for number in range(30):
            assert gateway.get(f"/tasks/guess-{number}/status").status_code == 404
        eventually(lambda: channels(gateway) == [])
        eventually(lambda: subscribed(redis_client) == [])


def test_readers_that_come_and_go_all_see_everything(redis_url: str, writer: Writer) -> None:
    """Channels that are dropped and made anew at any moment, and subscribed anew each time, lose nothing."""
    writer.open()
    with running(redis_url, linger_seconds=0) as gateway:
        text = ""
        for number in range(40):
            with watch(gateway) as viewer:
                viewer.text_is(text)
                writer.text(f"{number} ")
                text += f"{number} "
                viewer.text_is(text)
            if number % 3 == 0:
                eventually(lambda: gateway.followers() == 0)


def test_lingering_tasks_go_first_when_memory_is_short(redis_url: str) -> None:
    """Over the budget, tasks that nobody reads are dropped, the longest idle first; those being read stay.

    A task counts with about four times its text: as text, as events, as their JSON, and ready to be sent.
    """
    with running(redis_url, channels_bytes=600_000, linger_seconds=1000) as gateway:
        writers = [Writer(redis_url, f"job-{number}") for number in range(4)]
        for writer in writers:
            writer.open()
            writer.text("x" * 60_000)
        with watch(gateway, "job-0") as viewer:
            viewer.until(lambda v: len(v.view.text) == 60_000)
            for number in range(1, 4):
                assert gateway.get(f"/tasks/job-{number}/status").status_code == 200
            eventually(lambda: channels(gateway) == ["job-0", "job-3"])
        for writer in writers:
            writer.client.close()


def test_forgotten_history_is_read_again(redis_url: str, writer: Writer) -> None:
    """With no memory at all every reader still gets everything, early, late or resuming."""
    writer.open()
    with running(redis_url, channels_bytes=0) as gateway:
        with watch(gateway) as early:
            middle = writer.text("one ").position
            early.text_is("one ")
            eventually(lambda: gateway.inside(lambda: gateway.hub._channels["job-1"]._history.base > 0))
            writer.text("two ")
            early.text_is("one two ")
            with watch(gateway) as late, watch(gateway, after=str(middle)) as resumed:
                late.text_is("one two ")
                resumed.text_is("two ")
                writer.text("three")
                for viewer in (early, late):
                    viewer.text_is("one two three")
                resumed.text_is("two three")
                assert gateway.get(STATUS).json()["text"] == "one two three"
                body = gateway.get(f"{STATUS}?after={middle}").json()
                assert (body["text"], body["reset"]) == ("two three", False)


def test_too_little_memory_is_said_once(
    redis_url: str, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log isn't filled with the same complaint at every tick."""
    writer.open()
    with running(redis_url, channels_bytes=0, heartbeat_seconds=0.05) as gateway:
        with watch(gateway) as viewer:
            viewer.until(lambda v: v.body.count(b"\n:") > 10)
    assert len([r for r in caplog.records if "channels_bytes" in r.getMessage()]) == 1


def assert_fine(gateway: Running, redis_url: str, expected: str = "fine") -> None:
    """Another task is served as if nothing had happened, and the gateway is ready."""
    with Writer(redis_url, "other") as other:
        other.open()
        with watch(gateway, "other") as viewer:
            other.text("fine")
            viewer.text_is(expected)
            other.end()
            viewer.to_end()
    assert gateway.get("/tasks/other/status").json()["text"] == "fine"
    # A probe that is late on a busy machine makes it unready for a moment.
    eventually(lambda: gateway.get("/readyz").status_code == 200)


@pytest.mark.parametrize("how", ["entry", "kind", "hash", "type"])
def test_a_log_that_can_not_be_read_is_its_own_trouble(
    gateway: Running, redis_url: str, redis_client: redis.Redis, writer: Writer,
    expected_errors: list[str], how: str,
) -> None:  # fmt: skip
    """Polls of that task are 500, its streams wait, and everything else goes on, ready and healthy."""
    expected_errors.append("can't be read")
    writer.open()
    task, log = writer.keys.task("job-1"), writer.keys.log("job-1")
    if how == "entry":
        redis_client.xadd(log, {"kind": "chunk", "data": "no json"})
    elif how == "kind":
        redis_client.xadd(log, {"kind": "no kind", "data": "{}"})
    elif how == "hash":
        redis_client.hset(task, "seq", "many")
    else:
        redis_client.set(task, "no hash", ex=60)
    with watch(gateway) as viewer:
        viewer.head()
        for _ in range(3):
            answer = gateway.get(STATUS)
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "store_error"
            assert "strange" not in answer.text
            assert_fine(gateway, redis_url)
        assert viewer.frames == []
        writer.forget()
        writer.open()
        writer.text("good again")
        viewer.text_is("good again")


def test_a_message_that_is_none_disturbs_nobody(
    gateway: Running, redis_client: redis.Redis, writer: Writer, expected_errors: list[str]
) -> None:
    """Whatever a stranger publishes on a task's channel is reported, and the log is what counts."""
    expected_errors.append("a published message")
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        for message in (b"", b"nonsense", b"\xff\n\xff", b"1-2\nchunk {}", b"9-9\nchunk", b"1-0\n" * 5):
            redis_client.publish(writer.keys.channel("job-1"), message)
        writer.text("the truth")
        viewer.text_is("the truth")
        assert viewer.ids == sorted(set(viewer.ids))


@pytest.mark.parametrize("where", ["bytes", "parsing", "receiving"])
async def test_what_is_wrong_with_one_message_disturbs_none_that_came_with_it(
    where: str, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """Its task is read, also if nothing else ever comes; the others' messages are handed on."""
    expected_errors += ["a published message", "in a way that it should not"]
    hub = Hub(Settings())
    readers = {name: Reader() for name in ("before", "broken", "behind")}
    channels = {name: hub.enter(name, reader) for name, reader in readers.items()}
    log = entries(1763650000000, [State("running", 1, at=1)])
    for name, channel in channels.items():
        channel.begin_read()
        channel.load(read(log))
        readers[name].catch_up(channel)
    came = [_published(hub, name, 2, "x") for name in readers]

    def break_down(*_: object) -> NoReturn:
        raise RuntimeError("a bug")

    def parse(data: bytes) -> tuple[Position, list[Entry]]:
        return break_down() if b"bug" in data else parse_message(data)

    if where == "bytes":
        came[1] = came[1][0], b"nonsense"
    elif where == "parsing":
        came[1] = _published(hub, "broken", 2, "bug")
        monkeypatch.setattr(module, "parse_message", parse)
    else:
        monkeypatch.setattr(readers["broken"], "offer", break_down)
    hub.messages(came)
    assert {name: channel.read_due for name, channel in channels.items()} == {
        "before": False,
        "broken": True,
        "behind": False,
    }
    assert {name: reader.view.text for name, reader in readers.items()} == {
        "before": "x",
        "broken": "",
        "behind": "x",
    }


def _published(hub: Hub, task_id: str, seq: int, text: str) -> Message:
    """A chunk's message."""
    return hub.store.keys.channel(task_id), b"1763650000000-%d\nchunk %b" % (seq, encode(Chunk(text)))


@pytest.mark.parametrize("where", ["load", "receive"])
def test_a_bug_met_with_one_task_does_not_end_the_gateway(
    gateway: Running, redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch,
    expected_errors: list[str], where: str,
) -> None:  # fmt: skip
    """Should our own code break on one task, it is logged with a traceback and tried again."""
    expected_errors += ["in a way that it should not", "can't be read"]
    real = getattr(Channel, where)
    broken = {"now": True}

    def sometimes(channel: Channel, *arguments: Any) -> None:
        if channel.task_id == "job-1" and broken["now"]:
            raise RuntimeError("a bug")
        real(channel, *arguments)

    monkeypatch.setattr(Channel, where, sometimes)
    writer.open()
    with watch(gateway) as viewer:
        viewer.head()
        writer.text("in spite ")
        assert_fine(gateway, redis_url)
        broken["now"] = False
        writer.text("of it")
        viewer.text_is("in spite of it")


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub whose link is taken for well, without any."""
    monkeypatch.setattr(Audit, "doubtful", False)
    return Hub(Settings(redis_url="redis://127.0.0.1:1/0"))


@pytest.mark.parametrize("known", [False, True])
async def test_what_was_written_during_a_read_is_read_as_well(trusting: Hub, known: bool) -> None:
    """The read may have been made before it, the first one of a task too; so a poll waits for another."""
    log = entries(1, [State("running", 1), Chunk("a"), Chunk("b")])
    one, other = PollFollower(), PollFollower()
    channel = trusting.enter("job-1", one)
    trusting.enter("job-1", other)
    if known:
        channel.begin_read()
        channel.load(read(log[:1]))
        channel.want_read()
    channel.begin_read()
    before = asyncio.create_task(trusting.fresh(channel, one))
    await asyncio.sleep(0)
    channel.wrote(log[-1].position, "")
    after = asyncio.create_task(trusting.fresh(channel, other))
    await asyncio.sleep(0)
    channel.load(read(log[:2]))
    await before
    assert not after.done()
    channel.begin_read()
    channel.load(read(log))
    await after
    assert channel.view.text == "ab"
    assert trusting.is_fresh(channel)


async def test_a_head_is_as_new_as_what_was_written_here(
    trusting: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in memory of a task is doubted from when this gateway has written more to its log."""
    log = entries(1, [State("running", 1), Chunk("a")])
    told = ([head(log)], 0)

    async def heads(_: object) -> tuple[list[Head], int]:
        return told

    monkeypatch.setattr(trusting.store, "heads", heads)
    channel = trusting.enter("job-1", PollFollower())
    channel.begin_read()
    channel.load(read(None))
    assert await trusting.head("job-1") is None
    channel.wrote(log[-1].position, "")
    assert await trusting.head("job-1") == head(log)


async def test_a_task_that_went_before_it_was_read_is_not_read(
    trusting: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ever give up a subscription that began after its channel was dropped."""

    async def never(*_: object) -> NoReturn:
        raise AssertionError("it is read")

    monkeypatch.setattr(trusting._link, "subscribe", never)
    monkeypatch.setattr(trusting.store, "read", never)
    one = PollFollower()
    channel = trusting.enter("job-1", one)
    trusting.leave(channel, one)
    trusting._let_go(channel.idle_since)
    assert channel.dropped
    await trusting._readers.read(channel)
    assert channel.reads_begun == 0
