"""What is told of tasks by those who don't run them."""

from __future__ import annotations

import pytest
import redis

import bridge
from bridge.errors import InvalidTaskId
from bridge.settings import Settings
from bridge.worker import process
from bridge.worker.notice import Notice, cancelled, concluded, scheduled
from bridge.worker.outcome import Ending, failure
from tests.worker.logs import end_of, read_view


def send(*notices: Notice) -> None:
    """Hand them in, and wait until Redis was told."""
    for notice in notices:
        assert process.notify(notice, process.current_settings())
        assert notice.done.wait(8)


def test_a_scheduled_task_is_queued(settings: Settings, redis_client: redis.Redis) -> None:
    """Nobody waits for that, and nobody owns it."""
    send(scheduled("t"))
    assert read_view(redis_client, "t").state == "queued"


def test_a_late_word_of_the_schedule_begins_nothing_anew(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """A queue may have the task done before its announcement has arrived."""
    with bridge.task("t"):
        bridge.report_progress("done")
    send(scheduled("t"))
    assert (read_view(redis_client, "t").state, read_view(redis_client, "t").text) == ("succeeded", "done")


def test_a_cancel_reaches_who_has_the_task(settings: Settings, redis_client: redis.Redis) -> None:
    """As one through the gateway does."""
    with bridge.task("t") as task:
        assert task.wait_begun(8)
        send(cancelled("t"))
        while bridge.report_progress():
            pass
    assert end_of(redis_client, "t").state == "cancelled"


@pytest.mark.parametrize("message", ['it said "no"\n', "\\", "\x00é🚲", "x" * 5000])
def test_a_supervisor_says_how_its_worker_ended(
    settings: Settings, redis_client: redis.Redis, message: str
) -> None:
    """Whatever the message is, it comes out as it went in, within its limits."""
    # A worker that lives, as this one does, takes such an end back when it hears of it.
    deaf = settings.with_(cancel_check_seconds=600, lease_seconds=1800)
    task = bridge.Task("t", deaf, bind=False, place="here/7/").start()
    assert task.wait_begun(8)
    error = failure("worker_lost", message)
    send(concluded("t", "elsewhere/7/", Ending("cancelled")))
    send(concluded("t", "here/7/", Ending("failed", error)))
    assert end_of(redis_client, "t").error == error
    task.buffer.leave_behind()


def test_a_bad_id_is_refused() -> None:
    """At once, where it was passed."""
    with pytest.raises(InvalidTaskId):
        scheduled("a/b")
