"""Sources joined to tasks: what the task says, what comes back, and what stops the source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import redis

import bridge
from bridge.errors import InvalidEvent
from bridge.events import Chunk, Data, End, Event, Progress
from bridge.settings import Settings
from bridge.sources.relay import ASK_SECONDS, Watch, carry, relay, relay_sync
from bridge.store.connect import keys_for
from bridge.worker import process
from tests.gateway.running import running
from tests.waiting import eventually_async, go_on_for
from tests.worker.conftest import brisk
from tests.worker.logs import call, end_of, read_view

EVENTS: list[Event] = [
    Chunk("hm", "reasoning"),
    Chunk("Hel"),
    Progress(0.5, "half"),
    Progress(None, "more"),
    Progress(),
    Data("sources", [1]),
    Data("sources", [1, 2]),
    Chunk("lo"),
]


@pytest.fixture
def settings(redis_url: str) -> Iterator[Settings]:
    """The process's settings: the shared server."""
    process.reset()
    yield bridge.configure(brisk(redis_url))
    process.reset()


class Source:
    """Yields these events; then, if it should, it waits for ever."""

    def __init__(self, *events: Event, endless: bool = False) -> None:
        self._events = events
        self._endless = endless
        self.begun = asyncio.Event()
        self.closed = False

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self._events:
                yield event
            self.begun.set()
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_a_task_says_what_its_source_yields(settings: Settings, redis_client: redis.Redis) -> None:
    """Text, fields, progress, data, result and usage; the same comes back to the work."""
    end = End("succeeded", result={"finish_reason": "stop"}, usage={"output_tokens": 2})
    async with bridge.task("t") as task:
        outcome = await relay(task, Source(*EVENTS, end).events())
    view = read_view(redis_client, "t")
    assert (view.text, view.fields, view.progress, view.message) == (
        "Hello", {"reasoning": "hm"}, 0.5, "more"
    )  # fmt: skip
    assert view.data == {"sources": [1, 2]} == outcome.data
    assert (view.state, view.result, view.usage) == ("succeeded", end.result, end.usage)
    assert (outcome.state, outcome.text, outcome.error) == ("succeeded", "Hello", None)
    assert (outcome.result, outcome.usage) == (end.result, end.usage)


async def test_a_source_that_just_ends_has_succeeded(settings: Settings, redis_client: redis.Redis) -> None:
    """It needs no end of its own."""
    async with bridge.task("t") as task:
        assert (await relay(task, Source(Chunk("x")).events())).state == "succeeded"
    assert end_of(redis_client, "t").state == "succeeded"


async def test_a_source_that_was_cancelled_elsewhere_has_failed(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Nobody has asked this task to stop, and half its work is no success."""
    async with bridge.task("t") as task:
        outcome = await relay(task, Source(Chunk("half"), End("cancelled", result=1)).events())
    said = end_of(redis_client, "t")
    assert (said.state, said.error, said.result) == ("failed", outcome.error, 1)
    assert (outcome.state, outcome.error and outcome.error["code"]) == ("failed", "cancelled")


async def test_outside_of_any_task_the_work_is_done_all_the_same() -> None:
    """As with the hook: what a task queue runs is not broken by a bridge that isn't there."""
    outcome = await relay(bridge.current_task(), Source(*EVENTS).events(), stop_when_unwatched=0.0)
    assert (outcome.state, outcome.text, outcome.data) == ("succeeded", "Hello", {"sources": [1, 2]})
    error = {"code": "overloaded", "message": "Later."}
    assert (await relay(None, Source(End("failed", error)).events())).error == error


async def test_a_source_that_failed_fails_its_task(settings: Settings, redis_client: redis.Redis) -> None:
    """With its code, what there is all the same, and what it cost; the partial text stays."""
    error = {"code": "overloaded", "message": "Later."}
    end = End("failed", error, {"retry_after_seconds": 7}, {"output_tokens": 2})
    async with bridge.task("t") as task:
        outcome = await relay(task, Source(Chunk("par"), Chunk("tial"), end).events())
    said, view = end_of(redis_client, "t"), read_view(redis_client, "t")
    assert (view.text, said.error, said.result, said.usage) == ("partial", error, end.result, end.usage)
    assert (outcome.state, outcome.error, outcome.text) == ("failed", error, "partial")


async def test_the_work_may_say_otherwise(settings: Settings, redis_client: redis.Redis) -> None:
    """A task ends where its block does, as it was told last."""
    async with bridge.task("t") as task:
        outcome = await relay(task, Source(Chunk("x")).events())
        task.succeed({"stored": outcome.text})
    assert end_of(redis_client, "t").result == {"stored": "x"}


async def test_what_a_source_raises_goes_through(settings: Settings, redis_client: redis.Redis) -> None:
    """A bug in a source is the work's, and fails its task."""

    async def broken() -> AsyncGenerator[Event, None]:
        yield Chunk("x")
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        async with bridge.task("t") as task:
            await relay(task, broken())
    error = end_of(redis_client, "t").error
    assert error is not None
    assert error["code"] == "LookupError"


async def test_what_can_not_be_reported_closes_the_source(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Also for those who carry it themselves."""
    source = Source(Chunk("x", "no\nname"), endless=True)
    async with bridge.task("t") as task:
        with Watch(task) as watch, pytest.raises(InvalidEvent):
            await carry(task, source.events(), watch)
        assert source.closed


async def test_a_cancel_stops_a_silent_source(settings: Settings, redis_client: redis.Redis) -> None:
    """At once, although it yields nothing; the text stays, and the task ends as cancelled."""
    source = Source(Chunk("so far"), endless=True)
    async with bridge.task("t") as task:
        relaying = asyncio.ensure_future(relay(task, source.events()))
        await eventually_async(lambda: read_view(redis_client, "t").text == "so far")
        call(settings, "cancel", "t")
        outcome = await relaying
    assert source.closed
    assert (outcome.state, outcome.text) == ("cancelled", "so far")
    assert (end_of(redis_client, "t").state, read_view(redis_client, "t").text) == ("cancelled", "so far")


async def test_a_newer_attempt_stops_the_source(settings: Settings, redis_client: redis.Redis) -> None:
    """The worker that was superseded writes nothing more, and knows it."""
    source = Source(Chunk("old"), endless=True)
    async with bridge.task("t") as task:
        relaying = asyncio.ensure_future(relay(task, source.events()))
        await eventually_async(lambda: read_view(redis_client, "t").text == "old")
        call(settings, "open", "t", token="newer", lease_ms=9000)
        outcome = await relaying
    assert (outcome.state, source.closed) == ("superseded", True)
    assert read_view(redis_client, "t").attempt == 2


async def test_a_source_that_has_begun_is_closed_also_by_a_task_that_was_told_to_stop() -> None:
    """Whoever looked at its first event has opened what it holds."""
    task, source = Fake(0), Source(Chunk("x"), endless=True)
    events = source.events()
    await anext(events)
    task.go_on = False
    assert (await relay(task, events)).state == "superseded"
    assert source.closed


async def test_a_cancellation_from_outside_is_not_lost_while_the_source_is_being_stopped() -> None:
    """Both may come at once; then nobody may take the work's cancellation for the task's."""
    task, closing, closed = Fake(0), asyncio.Event(), asyncio.Event()

    async def slow_to_close() -> AsyncGenerator[Event, None]:
        try:
            yield Chunk("x")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            closing.set()
            await closed.wait()
            raise

    relaying = asyncio.ensure_future(relay(task, slow_to_close()))
    await asyncio.sleep(0)
    task.go_on = False
    await closing.wait()
    relaying.cancel()
    closed.set()
    with pytest.raises(asyncio.CancelledError):
        await relaying


async def test_a_task_that_was_told_to_stop_starts_no_source(settings: Settings) -> None:
    """A cancel that came first costs nothing."""
    source = Source(Chunk("never"))
    call(settings, "create", "t", owner="", creation="c")
    async with bridge.task("t") as task:
        task.buffer.request_cancel()
        outcome = await relay(task, source.events())
    assert (outcome.state, outcome.text) == ("cancelled", "")
    assert not source.begun.is_set()


async def test_a_cancellation_from_outside_goes_on_outwards(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """The source is closed first."""
    source = Source(Chunk("x"), endless=True)

    async def work() -> None:
        async with bridge.task("t") as task:
            await relay(task, source.events())

    working = asyncio.ensure_future(work())
    await source.begun.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert source.closed
    assert end_of(redis_client, "t").state == "failed"


async def test_nobody_watching_stops_only_who_asked_for_that(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """After the grace time, counted from when the last one left."""
    client: Any = redis_client
    channel = keys_for(settings, client).channel("t")
    source = Source(Chunk("paid for"), endless=True)
    async with bridge.task("t") as task:
        gateway = client.pubsub()
        gateway.subscribe(channel)
        await eventually_async(lambda: gateway.get_message() is not None)
        await eventually_async(lambda: task.watchers == 1)
        relaying = asyncio.ensure_future(relay(task, source.events(), stop_when_unwatched=0.2))
        await source.begun.wait()
        await go_on_for(0.5)
        assert not relaying.done()
        gateway.close()
        outcome = await relaying
    assert source.closed
    end = end_of(redis_client, "t")
    assert (outcome.state, outcome.error, outcome.text) == ("failed", end.error, "paid for")
    assert end.error is not None
    assert (end.error["code"], read_view(redis_client, "t").text) == ("unwatched", "paid for")


@pytest.mark.parametrize("again", [True, False])
async def test_who_polls_a_gateway_watches(
    settings: Settings, redis_client: redis.Redis, again: bool
) -> None:
    """A client that asks for the status now and then keeps the work going; when it has not asked for as long
    as a gateway lingers, the work ends, as all can see.
    """
    source = Source(Chunk("paid for"), endless=True)
    with running(settings.redis_url, linger_seconds=60.0 if again else 1.0) as gateway:
        async with bridge.task("t") as task:

            async def heard() -> bool:
                answer = await asyncio.to_thread(gateway.get, "/tasks/t/status")
                assert answer.json().get("state") == "running"
                return task.watchers == 1

            await eventually_async(heard)
            relaying = asyncio.ensure_future(relay(task, source.events(), stop_when_unwatched=0.0))
            if again:
                await source.begun.wait()
                await go_on_for(3 * ASK_SECONDS)
                assert await heard()
                assert not relaying.done()
                gateway.begin_to_stop()
            assert (await relaying).state == "failed"
    view = read_view(redis_client, "t")
    assert view.error is not None
    assert (view.state, view.error["code"], view.text) == ("failed", "unwatched", "paid for")


class Fake:
    """A task of which nobody knows who watches it, or so many."""

    cancel_requested = False

    def __init__(self, watchers: int | None) -> None:
        self.watchers = watchers
        self.ended = ""
        self.go_on = True

    def report_progress(self, *_: Any, **__: Any) -> bool:
        return self.go_on

    def succeed(self, result: Any = None, usage: Any = None) -> None:
        self.ended = "succeeded"

    def fail(self, code: str, message: str, result: Any = None, usage: Any = None) -> None:
        self.ended = code


@pytest.mark.parametrize(("watchers", "seconds"), [(None, 0.0), (1, 0.0), (0, None)])
async def test_what_nobody_knows_stops_nothing(watchers: int | None, seconds: float | None) -> None:
    """Redis may be away; and who didn't ask for it is never stopped."""
    task, source = Fake(watchers), Source(endless=True)
    relaying = asyncio.ensure_future(relay(task, source.events(), stop_when_unwatched=seconds))
    await source.begun.wait()
    await go_on_for(3 * ASK_SECONDS)
    assert not relaying.done()
    relaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await relaying
    assert not task.ended


async def test_who_comes_back_is_waited_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time begins when the last one leaves, however often they come and go."""
    task = Fake(0)
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    with Watch(task, unwatched_seconds=4.0) as watch:
        for task.watchers in (0, 1) * 4:
            assert watch.ask()
            now += 3.0
            assert watch.ask()
        task.watchers = 0
        assert watch.ask()
        now += 4.0
        assert not watch.ask()
    assert watch.unwatched


async def test_patience_of_zero_stops_at_once() -> None:
    """As soon as it is known that nobody watches."""
    task = Fake(0)
    outcome = await relay(task, Source(Chunk("x"), endless=True).events(), stop_when_unwatched=0.0)
    assert (outcome.state, task.ended) == ("failed", "unwatched")


def test_work_that_is_no_coroutine(settings: Settings, redis_client: redis.Redis) -> None:
    """A thread of a task queue's has no event loop, and gets one for this."""
    end = End("succeeded", result=1)

    async def source() -> AsyncGenerator[Event, None]:
        yield Chunk("Hello")
        await asyncio.sleep(0)
        yield end

    with bridge.task("t") as task:
        outcome = relay_sync(task, source())
    assert (outcome.state, outcome.text) == ("succeeded", "Hello")
    assert read_view(redis_client, "t").text == "Hello"


async def test_a_second_event_loop_is_refused() -> None:
    """With the way to do it."""
    with pytest.raises(RuntimeError, match="await relay"):
        relay_sync(Fake(None), Source().events())
