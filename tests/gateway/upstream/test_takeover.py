"""Gateways that die, hang, or write at the same time: the text stays whole, and nothing is in it twice."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from bridge.events import Chunk, End, Reset
from bridge.gateway.hub import Hub
from bridge.gateway.status import PollFollower
from bridge.gateway.upstream.recorder import Recorder, Taken
from bridge.settings import Settings
from bridge.sources.polling import Snapshot
from bridge.store.log import POLLER_TOKEN
from tests.gateway.upstream.conftest import QUICK, Behind
from tests.gateway.upstream.legacy import Asked, Legacy, Reply, reply
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.processes import program
from tests.servers import RedisProcess
from tests.waiting import eventually, eventually_async

TEXT = "".join(f"{number} " for number in range(2000))


class Process:
    """A gateway that is a process of its own."""

    def __init__(self, process: Any) -> None:
        self.process = process
        line = process.stdout.readline().decode()
        host, port = line.split("http://")[1].split()[0].split(":")
        self.address = host, int(port)


@contextmanager
def serving(redis_url: str, app: Legacy) -> Iterator[Process]:
    """`bridge serve` in front of the app."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    options += [f"--upstream={app.url}", f"--redis-url={redis_url}", "--port=0", "--log-level=error"]
    with program("serve", *options, env={"PYTHONUNBUFFERED": "1"}, stderr=None) as process:
        yield Process(process)


def growing(app: Legacy, step: int = 120) -> None:
    """Each answer has so much more of the text, and the last one the end."""
    begun = threading.Lock()

    def answer(_: Asked) -> Reply:
        with begun:
            length = len(app.polls) * step
        if length >= len(TEXT):
            return reply({"status": "done", "text": TEXT})
        return reply({"status": "running", "text": TEXT[:length]})

    app.answer = answer


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_another_gateway_goes_on_asking(
    app: Legacy, in_front: Behind, redis_url: str, redis_client: redis.Redis, number: int
) -> None:
    """When the one that asked is killed, goes away or hangs: who follows elsewhere gets the whole text."""
    growing(app, 250)
    with serving(redis_url, app) as first:
        # Before the other one is there, the first has begun to ask.
        with (
            watch(first).until(lambda v: v.view.text != "") as lost,
            in_front() as second,
            watch(second) as viewer,
        ):
            lost.until(lambda v: len(v.view.text) > 500)
            holder = redis_client.hget("bridge:{job-1}:poller", "holder")
            assert holder
            first.process.send_signal(number)
            eventually(lambda: redis_client.hget("bridge:{job-1}:poller", "holder") not in (holder, None))
            viewer.to_end()
        first.process.kill()
    assert viewer.view.text == TEXT
    assert not [event for event in viewer.events if isinstance(event, Reset)]
    ends = [event for event in viewer.events if isinstance(event, End)]
    assert [end.length for end in ends] == [{"text": len(TEXT)}]
    assert viewer.ids == sorted(set(viewer.ids))


def test_a_gateway_that_hung_writes_nothing_twice(app: Legacy, in_front: Behind, redis_url: str) -> None:
    """It wakes up after another has gone on, with an answer that is old."""
    growing(app, 600)
    with serving(redis_url, app) as first:
        with watch(first) as hung, in_front(upstream_shortest_seconds=0.2) as second, watch(second) as viewer:
            hung.until(lambda v: len(v.view.text) > 300)
            first.process.send_signal(signal.SIGSTOP)
            viewer.until(lambda v: len(v.view.text) > len(hung.view.text) + 1500)
            first.process.send_signal(signal.SIGCONT)
            viewer.to_end()
            assert hung.to_end().view.text == TEXT
    assert viewer.view.text == TEXT
    assert "".join(event.text for event in viewer.events if isinstance(event, Chunk)) == TEXT


def test_an_old_answer_is_not_told_after_a_newer_one(app: Legacy, in_front: Behind, redis_url: str) -> None:
    """The app answered a gateway that hung; when it wakes up another has told more."""
    hangs, over = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Reply:
        number = app.polls.index(asked)
        if number < 2:
            said = reply({"status": "running", "text": TEXT[: 10 * (number + 1)]})
            return said if number == 0 else Reply([hangs, *said.pieces])
        return reply({"status": "done" if over.is_set() else "running", "text": TEXT[:200]})

    app.answer = answer
    with serving(redis_url, app) as first, watch(first) as hung:
        hung.text_is(TEXT[:10])
        eventually(lambda: len(app.polls) == 2)
        first.process.send_signal(signal.SIGSTOP)
        hangs.set()
        with in_front() as second, watch(second) as viewer:
            viewer.text_is(TEXT[:200])
            first.process.send_signal(signal.SIGCONT)
            hung.text_is(TEXT[:200])
            asked = len(app.polls)
            eventually(lambda: len(app.polls) > asked + 3)
            over.set()
            viewer.to_end()
    assert not [event for event in viewer.events if isinstance(event, Reset)]


@pytest.mark.parametrize("etags", [False, True])
def test_a_redis_that_lost_everything_gets_it_again(app: Legacy, in_front: Behind, etags: bool) -> None:
    """The app is asked for all of it, also one that would only say that nothing has changed."""
    task = {"status": "running", "text": TEXT[:500]}

    def answer(asked: Asked) -> Reply:
        etag = f'"{len(task["text"])}"'
        if etags and asked.header("if-none-match") == etag:
            return reply(b"", 304)
        return reply(task, 200, [("ETag", etag)] if etags else [])

    app.answer = answer
    with RedisProcess() as server, in_front(redis_url=server.url) as gateway, watch(gateway) as viewer:
        viewer.text_is(TEXT[:500])
        eventually(lambda: len(app.asked) > 3)
        with server.client() as client:
            client.flushall()
            eventually(lambda: client.xlen("bridge:{job-1}:log") > 1)
        with watch(gateway) as other:
            other.text_is(TEXT[:500])
        server.restart()
        task |= {"text": TEXT[:600]}
        viewer.text_is(TEXT[:600])
        task |= {"status": "done", "text": TEXT}
        assert viewer.to_end().view.text == TEXT


# --- two recorders of one task ------------------------------------------------------------------------------


class Desk:
    """A hub that runs, a channel of the task in it, and a recorder."""

    def __init__(self, redis_url: str, **settings: Any) -> None:
        self.hub = Hub(Settings(redis_url=redis_url, audit_seconds=0.1, **settings))
        self.poll = PollFollower()

    async def __aenter__(self) -> Desk:
        self._task = asyncio.create_task(self.hub.run())
        await asyncio.sleep(0)
        self._attached = self.hub.attach("job-1", self.poll)
        self.channel = self._attached.__enter__()
        self.recorder = Recorder(self.hub, self.channel, self.poll)
        await self.hub.fresh(self.channel, self.poll)
        await eventually_async(lambda: self.hub.ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._attached.__exit__(None, None, None)
        self._task.cancel()
        await asyncio.wait([self._task])


def text(length: int, state: str = "running") -> Snapshot:
    """The first letters of the text."""
    return Snapshot(state, {"text": TEXT[:length]})


async def test_recorders_that_write_at_the_same_time(redis_url: str, writer: Writer) -> None:
    """However they take turns, and however old what one of them knows: the log folds to what was recorded
    last.
    """
    async with Desk(redis_url) as one, Desk(redis_url) as two, Desk(redis_url) as three:
        desks = (one, two, three)
        for length in range(10, 600, 30):
            await asyncio.gather(*(desk.recorder.record(text(length)) for desk in desks))
            view = writer.view()
            assert view.text == TEXT[:length]
        await asyncio.gather(*(desk.recorder.record(text(700 + 7 * n)) for n, desk in enumerate(desks)))
        await one.recorder.record(text(800))
        assert writer.view().text == TEXT[:800]
        ended = await asyncio.gather(
            *(desk.recorder.record(text(900, "succeeded")) for desk in desks), return_exceptions=True
        )
        assert all(said in (True, False) or isinstance(said, Taken) for said in ended)
    log = writer.log()
    assert sum(isinstance(entry.event, End) for entry in log) == 1
    assert writer.view().text == TEXT[:900]


async def test_a_log_that_vanished_is_begun_anew(redis_url: str, writer: Writer) -> None:
    """With everything that the app says."""
    async with Desk(redis_url) as desk:
        await desk.recorder.record(text(50))
        epoch = writer.log()[0].position.epoch
        writer.forget()
        await desk.recorder.record(text(60))
        assert writer.view().text == TEXT[:60]
        assert writer.log()[0].position.epoch > epoch


@pytest.mark.parametrize("loss", ["batches", "server"])
async def test_lost_batches_are_written_anew(
    redis_url: str, redis_client: redis.Redis, writer: Writer, loss: str
) -> None:
    """In a new epoch: no id is given twice to other text."""
    async with Desk(redis_url) as desk:
        await desk.recorder.record(text(50))
        before = [redis_client.dump(f"bridge:{{job-1}}:{name}") or b"" for name in ("task", "log")]
        await desk.recorder.record(text(60))
        await desk.recorder.record(text(70))
        old = writer.log()
        if loss == "batches":
            for name, value in zip(("task", "log"), before, strict=True):
                redis_client.restore(f"bridge:{{job-1}}:{name}", 60_000, value, replace=True)
        else:
            redis_client.hset("bridge:{job-1}:task", "server", "0" * 40)
        fresh = Recorder(desk.hub, desk.channel, desk.poll) if loss == "server" else desk.recorder
        await fresh.record(text(80))
        log = writer.log()
        assert log[0].position > old[-1].position
        assert log[0].event.kind == "reset"
        assert writer.view().text == TEXT[:80]
        assert await fresh.record(text(90, "succeeded"))
        assert writer.view().text == TEXT[:90]


async def test_a_full_log_is_written_anew(redis_url: str, writer: Writer) -> None:
    """What is superseded goes; what counts stays."""
    async with Desk(redis_url, max_task_bytes=1024) as desk:
        for number in range(200):
            await desk.recorder.record(Snapshot("running", {"text": TEXT[: 10 + number]}, number / 200))
        view = writer.view()
        assert (view.text, view.progress) == (TEXT[:209], 199 / 200)
        assert writer.log()[0].event == Reset("compacted", 1, writer.log()[0].event.at)
        assert await desk.recorder.record(text(300, "succeeded"))
        assert writer.view().state == "succeeded"


async def test_an_answer_that_got_lost_is_no_reason_to_write_twice(redis_url: str, writer: Writer) -> None:
    """Whether a batch was taken is known from the log."""
    async with Desk(redis_url) as desk:
        await desk.recorder.record(text(50))
        run = desk.hub.store.run

        async def deaf(call: Any) -> Any:
            await run(call)
            raise TimeoutError

        desk.hub.store.run = deaf  # type: ignore[method-assign] # the answer gets lost
        with pytest.raises(TimeoutError):
            await desk.recorder.record(text(60))
        desk.hub.store.run = run  # type: ignore[method-assign] # and then no more
        assert not await desk.recorder.record(text(60))
        assert await desk.recorder.record(text(70))
        assert writer.view().text == TEXT[:70]


async def test_a_task_that_somebody_else_has_is_left_alone(redis_url: str, writer: Writer) -> None:
    """Before anything is written, and after a worker has taken it."""
    async with Desk(redis_url) as desk:
        await desk.recorder.record(text(50))
        writer.open()
        with pytest.raises(Taken):
            await desk.recorder.record(text(60))
        assert writer.text("mine").verdict == "applied"
        with pytest.raises(Taken):
            await Recorder(desk.hub, desk.channel, desk.poll).record(text(70))
    assert writer.view().text == "mine"
    assert writer.token != POLLER_TOKEN
