"""Streams over a real socket."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from bridge import sse
from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import START, UNKNOWN_TASK_END, Chunk, Data, End, Position, Progress, Reset, State, Unknown
from bridge.gateway.auth.visitor import ANYBODY
from bridge.gateway.channel import Channel
from bridge.gateway.connection import PLAIN
from bridge.gateway.follower import Batch
from bridge.gateway.history import PIECE_BYTES
from bridge.gateway.hub import Hub
from bridge.gateway.stream import _LOOKS, StreamFollower
from bridge.gateway.wire import RETRY_MS
from bridge.settings import Settings
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.proxy import proxy
from tests.waiting import eventually

FRAME_OVERHEAD = 1024
"""More than what the lines around the data of one piece take."""


def retry_of(viewer: Viewer) -> int:
    """The number in the first line of the stream."""
    viewer.until(lambda v: b"\n" in v.body)
    first = re.fullmatch(rb"retry: (\d+)", viewer.body.split(b"\n")[0])
    assert first is not None
    return int(first[1])


def only_reset_and(viewer: Viewer, position: Position, text: str) -> None:
    """The client was told to forget, with the id before the first, and then got everything."""
    viewer.text_is(text)
    assert viewer.events[0] == Reset("other_log", 1)
    assert viewer.ids[0] == Position(position.epoch, 0)
    assert viewer.ids == sorted(set(viewer.ids))


def test_headers_are_exactly_these(gateway: Running) -> None:
    """The content type carries no charset, nothing is cached, and no proxy buffers."""
    with watch(gateway) as viewer:
        viewer.head()
    assert viewer.status == 200
    assert viewer.headers["content-type"] == "text/event-stream"
    assert viewer.headers["cache-control"] == "no-store"
    assert viewer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in viewer.headers


def test_every_stream_begins_with_a_retry_of_its_own(gateway: Running) -> None:
    """The first line is a `retry:` between the two bounds, and streams differ in it."""
    retries = set()
    for _ in range(12):
        with watch(gateway) as viewer:
            retries.add(retry_of(viewer))
    assert all(RETRY_MS[0] <= retry <= RETRY_MS[1] for retry in retries)
    assert len(retries) > 1


def test_a_task_that_does_not_exist_yet_is_waited_for(redis_url: str, writer: Writer) -> None:
    """Until the worker comes nothing is sent but the heartbeat, a line with a colon; then all of it is."""
    with running(redis_url, heartbeat_seconds=0.05) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: v.body.count(b"\n") > 3)
        assert re.fullmatch(rb"retry: \d+\n(:\n)+", viewer.body)
        assert viewer.frames == []
        writer.open()
        writer.text("here")
        viewer.text_is("here")
        assert viewer.ids[0].seq == 1


def test_events_arrive_in_order_each_with_its_position(gateway: Running, writer: Writer) -> None:
    """One who watches from the start gets every event that the worker wrote, as it was written."""
    with watch(gateway) as viewer:
        viewer.head()
        start = writer.create().position
        writer.open()
        writer.text("Hel", "lo")
        writer.progress(0.5, "half")
        writer.data("sources", [1, 2])
        writer.text("hm", field="reasoning")
        writer.end(result={"n": 1})
        viewer.to_end()
    assert viewer.view.as_dict() == writer.view().as_dict()
    assert {position.epoch for position in viewer.ids} == {start.epoch}
    assert viewer.ids == sorted(set(viewer.ids))
    assert [frame.event for frame in viewer.frames][-1] == "end"
    assert all(frame.event != "error" for frame in viewer.frames)


def test_a_live_reader_gets_each_event_as_it_is(gateway: Running, writer: Writer) -> None:
    """A reader that keeps up gets the log's own bytes, nothing merged and nothing left out."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        for seq, text in enumerate("stream", 2):
            writer.text(text)
            viewer.until(lambda v: len(v.frames) == seq)  # noqa: B023 (it is called before seq goes on)
        assert [position.seq for position in viewer.ids] == list(range(1, 8))
    assert [frame.data.encode() for frame in viewer.frames] == [entry.data for entry in writer.log()]


def test_a_late_join_is_cheap(gateway: Running, writer: Writer) -> None:
    """Who comes late gets a thousand pieces of text as one event, and of progress only the last."""
    writer.open()
    for number in range(100):
        writer.append(*[Chunk("x")] * 10, Progress(number / 100))
    with watch(gateway) as viewer:
        viewer.until(lambda v: v.view.progress == 0.99)
        assert viewer.view.text == "x" * 1000
        assert len(viewer.frames) <= 5


def test_the_end_closes_the_stream(gateway: Running, writer: Writer) -> None:
    """After `end` there is nothing more, live or replayed."""
    writer.open()
    with watch(gateway) as live:
        live.until(lambda v: len(v.frames) == 1)
        writer.end("succeeded", Chunk("bye"))
        live.to_end()
    with watch(gateway) as late:
        late.to_end()
    for viewer in (live, late):
        assert isinstance(viewer.events[-1], End)
        assert viewer.view.text == "bye"
        assert viewer.body.endswith(b"\n\n")


def test_who_has_the_end_gets_204(gateway: Running, writer: Writer) -> None:
    """Coming back with the end's position is answered in a way that makes an EventSource stop."""
    writer.open()
    end = writer.end().position
    with watch(gateway, after=str(end)) as viewer:
        viewer.to_end()
    assert viewer.status == 204
    assert viewer.body == b""
    assert "content-type" not in viewer.headers


@pytest.mark.parametrize("how", ["header", "query"])
def test_resumes_after_a_position(gateway: Running, writer: Writer, how: str) -> None:
    """Only what stands after the position is sent, however the client names it."""
    writer.open()
    writer.text("a")
    position = writer.text("b").position
    writer.text("c")
    if how == "header":
        viewer = watch(gateway, after=str(position))
    else:
        viewer = Viewer(gateway, f"/tasks/job-1/events?after={position}")
    with viewer:
        viewer.text_is("c")
        writer.text("d")
        viewer.text_is("cd")
        assert viewer.ids[0].seq == position.seq + 1


def test_the_header_goes_before_the_query(gateway: Running, writer: Writer) -> None:
    """An EventSource reconnects with the URL that it began with; its header is newer."""
    writer.open()
    old = writer.text("a").position
    new = writer.text("b").position
    writer.text("c")
    path = f"/tasks/job-1/events?after={old}"
    with Viewer(gateway, path, headers={"Last-Event-ID": str(new)}) as viewer:
        viewer.text_is("c")


@pytest.mark.parametrize("nothing", ["-1", "0", ""])
@pytest.mark.parametrize("how", ["header", "query"])
def test_no_position_means_from_the_start(gateway: Running, writer: Writer, how: str, nothing: str) -> None:
    """What clients send when they have nothing yet is understood as that."""
    writer.open()
    writer.text("all")
    if how == "header":
        viewer = watch(gateway, after=nothing)
    else:
        viewer = Viewer(gateway, f"/tasks/job-1/events?after={nothing}")
    with viewer:
        viewer.text_is("all")
        assert isinstance(viewer.events[0], State)


def test_a_client_ahead_of_the_gateway_is_not_reset(redis_url: str, writer: Writer) -> None:
    """Who got more from another gateway than this one has heard of yet goes on from there."""
    writer.open()
    with running(redis_url, audit_seconds=1000, probe_seconds=1000) as gateway, watch(gateway) as other:
        other.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        newest = writer.text("unheard").position
        writer.elsewhere = False
        with watch(gateway, after=str(newest)) as viewer:
            viewer.head()
            writer.text("new")
            viewer.text_is("new")
            assert viewer.ids == [Position(newest.epoch, newest.seq + 1)]
        other.text_is("unheardnew")


@pytest.mark.parametrize("ahead", ["in the epoch", "of a later epoch", "of an earlier epoch"])
def test_a_position_that_is_not_of_this_log_is_reset(gateway: Running, writer: Writer, ahead: str) -> None:
    """The client is told to forget what it has, with an id before the first event, and gets everything."""
    writer.open()
    newest = writer.text("whole").position
    position = {
        "in the epoch": Position(newest.epoch, newest.seq + 5),
        "of a later epoch": Position(newest.epoch + 5, 1),
        "of an earlier epoch": Position(newest.epoch - 5, 1),
    }[ahead]
    with watch(gateway, after=str(position)) as viewer:
        only_reset_and(viewer, newest, "whole")


def test_a_new_epoch_reaches_an_open_stream(gateway: Running, writer: Writer) -> None:
    """When the log is written anew after a loss, who watches forgets the old text and gets the new."""
    old = writer.open().text("old").position
    with watch(gateway) as viewer:
        viewer.text_is("old")
        writer.forget()
        writer.restore(Chunk("new"), known_epoch=old.epoch)
        viewer.text_is("new")
        assert any(isinstance(event, Reset) for event in viewer.events)
        assert viewer.ids == sorted(set(viewer.ids))
        assert viewer.view.as_dict() == writer.view().as_dict()


def test_a_retry_says_reset_once(gateway: Running, writer: Writer) -> None:
    """Who comes from the attempt before gets the log's own `reset`, and no second one."""
    writer.open()
    writer.text("first")
    end = writer.end("failed").position
    writer.open()
    writer.text("second")
    with watch(gateway, after=str(end)) as viewer:
        viewer.text_is("second")
        assert [event for event in viewer.events if isinstance(event, Reset)] == [viewer.events[0]]
        assert viewer.events[0].kind == "reset"
        assert viewer.ids[0].epoch > end.epoch


def test_a_task_nobody_ever_creates_ends(redis_url: str) -> None:
    """After `unknown_task_wait_seconds` the stream ends as failed, and who comes back gets 204."""
    with running(redis_url, unknown_task_wait_seconds=0.1, heartbeat_seconds=0.1) as gateway:
        with watch(gateway) as viewer:
            viewer.to_end()
        (frame,) = viewer.frames
        assert (frame.event, frame.id) == ("end", "0-1")
        assert viewer.view.state == "failed"
        assert viewer.view.error is not None
        assert viewer.view.error["code"] == "unknown_task"
        with watch(gateway, after="0-1") as again:
            assert again.to_end().status == 204


def test_a_task_that_was_thought_unknown_can_still_come(gateway: Running, writer: Writer) -> None:
    """Who comes back with the id of that end gets the task from the start, if there is one by then."""
    writer.open()
    writer.text("late")
    with watch(gateway, after="0-1") as viewer:
        viewer.text_is("late")


def test_a_task_that_vanishes_ends(redis_url: str, writer: Writer) -> None:
    """When Redis loses a task and no worker has it any more, who watches is told so in the end, and gets 204
    when it comes back all the same.
    """
    writer.open().text("half")
    with running(redis_url, unknown_task_wait_seconds=0.1, heartbeat_seconds=0.1) as gateway:
        with watch(gateway) as viewer:
            viewer.text_is("half")
            writer.forget()
            viewer.to_end()
        with watch(gateway, after=str(viewer.ids[-1])) as again:
            again.head()
    assert viewer.view.state == "failed"
    assert viewer.view.text == "half"
    assert viewer.ids[-1] == UNKNOWN_TASK_END
    assert again.status == 204


def test_a_client_that_leaves_is_let_go_at_once(redis_url: str, writer: Writer) -> None:
    """A closed connection frees its follower without anything being sent to it."""
    writer.open()
    with running(redis_url, heartbeat_seconds=1000, stall_timeout_seconds=1000) as gateway:
        viewers = [watch(gateway).head() for _ in range(5)]
        eventually(lambda: gateway.followers("job-1") == 5)
        while viewers:
            viewers.pop().close()
            eventually(lambda: gateway.followers("job-1") == len(viewers))


def test_a_client_that_leaves_an_unknown_task_is_let_go_too(redis_url: str) -> None:
    """Also while there is no event to send, with or without a position of its own."""
    with running(redis_url, heartbeat_seconds=1000, stall_timeout_seconds=1000) as gateway:
        for after in (None, "5-5"):
            with watch(gateway, after=after):
                eventually(lambda: gateway.followers() == 1)
            eventually(lambda: gateway.followers() == 0)


def test_head_answers_at_once(gateway: Running, writer: Writer) -> None:
    """HEAD gets the headers of a stream, no body, and doesn't wait for anything; the connection goes on."""
    with Viewer(gateway, "/tasks/job-1/events", method="HEAD") as viewer:
        viewer.head()
        assert viewer.status == 200
        assert viewer.headers["content-type"] == "text/event-stream"
        assert "transfer-encoding" not in viewer.headers
        viewer.socket.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        assert viewer.socket.recv(1000).startswith(b"HTTP/1.1 200")
    assert gateway.followers() == 0


def big_texts(writer: Writer) -> str:
    """Write more than the buffers of two sockets hold; returns it all."""
    texts = [f"{number:05}" * 1000 for number in range(1600)]
    for start in range(0, len(texts), 4):
        writer.text(*texts[start : start + 4])
    return "".join(texts)


def test_a_reader_left_behind_gets_it_all_in_merged_pieces(redis_url: str, writer: Writer) -> None:
    """Who doesn't read for a while costs nobody anything, and later gets pieces of at most 64 KiB."""
    writer.open()
    with running(redis_url, stall_timeout_seconds=1000) as gateway:
        with watch(gateway, receive_buffer=4096) as slow, watch(gateway) as quick:
            slow.until(lambda v: len(v.frames) == 1)
            written = big_texts(writer)
            quick.until(lambda v: sum(map(len, (f.data for f in v.frames))) > len(written))
            writer.end()
            slow.to_end()
            quick.to_end()
    assert slow.view.text == written
    assert quick.view.text == written
    assert slow.ids == sorted(set(slow.ids))
    assert len(slow.frames) < 1600 / 2
    assert max(slow.sends) <= PIECE_BYTES + FRAME_OVERHEAD


def test_a_client_that_takes_nothing_is_cut_off_and_can_resume(redis_url: str, writer: Writer) -> None:
    """After `stall_timeout_seconds` its connection is gone, and a new one goes on where it stopped."""
    writer.open()
    with running(redis_url, stall_timeout_seconds=0.3, heartbeat_seconds=1000) as gateway:
        with watch(gateway, receive_buffer=4096) as stuck:
            stuck.until(lambda v: len(v.frames) == 1)
            written = big_texts(writer)
            writer.end()
            eventually(lambda: gateway.connections() == 0)
            assert gateway.followers() == 0
            stuck.to_end()
        assert not stuck.view.ended
        with watch(gateway, after=str(stuck.ids[-1])) as again:
            again.to_end()
    assert stuck.view.text + again.view.text == written
    assert isinstance(again.events[-1], End)


def test_two_fields_and_data_survive_a_merge(gateway: Running, writer: Writer) -> None:
    """A merged replay folds to the same view as the events one by one."""
    writer.open()
    for number in range(20):
        writer.append(Chunk("a"), Chunk("b", "reasoning"), Data("d", number), Progress(None, str(number)))
    with watch(gateway) as viewer:
        viewer.until(lambda v: v.view.message == "19")
        assert viewer.view.as_dict() == writer.view().as_dict()


def test_a_kind_of_a_newer_version_is_passed_on(gateway: Running, writer: Writer) -> None:
    """An event of a kind that this gateway doesn't know changes no view, but is streamed as it stands."""
    writer.open()
    writer.append(Chunk("a"), Unknown("later", {"much": 1}), Chunk("b"))
    writer.end()
    with watch(gateway) as viewer:
        viewer.to_end()
        assert b"event: later\n" in viewer.body
    assert gateway.get("/tasks/job-1/status").json()["text"] == "ab"


def test_what_is_doubtful_sends_nobody_away_for_ever(redis_url: str, writer: Writer) -> None:
    """Who comes back with the end while the link is silent is told of the run that has begun since."""
    position = writer.open().end().position
    with proxy(redis_url) as relay, running(relay.url, probe_seconds=1000.0) as gateway:
        with watch(gateway, after=str(position)) as viewer:
            viewer.head()
        assert viewer.status == 204
        relay.silence()
        eventually(lambda: not gateway.hub.ready)
        writer.open().text("again")
        with watch(gateway, after=str(position)) as viewer:
            viewer.text_is("again")
        relay.cut(links=True)


# --- what is written without waking anybody -------------------------------------------------------------


class Pipe:
    """A connection that keeps what is pushed, while it is writable, until its client takes it."""

    def __init__(self) -> None:
        self.pushed: list[bytes] = []
        self.writable = True
        self.taken = 0

    def unsent(self) -> int:
        return sum(map(len, self.pushed)) - self.taken

    def cut(self) -> bool:
        return False

    def push(self, chunk: bytes) -> bool:
        if self.writable:
            self.pushed.append(chunk)
        return self.writable

    def when_gone(self, tell: Callable[[], None]) -> bool:
        return True


def batch(at: float, text: str = "x") -> Batch:
    """One that came at that moment of monotonic time."""
    event = Chunk(text)
    one = Batch([Entry(Position(1, 1), event, encode(event))])
    one.at = at
    return one


class Asked(Pipe):
    """Counts how often it is asked what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def unsent(self) -> int:
        self.asked += 1
        return super().unsent()


async def waiting(pipe: Pipe, heartbeat: float = 10) -> tuple[StreamFollower, asyncio.Task[bytes]]:
    """A stream that is up to date, and what it will wake up with."""
    seconds = {"heartbeat_seconds": heartbeat, "stall_timeout_seconds": 20}
    hub = Hub(Settings(redis_url="redis://127.0.0.1:1/0").with_(**seconds))
    follower = StreamFollower(START, hub, ANYBODY, pipe)
    task = asyncio.create_task(follower._next())
    await asyncio.sleep(0)
    return follower, task


async def test_what_is_pushed_counts_as_what_is_sent() -> None:
    """In bytes, and as a sign of life: the next heartbeat is due so long after it."""
    pipe = Pipe()
    follower, task = await waiting(pipe)
    one = batch(follower.began + 9)
    assert follower.offer(one)
    assert pipe.pushed == [one.chunk(follower.dialect)]
    assert follower.bytes_sent == len(pipe.pushed[0])
    pipe.taken = follower.bytes_sent
    follower.tick(follower.began + 18.9)
    await asyncio.sleep(0)
    assert not task.done()
    follower.tick(follower.began + 19)
    assert await task == sse.HEARTBEAT


async def test_a_client_that_takes_some_of_what_is_pushed_is_not_stalled() -> None:
    """However much more waits for it each time; only one that takes nothing is."""
    pipe = Pipe()
    follower, task = await waiting(pipe)
    for second in range(0, 100, 5):
        assert follower.offer(batch(follower.began + second, "x" * 100))
        pipe.taken += 1
        follower.tick(follower.began + second)
        assert not follower.stalled
    follower.tick(follower.began + 114)
    assert not follower.stalled
    follower._task = None  # the test's own, which must go on
    assert follower._takes_nothing(follower.began + 115)
    task.cancel()


async def test_a_client_that_was_sent_nothing_for_long_has_its_whole_time() -> None:
    """It is counted from what it was sent, not from when it was looked at last; and so again each time."""
    pipe = Pipe()
    follower, task = await waiting(pipe, 10_000)
    follower._task = None  # the test's own, which must go on
    for begun in (0, 1000, 2000):
        for second in range(begun, begun + 100):
            follower.tick(follower.began + second)
        assert follower.offer(batch(follower.began + begun + 99.5))
        for second in range(begun + 100, begun + 120):
            assert not follower._takes_nothing(follower.began + second)
            follower.tick(follower.began + second)
        assert follower._takes_nothing(follower.began + begun + 120)
        pipe.taken = follower.bytes_sent
        assert not follower._takes_nothing(follower.began + begun + 122)
    task.cancel()


async def test_an_idle_stream_is_rarely_looked_at() -> None:
    """In ten minutes it gets forty heartbeats, which wake nobody. For each the kernel is asked once whether
    the client took it, and no more ticks are due than that takes.
    """
    pipe = Asked()
    hub = Hub(Settings(redis_url="redis://127.0.0.1:1/0", heartbeat_seconds=15, stall_timeout_seconds=60))
    follower = StreamFollower(START, hub, ANYBODY, pipe)
    follower._channel = Channel("job-1", lambda _: None)
    follower._channel.owner = ""
    waits = asyncio.create_task(follower._next())
    await asyncio.sleep(0)
    ticks, due = 0, 0.0
    for second in range(601):
        pipe.taken = follower.bytes_sent
        now = follower.began + second
        if due <= now:
            due = follower.tick(now)
            ticks += 1
    assert len(pipe.pushed) == 40
    assert b"".join(pipe.pushed) == b"2\r\n:\n\r\n" * 40
    assert pipe.asked <= 40
    assert ticks <= 3 * 40
    assert not waits.done()
    waits.cancel()


@given(st.lists(st.sampled_from(["wait", "wait", "wait", "push", "take", "take all"]), max_size=300))
async def test_a_client_has_its_whole_time_and_not_much_more(deeds: list[str]) -> None:
    """Whatever it is sent and takes, and at whatever moment between two ticks: it is given up after
    `stall_timeout` in which something waited and it took nothing, never before, and two looks later at most.
    """
    pipe = Pipe()
    follower, task = await waiting(pipe, 10_000)
    follower._task = task
    follower._channel = Channel("job-1", lambda _: None)
    follower._channel.owner = ""
    due, now, idle_since = 0.0, follower.began, follower.began
    for second, deed in enumerate([*deeds, "push", *["wait"] * 60]):
        now = follower.began + second
        if pipe.unsent() == 0 or deed.startswith("take"):
            idle_since = now
        if deed == "push":
            assert follower.offer(batch(now))
        elif deed == "take all":
            pipe.taken += pipe.unsent()
        elif deed == "take":
            pipe.taken += min(1, pipe.unsent())
        if due <= now:
            due = follower.tick(now)
        if follower.stalled:
            break
        assert now - idle_since <= 20 + 2 * (20 / _LOOKS + 1)
    assert follower.stalled
    assert now - idle_since >= 20
    task.cancel()


@pytest.mark.parametrize("why", ["idle", "before it begins", "unknown task", "last words"])
async def test_who_waits_for_something_is_ticked_in_each_turn(why: str) -> None:
    """And who was idle until now, in the next one: there may be something to wait for."""
    follower, task = await waiting(Pipe())
    ticks = follower._hub._followers
    follower._hub.enter("job-1", follower)
    if why != "before it begins":
        follower._channel = Channel("job-1", lambda _: None)
        follower._channel.owner = None if why == "unknown task" else ""
    if why == "last words":
        follower.drain()

    def ticked(second: int) -> bool:
        due = ticks.take(follower.began + second)
        ticks.tick(due, follower.began + second)
        return due == [follower]

    assert [ticked(second) for second in (1, 2)] == [True, why != "idle"]
    follower.wake()
    assert ticked(3)
    task.cancel()


async def test_a_client_that_takes_nothing_is_found_though_nothing_was_due() -> None:
    """It has its time from when it was sent something, and at most what a look is late by."""
    for sent_at in range(100, 120):
        pipe = Pipe()
        follower, task = await waiting(pipe, 10_000)
        follower._task = task
        follower._channel = Channel("job-1", lambda _: None)
        follower._channel.owner = ""
        second, due = 0, 0.0
        while not follower.stalled:
            second += 1
            now = follower.began + second
            if second == sent_at:
                assert follower.offer(batch(now - 0.5))
            if due <= now:
                due = follower.tick(now)
        assert sent_at + 20 <= second <= sent_at + 20 + 20 / _LOOKS


async def test_a_send_that_waits_counts_where_the_kernel_can_not_be_asked() -> None:
    """Under a server that isn't ours: who takes nothing holds up `send`, and that is all there is to see."""
    stuck = asyncio.Event()

    async def send(_: Message) -> None:
        await stuck.wait()

    hub = Hub(Settings(redis_url="redis://127.0.0.1:1/0", stall_timeout_seconds=20))
    follower = StreamFollower(START, hub, ANYBODY, PLAIN)
    follower._task = None  # the test's own, which must go on
    sending = asyncio.create_task(follower._send(send, b"x"))
    await asyncio.sleep(0)
    for second in range(24):
        follower.tick(follower.began + second)
    assert follower._takes_nothing(follower.began + 24)
    stuck.set()
    await sending
    follower.tick(follower.began + 25)
    assert not follower._takes_nothing(follower.began + 26)


async def test_who_can_not_be_written_to_wakes_up() -> None:
    """And gets the same batch by `send`, which waits; what comes next isn't for it."""
    pipe = Pipe()
    pipe.writable = False
    follower, task = await waiting(pipe)
    one = batch(follower.began)
    assert follower.offer(one)
    assert not follower.offer(batch(follower.began, "later"))
    assert await task == one.frames(follower.dialect)
    assert (pipe.pushed, follower.bytes_sent) == ([], 0)


def test_a_stream_that_is_over_leaves_nothing_behind(redis_url: str, writer: Writer) -> None:
    """Also where its connection goes on: nothing keeps it there, nor its task when that has lingered."""
    before = followers_and_channels()  # what other tests have
    writer.open()
    with running(redis_url, heartbeat_seconds=0.05, linger_seconds=0.1) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: b"\n:" in v.body)  # it was ticked
        writer.end()
        viewer.to_end()

        def left() -> int:
            return sum(all(one is not old for old in before) for one in followers_and_channels())

        eventually(lambda: (gateway.inside(left), gateway.connections()) == (0, 1))


def followers_and_channels() -> list[object]:
    """All that are in this process."""
    gc.collect()
    # Of other libraries' proxies `isinstance` would ask whom they stand for.
    return [one for one in gc.get_objects() if type(one) in (StreamFollower, Channel)]
