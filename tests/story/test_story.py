"""The bridge in ten short tests, to be read from the top.

A worker does some long work and reports what it has so far. A gateway shows it to everybody who asks: as a
stream to those who want to watch, as JSON to those who poll. Redis stands between the two and keeps it all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import bridge
from bridge import report_progress
from bridge.client import Client
from tests.waiting import eventually


def test_a_reader_watches_while_the_worker_writes(client: Client) -> None:
    """Inside `bridge.task`, work calls `report_progress` for every piece of text, and whoever follows the
    task has it at once; leaving the block ends the task, and with it the stream.
    """
    views = client.follow("greeting")
    with bridge.task("greeting"):
        report_progress("Hello")
        assert next(view for view in views if view.text == "Hello").state == "running"
        report_progress(", world")
        assert next(view for view in views if view.text == "Hello, world").state == "running"
    *_, last = views
    assert last.state == "succeeded"


def test_polls_see_the_same(gateway: str, client: Client) -> None:
    """The app announces a task with `create_task`, and clients that can only poll `/status` see it queued,
    see its text grow, and in the end see exactly what those see who follow it.
    """

    def poll() -> Any:
        return httpx.get(f"{gateway}/tasks/report/status").json()

    bridge.create_task("report")
    assert poll()["state"] == "queued"
    with bridge.task("report"):
        report_progress("Once upon a time")
        eventually(lambda: poll()["text"] == "Once upon a time")
    *_, followed = client.follow("report")
    assert poll() == followed.as_dict()


def test_coming_late(client: Client) -> None:
    """Who comes late gets everything so far, and cheaply: neighbouring pieces of text arrive as one event."""
    with bridge.task("tale"):
        for letter in "a long tale, letter by letter":
            report_progress(letter)
    kinds = [event.kind for _, event in client.events("tale")]
    assert kinds == ["state", "chunk", "end"]
    *_, view = client.follow("tale")
    assert view.text == "a long tale, letter by letter"


def test_coming_back(client: Client) -> None:
    """Every event has a position. Who was away resumes behind the last one seen, and gets what was missed:
    nothing is lost, and nothing comes twice.
    """
    with bridge.task("novel"):
        report_progress("It was a dark ")
        views = client.follow("novel")
        seen = next(view for view in views if view.text).position
        views.close()
        report_progress("and stormy night.")
    *_, missed = client.follow("novel", after=seen)
    assert missed.text == "and stormy night."


def test_more_than_text(client: Client) -> None:
    """Beside its text a task has progress, a status line, further texts, and data under names of its own; and
    the end may carry a result.
    """
    with bridge.task("answer") as task:
        report_progress(0.4, message="reading")
        report_progress("Hm, six times nine…", field="reasoning")
        report_progress(name="sources", value=["deep-thought.example"])
        report_progress("It is 42.")
        task.succeed(result={"answer": 42}, usage={"years": 7_500_000})
    status = client.status("answer")
    assert (status["progress"], status["message"]) == (0.4, "reading")
    assert (status["text"], status["fields"]) == ("It is 42.", {"reasoning": "Hm, six times nine…"})
    assert status["data"] == {"sources": ["deep-thought.example"]}
    assert (status["result"], status["usage"]) == ({"answer": 42}, {"years": 7_500_000})


def test_stopping(client: Client) -> None:
    """Anybody may ask a task to stop. The worker learns of it from `report_progress`, which returns False,
    and what it wrote until then stays.
    """
    views = client.follow("endless")
    with bridge.task("endless"):
        assert report_progress("One, two, three")
        assert next(view for view in views if view.text).state == "running"
        client.cancel("endless")
        eventually(lambda: not report_progress())
    *_, last = views
    assert (last.state, last.text) == ("cancelled", "One, two, three")


def test_failing(client: Client) -> None:
    """Work that raises fails its task: readers get the error and keep the text, and the exception goes on its
    way as if the bridge weren't there.
    """

    @bridge.task("division")
    def divide() -> float:
        report_progress("One divided by zero is ")
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        divide()
    status = client.status("division")
    assert status["state"] == "failed"
    assert status["error"] == {"code": "ZeroDivisionError", "message": "division by zero"}
    assert status["text"] == "One divided by zero is "


def test_trying_again(client: Client) -> None:
    """When a queue gives a task to a second worker, the second attempt takes over: readers start afresh with
    its text, and the first worker is told to stop.
    """
    views = client.follow("poem")
    with bridge.task("poem") as first:
        first.report_progress("Roses are blue")
        assert next(view for view in views if view.text).attempt == 1
        with bridge.task("poem") as second:
            second.report_progress("Roses are red")
            assert next(view for view in views if view.text == "Roses are red").attempt == 2
            eventually(lambda: not first.report_progress(", violets are red"))
    *_, last = views
    assert (last.state, last.text) == ("succeeded", "Roses are red")


def test_a_worker_dies(client: Client, start_worker: Callable[[str], subprocess.Popen[bytes]]) -> None:
    """A worker that vanishes can't end its task, but its lease runs out and the gateway does: nobody waits
    for ever, and nothing that was written is lost.
    """
    worker = start_worker(
        "import bridge, signal\n"
        "with bridge.task('will'):\n"
        "    bridge.report_progress('I leave everything to ')\n"
        "    signal.pause()\n"
    )
    views = client.follow("will")
    assert next(view for view in views if view.text).state == "running"
    worker.kill()
    *_, last = views
    assert (last.state, last.text) == ("failed", "I leave everything to ")
    assert last.error is not None
    assert last.error["code"] == "worker_lost"


def test_a_crowd_costs_one_read(client: Client, reads_of_the_log: Callable[[], int]) -> None:
    """However many follow a task, the gateway reads its log in Redis once and hears what is new once."""
    bridge.create_task("concert")
    with bridge.task("concert"):
        report_progress("La ")
        crowd = [client.follow("concert") for _ in range(50)]
        assert all(next(view for view in views if view.text).text == "La " for views in crowd)
        report_progress("la la")
    assert [[view.text for view in views][-1] for views in crowd] == ["La la la"] * 50
    assert reads_of_the_log() == 1
