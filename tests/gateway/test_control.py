"""Cancelling over HTTP."""

from __future__ import annotations

from bridge.events import State
from tests.gateway.running import Running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

CANCEL = "/tasks/job-1/cancel"


def test_an_unknown_task_can_not_be_cancelled(gateway: Running, writer: Writer) -> None:
    """404, and nothing is remembered for a task that comes later."""
    answer = gateway.post(CANCEL)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    writer.open()
    assert gateway.get("/tasks/job-1/status").json()["cancel_requested"] is False


def test_a_queued_task_ends_at_once(gateway: Running, writer: Writer) -> None:
    """Nobody has begun it, so nobody needs to be asked; who watches sees it end."""
    writer.create()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        answer = gateway.post(CANCEL)
        viewer.to_end()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "id": "job-1",
        "state": "cancelled",
        "cancel_requested": True,
        "position": str(viewer.ids[-1]),
    }
    assert viewer.view.state == "cancelled"


def test_a_running_task_is_asked(gateway: Running, writer: Writer) -> None:
    """The flag is set, the position changes with it so that long polls see it, and the worker is told."""
    before = writer.open().text("a").position
    with watch(gateway) as viewer:
        viewer.text_is("a")
        body = gateway.post(CANCEL).json()
        viewer.until(lambda v: v.view.cancel_requested)
        assert isinstance(viewer.events[-1], State)
        assert body["state"] == "running"
        assert body["position"] == str(viewer.ids[-1]) != str(before)
    assert writer.text("b").cancel_requested
    assert gateway.get("/tasks/job-1/status").json()["cancel_requested"] is True


def test_cancelling_again_changes_nothing(gateway: Running, writer: Writer) -> None:
    """The second request gets the same answer as the first."""
    writer.open()
    assert gateway.post(CANCEL).json() == gateway.post(CANCEL).json()


def test_cancelling_after_the_end_is_no_error(gateway: Running, writer: Writer) -> None:
    """It says how the task ended, and that nobody asked it to."""
    writer.open()
    writer.end()
    answer = gateway.post(CANCEL)
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["cancel_requested"]) == ("succeeded", False)


def test_a_disconnect_never_cancels(gateway: Running, writer: Writer) -> None:
    """When the last one who watched has left, the task runs on."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
    eventually(lambda: gateway.followers() == 0)
    assert not writer.text("a").cancel_requested


def test_only_post_cancels(gateway: Running, writer: Writer) -> None:
    """A link that is followed, or fetched ahead, cancels nothing."""
    writer.open()
    answer = gateway.get(CANCEL)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert not writer.text("a").cancel_requested
