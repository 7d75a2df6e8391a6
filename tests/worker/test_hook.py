from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import redis

import bridge
from bridge import report_progress
from bridge.errors import InvalidEvent
from bridge.settings import Settings
from tests.worker.logs import as_json, end_of, events, read_view


def test_text_is_appended(settings: Settings, redis_client: redis.Redis) -> None:
    """A string is appended to the main text, with field= to that field."""
    with bridge.task("t"):
        assert report_progress("Hello ")
        assert report_progress("hm… ", field="reasoning")
        assert report_progress("wörld")
        assert report_progress("yes", field="reasoning")
        assert report_progress("!", field="text")
    view = read_view(redis_client, "t")
    assert (view.text, view.fields) == ("Hello wörld!", {"reasoning": "hm… yes"})


def test_a_fraction_and_a_status_line_keep_each_other(settings: Settings, redis_client: redis.Redis) -> None:
    """A fraction alone keeps the last message, a message alone the last fraction."""
    with bridge.task("t"):
        report_progress(0.4, message="reading")
        report_progress(0.5)
    assert (read_view(redis_client, "t").progress, read_view(redis_client, "t").message) == (0.5, "reading")
    with bridge.task("u"):
        report_progress(0.4)
        report_progress(message="writing")
    assert (read_view(redis_client, "u").progress, read_view(redis_client, "u").message) == (0.4, "writing")


def test_data_is_what_it_was_when_it_was_reported(settings: Settings, redis_client: redis.Redis) -> None:
    """A named value is any JSON value; changing it afterwards changes nothing; the latest wins."""
    sources: list[Any] = [{"url": "a"}, None, 1.5, "\ud800"]
    with bridge.task("t"):
        report_progress(name="sources", value=[])
        report_progress(sources, name="sources")
        sources.append("later")
        report_progress(name="nothing", value=None)
    view = read_view(redis_client, "t")
    assert view.data == {"sources": [{"url": "a"}, None, 1.5, "\N{REPLACEMENT CHARACTER}"], "nothing": None}


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_reports_nothing(settings: Settings, redis_client: redis.Redis, value: str | None) -> None:
    """None and empty text, which streams of models hold, add no event; nor does a call without arguments."""
    with bridge.task("t"):
        assert report_progress(value)
        assert report_progress(value, field="reasoning")
        assert report_progress()
    end_of(redis_client, "t")
    assert kinds(redis_client) == ["state", "end"]


def kinds(client: redis.Redis) -> list[str]:
    """The kinds of the events in the log."""
    return [event.kind for event in events(client, "t")]


def test_half_characters_are_replaced(settings: Settings, redis_client: redis.Redis) -> None:
    """Lone surrogates in text and status lines become U+FFFD, also where two halves meet."""
    with bridge.task("t"):
        report_progress("a\ud83d")
        report_progress("\ude00b")
        report_progress(message="\udcff")
    view = read_view(redis_client, "t")
    assert view.text == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"
    assert view.message == "\N{REPLACEMENT CHARACTER}"


class _Text(str):
    """Like what template engines hand out."""


class _Fraction(float):
    """Like numpy's float64."""


def test_subclasses_are_taken_as_what_they_are(settings: Settings, redis_client: redis.Redis) -> None:
    """A subclass of str is text, one of float is a fraction, and -0.0 is 0.0."""
    with bridge.task("t"):
        report_progress(_Text("x"))
        report_progress(_Fraction(0.25))
        report_progress(-0.0)
    view = read_view(redis_client, "t")
    assert (view.text, view.progress, str(view.progress)) == ("x", 0.0, "0.0")


WRONG: dict[str, tuple[Callable[..., bool], type[Exception], str]] = {
    "int": (lambda r: r(40), TypeError, "int 40 could mean"),
    "one": (lambda r: r(1), TypeError, "float from 0.0 to 1.0"),
    "bool": (lambda r: r(True), TypeError, "bool True could mean"),
    "huge int": (lambda r: r(10**5000), TypeError, "int could mean"),
    "bytes": (lambda r: r(b"x"), TypeError, "decode them"),
    "decimal": (lambda r: r(Decimal("0.5")), TypeError, "not Decimal"),
    "dict": (lambda r: r({}), TypeError, "with name="),
    "above": (lambda r: r(1.01), InvalidEvent, "0.0 to 1.0"),
    "below": (lambda r: r(-0.01), InvalidEvent, "0.0 to 1.0"),
    "percent": (lambda r: r(40.0), InvalidEvent, "got 40.0"),
    "nan": (lambda r: r(float("nan")), InvalidEvent, "got nan"),
    "infinite": (lambda r: r(float("inf")), InvalidEvent, "got inf"),
    "text and message": (lambda r: r("x", message="y"), TypeError, "once for each"),
    "fraction and field": (lambda r: r(0.5, field="x"), TypeError, "names the field of a text"),
    "message is no text": (lambda r: r(message=5), TypeError, "message= must be"),
    "name without value": (lambda r: r(name="x"), TypeError, "needs value="),
    "name and message": (lambda r: r(name="x", value=1, message="y"), TypeError, "goes with value="),
    "name and field": (lambda r: r(name="x", value=1, field="y"), TypeError, "goes with value="),
    "name is no text": (lambda r: r(name=5, value=1), TypeError, "name= must be a string"),
    "empty name": (lambda r: r(name="", value=1), InvalidEvent, "1-100 printable"),
    "long name": (lambda r: r(name="x" * 101, value=1), InvalidEvent, "1-100 printable"),
    "control character": (lambda r: r("x", field="a\nb"), InvalidEvent, "1-100 printable"),
    "half a character": (lambda r: r("x", field="\ud800"), InvalidEvent, "1-100 printable"),
    "empty field": (lambda r: r("x", field=""), InvalidEvent, "1-100 printable"),
    "nan in data": (lambda r: r(name="x", value=[float("nan")]), InvalidEvent, "not JSON"),
    "object in data": (lambda r: r(name="x", value=object()), InvalidEvent, "not JSON"),
    "key in data": (lambda r: r(name="x", value={(1,): 2}), InvalidEvent, "not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(settings: Settings, redis_client: redis.Redis, case: str) -> None:
    """What can never be reported raises an error that says what to do, inside and outside a task."""
    attempt, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        attempt(report_progress)
    with bridge.task("t") as task:
        with pytest.raises(error, match=message):
            attempt(report_progress)
        with pytest.raises(error, match=message):
            attempt(task.report_progress)
    assert kinds(redis_client) == ["state", "end"]


def test_a_long_status_line_is_cut(settings: Settings, redis_client: redis.Redis) -> None:
    """A status line has at most 1,000 characters; more is no error."""
    with bridge.task("t"):
        report_progress(message="x" * 5000)
    assert read_view(redis_client, "t").message == "x" * 999 + "…"


def test_outside_any_task_it_does_nothing() -> None:
    """Library code can always call the hook; the answer is True, and no pump is started."""
    assert report_progress("x")
    assert report_progress(0.5, message="y")
    assert report_progress(name="a", value=[1])
    assert not [thread for thread in threading.enumerate() if thread.name == "bridge-pump"]


def test_an_unbound_call_beside_open_tasks_warns_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that doesn't know its task is told so, once per process."""

    def work() -> None:
        assert report_progress("lost")

    with caplog.at_level(logging.WARNING), bridge.task("t"):
        for _ in range(3):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    assert caplog.text.count("outside any task") == 1


def test_the_handle_works_where_the_context_does_not_reach(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Threads and executors report through the task's handle, and each one's order is kept."""
    with bridge.task("t") as task, ThreadPoolExecutor(4) as pool:

        def work(number: int) -> None:
            for step in range(200):
                assert task.report_progress(f"{step} ", field=f"f{number}")

        list(pool.map(work, range(4)))
    expected = "".join(f"{step} " for step in range(200))
    assert read_view(redis_client, "t").fields == {f"f{number}": expected for number in range(4)}


async def test_asyncio_tasks_have_their_own(settings: Settings, redis_client: redis.Redis) -> None:
    """Tasks of one loop report each to its own; to_thread and child tasks take it along."""

    async def work(number: int) -> None:
        async with bridge.task(f"t{number}") as task:
            assert bridge.current_task() is task
            report_progress("a")
            await asyncio.sleep(0)
            await asyncio.to_thread(report_progress, "b")
            await asyncio.create_task(_report_async(f"c{number}"))
        assert bridge.current_task() is None

    await asyncio.gather(*(work(number) for number in range(10)))
    for number in range(10):
        assert read_view(redis_client, f"t{number}").text == f"abc{number}"


async def _report_async(text: str) -> None:
    report_progress(text)


def test_nested_tasks_give_the_binding_back(settings: Settings, redis_client: redis.Redis) -> None:
    """Inside a task another may run; afterwards the hook reports to the outer one again."""
    with bridge.task("outer") as outer:
        report_progress("1")
        with bridge.task("inner"):
            report_progress("2")
        assert bridge.current_task() is outer
        report_progress("3")
    assert bridge.current_task() is None
    assert read_view(redis_client, "outer").text == "13"
    assert read_view(redis_client, "inner").text == "2"


def test_data_survives_the_way(settings: Settings, redis_client: redis.Redis) -> None:
    """Values come back as JSON gives them: tuples as lists, number keys as strings."""
    value = {"a": (1, 2), 3: "x", "deep": {"er": [True, None, -1e300]}}
    with bridge.task("t"):
        report_progress(name="v", value=value)
    assert read_view(redis_client, "t").data["v"] == as_json(value)
