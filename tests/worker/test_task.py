from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

import bridge
from bridge import report_progress
from bridge.errors import InvalidEvent, InvalidTaskId, SettingsError
from bridge.events import Chunk, End, Progress, Reset, State
from bridge.settings import Settings
from bridge.store.connect import keys_for
from bridge.worker import process
from tests.waiting import eventually, eventually_async
from tests.worker.logs import call, end_of, events, read_view


def test_a_block_is_a_run(settings: Settings, redis_client: redis.Redis) -> None:
    """It begins as running and ends as succeeded, with what `succeed` said."""
    result, usage = {"rows": [1]}, {"tokens": 3}
    with bridge.task("t") as task:
        assert (task.id, bridge.current_task()) == ("t", task)
        task.succeed(result, usage)
        result["rows"].append(2)
        assert task.report_progress("after")
    first, _, end = events(redis_client, "t")
    assert isinstance(first, State)
    assert (first.state, first.attempt) == ("running", 1)
    assert isinstance(end, End)
    assert (end.state, end.result, end.usage) == ("succeeded", {"rows": [1]}, {"tokens": 3})
    assert end.length == {"text": 5}


async def test_a_task_knows_how_many_gateways_follow_it(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Also while it is silent, and soon after somebody comes or leaves."""
    client: Any = redis_client  # redis-py leaves pubsub untyped
    channel = keys_for(settings, client).channel("t")
    async with bridge.task("t") as task:
        await eventually_async(lambda: task.watchers == 0)
        gateway = client.pubsub()
        gateway.subscribe(channel)
        await eventually_async(lambda: task.watchers == 1)
        gateway.close()
        await eventually_async(lambda: task.watchers == 0)


def test_what_was_heard_long_ago_is_not_known_any_more(settings: Settings) -> None:
    """While Redis is away nobody can say who watches."""
    task = bridge.task("t")
    assert task.watchers is None
    task.buffer.watchers = (0, time.monotonic())
    assert task.watchers == 0
    task.buffer.watchers = (0, time.monotonic() - settings.lease_seconds - 1)
    assert task.watchers is None


def test_fail_says_how_it_failed(settings: Settings, redis_client: redis.Redis) -> None:
    """Code and message reach the end; the block itself raises nothing."""
    with bridge.task("t") as task:
        task.fail("quota", "used up", usage={"tokens": 3})
    end = end_of(redis_client, "t")
    assert (end.state, end.error) == ("failed", {"code": "quota", "message": "used up"})
    assert (end.result, end.usage) == (None, {"tokens": 3})


def test_a_failed_task_may_have_a_result(settings: Settings, redis_client: redis.Redis) -> None:
    """What there is all the same goes along, also when the work raises afterwards, unless it is too large."""
    failing = bridge.task("t").start()
    failing.fail("quota", "used up", result={"done": 3})
    failing.finish(LookupError())
    end = end_of(redis_client, "t")
    assert (end.state, end.result, end.truncated) == ("failed", {"done": 3}, False)
    with bridge.task("u", settings=settings.with_(max_task_bytes=1024)) as task:
        task.fail("quota", "used up", result="x" * 2000)
    end = end_of(redis_client, "u")
    assert (end.error, end.result, end.truncated) == ({"code": "quota", "message": "used up"}, None, True)


def test_an_exception_passes_through(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The work's own exception comes out; the end has type and message, only the log the traceback."""

    def work() -> None:
        with bridge.task("t"):
            report_progress("partial")
            raise ValueError("broken")

    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="broken"):
        work()
    end = end_of(redis_client, "t")
    assert (end.state, end.error) == ("failed", {"code": "ValueError", "message": "broken"})
    assert read_view(redis_client, "t").text == "partial"
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interruption_passes_through(
    settings: Settings, redis_client: redis.Redis, raised: BaseException
) -> None:
    """Whoever interrupts the process gets the interruption, and the task has failed."""
    with pytest.raises(type(raised)), bridge.task("t"):
        raise raised
    end = end_of(redis_client, "t")
    assert end.state == "failed"


def test_bad_arguments_are_refused_early(settings: Settings) -> None:
    """Ids, URLs and what `succeed` and `fail` get are checked where they are given."""
    with pytest.raises(InvalidTaskId):
        bridge.task("no spaces")
    with pytest.raises(SettingsError, match="redis_url"):
        bridge.task("t", settings=Settings(redis_url="http://x")).start()
    task = bridge.task("t")
    with pytest.raises(InvalidEvent):
        task.succeed({1, 2})
    with pytest.raises(TypeError, match="mapping"):
        task.succeed(usage=3)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidEvent):
        task.fail("", "x")


def test_a_result_that_is_too_large_is_left_out(settings: Settings, redis_client: redis.Redis) -> None:
    """The work has succeeded all the same."""
    with bridge.task("t", settings=settings.with_(max_task_bytes=1024)) as task:
        task.succeed("x" * 2000)
    end = end_of(redis_client, "t")
    assert (end.state, end.result, end.truncated) == ("succeeded", None, True)


def test_an_object_is_for_one_run(settings: Settings) -> None:
    """A second start and a finish without start are mistakes; a second finish isn't."""
    task = bridge.task("t")
    with pytest.raises(RuntimeError, match="not started"):
        task.finish()
    assert task.start() is task
    with pytest.raises(RuntimeError, match="one run"):
        task.start()
    assert task.finish() is True
    assert task.finish() is False
    assert task.report_progress("late") is False


def test_start_and_finish_do_without_a_block(settings: Settings, redis_client: redis.Redis) -> None:
    """Callbacks can begin and end a run, also when the end comes in another context."""
    task = bridge.task("t").start()
    report_progress("x")
    assert contextvars.Context().run(task.finish, ValueError("y")) is True
    assert bridge.current_task() is None
    assert report_progress("outside any task")
    end = end_of(redis_client, "t")
    assert end.state == "failed"


def test_a_block_in_a_generator_ends_with_it(settings: Settings, redis_client: redis.Redis) -> None:
    """A consumer that goes away leaves a failed task; nothing waits for Redis while a generator closes."""

    def stream() -> Iterator[str]:
        with bridge.task("t") as task:
            for word in ("a", "b", "c"):
                task.report_progress(word)
                yield word

    words = stream()
    next(words)
    words.close()  # type: ignore[attr-defined]  # a generator
    assert bridge.current_task() is None
    end = eventually(lambda: end_of(redis_client, "t"))
    assert end.error is not None
    assert end.error["code"] == "GeneratorExit"


def test_blocks_in_generators_may_end_in_any_order(settings: Settings) -> None:
    """Who still runs stays bound, and when all have ended nothing is bound and nobody is told to stop."""

    def stream(task_id: str) -> Iterator[int]:
        with bridge.task(task_id):
            yield 1

    for closing in ([0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 1, 0]):
        words = [stream(f"t{number}") for number in range(3)]
        for each in words:
            next(each)
        running = {0, 1, 2}
        for number in closing:
            words[number].close()  # type: ignore[attr-defined]  # a generator
            running.remove(number)
            bound = bridge.current_task()
            assert (bound and bound.id) == (f"t{max(running)}" if running else None)
        assert report_progress("outside any task")


def test_what_outlives_its_task_reports_to_the_one_around_it(settings: Settings) -> None:
    """A copy of the context doesn't hold on to a task that has ended, nor say stop because of it."""
    with bridge.task("outer") as outer:
        with bridge.task("inner") as inner:
            copy = contextvars.copy_context()
            assert copy.run(bridge.current_task) is inner
        assert copy.run(bridge.current_task) is outer
    assert copy.run(bridge.current_task) is None
    assert copy.run(report_progress)


def test_ended_tasks_are_not_kept_by_later_ones(settings: Settings) -> None:
    """Runs that overlap without end, as callbacks may, don't become an ever longer chain."""
    before = bridge.task("t").start()
    for _ in range(20):
        after = bridge.task("t").start()
        before.finish(GeneratorExit())
        before = after
    before.finish(GeneratorExit())
    assert before.outer is None


def test_an_unbound_block_leaves_its_surroundings_alone(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """With ``bind=False`` a generator's consumer goes on reporting to its own task."""

    def stream() -> Iterator[str]:
        with bridge.task("inner", bind=False) as task:
            for word in ("a", "b"):
                task.report_progress(word)
                yield word

    with bridge.task("outer"):
        for word in stream():
            report_progress(word.upper())
    assert read_view(redis_client, "inner").text == "ab"
    assert read_view(redis_client, "outer").text == "AB"
    with pytest.raises(TypeError, match="use a block"):
        bridge.task("t", bind=False)(lambda: None)
    with pytest.raises(TypeError, match="use a block"):
        bridge.task(lambda: "t", bind=False)  # type: ignore[call-overload]  # that is what is tested


async def test_an_async_generator_may_end_in_another_context(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Closed by another asyncio task, its binding can't be reset there, and that is no error."""

    async def stream() -> AsyncIterator[str]:
        async with bridge.task("t") as task:
            task.report_progress("a")
            yield "a"

    words = stream()
    await asyncio.create_task(anext(words))  # type: ignore[arg-type]  # a coroutine, to all effects
    await asyncio.create_task(words.aclose())  # type: ignore[attr-defined]  # a generator
    assert (await eventually_async(lambda: end_of(redis_client, "t"))).state == "failed"


# Decorators.


def test_a_decorated_function_is_a_run_per_call(settings: Settings, redis_client: redis.Redis) -> None:
    """The id is fixed or made from the arguments; value and exception come out unchanged."""

    @bridge.task("fixed")
    def fixed(a: int) -> int:
        """Doc."""
        report_progress(f"{a}")
        return a + 1

    @bridge.task(lambda name, *, times: f"by-{name}-{times}")
    def named(name: str, *, times: int) -> None:
        report_progress(name * times)
        raise LookupError(name)

    assert (fixed(1), fixed(a=2)) == (2, 3)
    assert (fixed.__name__, fixed.__doc__) == ("fixed", "Doc.")
    with pytest.raises(LookupError):
        named("x", times=3)
    view = read_view(redis_client, "fixed")
    assert (view.text, view.attempt, view.state) == ("2", 2, "succeeded")
    assert isinstance(events(redis_client, "fixed")[0], Reset)
    assert read_view(redis_client, "by-x-3").text == "xxx"


def test_a_decorator_reads_the_settings_when_it_is_called(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules are imported, and their functions decorated, before the app configures anything."""
    monkeypatch.setenv("BRIDGE_REDIS_URL", "nonsense")

    @bridge.task("t")
    def work() -> None:
        report_progress("x")

    bridge.configure(Settings(redis_url=redis_url))
    work()
    assert read_view(redis_client, "t").text == "x"


async def test_a_decorated_coroutine_function_is_one_still(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """An async function stays async, and each call has its own task."""

    @bridge.task(lambda number: f"t{number}")
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        report_progress(f"{number}")
        return number

    assert asyncio.iscoroutinefunction(work)
    assert await asyncio.gather(*(work(number) for number in range(5))) == list(range(5))
    for number in range(5):
        assert read_view(redis_client, f"t{number}").text == f"{number}"


def test_generators_are_not_decorated() -> None:
    """They run between the steps of their consumer; the error says what to write."""

    def generate() -> Iterator[int]:
        yield 1

    async def generate_async() -> AsyncIterator[int]:
        yield 1

    for function in (generate, generate_async):
        with pytest.raises(TypeError, match="bind=False"):
            bridge.task("t")(function)


def test_a_partial_of_a_coroutine_function_is_async(settings: Settings) -> None:
    """What behaves like an async function is decorated like one."""

    async def work(number: int) -> int:
        return number

    decorated = bridge.task("t")(functools.partial(work, 3))
    assert asyncio.run(decorated()) == 3


# Cancel.


def test_a_cancel_reaches_the_hook(settings: Settings, redis_client: redis.Redis) -> None:
    """The hook says stop, the work stops, and the task is cancelled with its text kept."""
    with bridge.task("t") as task:
        assert report_progress("begun")
        eventually(lambda: events(redis_client, "t"))
        call(settings, "cancel", "t")
        eventually(lambda: not report_progress())
        assert not report_progress(" last words")
        assert task.cancel_requested
    end = end_of(redis_client, "t")
    assert (end.state, end.error) == ("cancelled", None)
    assert read_view(redis_client, "t").text == "begun last words"


def test_work_that_did_not_hear_of_the_cancel_succeeds(settings: Settings, redis_client: redis.Redis) -> None:
    """Only who was told to stop can have stopped for that."""
    with bridge.task("t") as task:
        eventually(lambda: events(redis_client, "t"))
        call(settings, "cancel", "t")
        eventually(lambda: not task.buffer.go_on)
    end = end_of(redis_client, "t")
    assert end.state == "succeeded"


@pytest.mark.parametrize("state", ["cancelled", "succeeded"])
def test_who_reads_the_flag_is_told(settings: Settings, redis_client: redis.Redis, state: str) -> None:
    """Work that only looks at `cancel_requested` and stops is cancelled, too; an explicit end wins."""
    with bridge.task("t") as task:
        eventually(lambda: events(redis_client, "t"))
        call(settings, "cancel", "t")
        eventually(lambda: task.cancel_requested)
        if state == "succeeded":
            task.succeed("done all the same")
    assert end_of(redis_client, "t").state == state


@pytest.mark.parametrize("state", ["cancelled", "failed"])
async def test_a_cancelled_coroutine(settings: Settings, redis_client: redis.Redis, state: str) -> None:
    """CancelledError ends the task as cancelled if somebody asked for that, otherwise as failed."""
    begun = asyncio.Event()
    task = bridge.task("t")

    async def work() -> None:
        async with task:
            begun.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await begun.wait()
    await eventually_async(lambda: bool(events(redis_client, "t")))
    if state == "cancelled":
        call(settings, "cancel", "t")
        await eventually_async(lambda: not task.buffer.go_on)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert end_of(redis_client, "t").state == state


def test_a_task_cancelled_in_the_queue_never_runs(settings: Settings, redis_client: redis.Redis) -> None:
    """The worker that begins it is told at once, and its end isn't written."""
    assert bridge.create_task("t")
    call(settings, "cancel", "t")
    before = events(redis_client, "t")
    with bridge.task("t") as task:
        eventually(lambda: not report_progress("x"))
        assert task.cancel_requested
        task.succeed("never seen")
    assert events(redis_client, "t") == before
    assert read_view(redis_client, "t").state == "cancelled"


# Fencing.


def test_a_newer_worker_takes_over(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The older one is told to stop, says so once, and neither its late text nor its end is written."""
    with bridge.task("t") as old:
        old.report_progress("old")
        eventually(lambda: read_view(redis_client, "t").text == "old")
        with bridge.task("t") as new:
            new.report_progress("new")
            eventually(lambda: not old.report_progress(" more"))
            assert not old.cancel_requested
        assert new.report_progress() is False
    assert caplog.text.count("taken over by a newer attempt") == 1
    view = read_view(redis_client, "t")
    assert (view.text, view.state, view.attempt) == ("new", "succeeded", 2)
    assert len([e for e in events(redis_client, "t") if isinstance(e, End)]) == 1


# Limits.


def test_text_is_cut_exactly_at_max_task_bytes(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """To the byte, between characters, warned of once, and the work goes on."""
    with bridge.task("t", settings=settings.with_(max_task_bytes=1024)):
        for _ in range(100):
            assert report_progress("€" * 10)
        report_progress(1.0)
    end = end_of(redis_client, "t")
    assert (end.state, end.truncated, end.length) == ("succeeded", True, {"text": 1023})
    view = read_view(redis_client, "t")
    assert (view.text, view.progress) == ("€" * 341, 1.0)
    assert caplog.text.count("more than max_task_bytes") == 1


def test_a_large_answer_is_whole(settings: Settings, redis_client: redis.Redis) -> None:
    """Megabytes in many calls and in one go arrive in order, in chunks of at most 64 KiB."""
    piece = "".join(chr(0x20 + number % 0x5F) for number in range(997)) + "é\n"
    with bridge.task("t"):
        for _ in range(1000):
            report_progress(piece)
        report_progress(piece * 1000)
    assert read_view(redis_client, "t").text == piece * 2000
    end_of(redis_client, "t")
    assert max(len(e.text.encode()) for e in events(redis_client, "t") if isinstance(e, Chunk)) <= 65_536


def test_fast_loops_are_merged(settings: Settings, redis_client: redis.Redis) -> None:
    """A progress with every turn of a loop becomes a few events."""
    slow = settings.with_(flush_milliseconds=60_000)
    with bridge.task("t", settings=slow):
        for step in range(10_000):
            report_progress(step / 10_000)
    said = [event for event in events(redis_client, "t") if isinstance(event, Progress)]
    assert said[-1].progress == 0.9999
    assert len(said) < 1000


@pytest.mark.parametrize("code", ["worker_lost", "unknown_task"])
def test_the_bridges_own_error_codes_are_refused(code: str) -> None:
    """A worker can't end a task with a code that only the bridge itself gives."""
    with pytest.raises(InvalidEvent, match="the bridge's own"):
        bridge.task("job-1").fail(code, "no")


def test_an_id_that_is_no_string_is_a_clear_error() -> None:
    """The commonest slip, a database key, is named; so is a decorator without an id."""
    with pytest.raises(TypeError, match="a string, not int: 42"):
        bridge.task(42)  # type: ignore[call-overload] # that is the slip
    decorated: Any = bridge.task(str)  # as a bare @bridge.task would
    with pytest.raises(TypeError, match="needs the task's id"):
        decorated("argument")


async def test_a_run_that_nobody_hears_of_has_all_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun when the interpreter shuts down already, it gets no end that could be waited for."""
    monkeypatch.setattr(process, "_shutting_down", lambda _: True)
    task = bridge.task("t", settings=settings).start()
    assert not await task.finish_async()
    assert await task.ended(0)
