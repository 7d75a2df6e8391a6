"""What a task offers to those who run other people's functions: the adapters of task queues."""

from __future__ import annotations

from typing import Any

import pytest
import redis

import bridge
from bridge import report_progress
from bridge.settings import Settings
from bridge.worker import process
from tests.servers import free_port
from tests.waiting import eventually
from tests.worker.conftest import brisk
from tests.worker.logs import call, end_of, read_view


@pytest.mark.parametrize("value", [{"a": 1}, None])
def test_what_the_work_returned_is_the_result(
    settings: Settings, redis_client: redis.Redis, value: Any
) -> None:
    """It decides nothing about how the task ends, and what the work has said itself goes before it."""
    with bridge.task("t") as task:
        task.returned(value)
    assert (end_of(redis_client, "t").state, end_of(redis_client, "t").result) == ("succeeded", value)
    with bridge.task("u") as task:
        task.fail("quota", "used up")
        task.returned(value)
    assert end_of(redis_client, "u").error == {"code": "quota", "message": "used up"}


def test_a_returned_value_that_is_no_json_is_left_out(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """That is no error of the work's, and worth no more than a word to who looks for it."""
    with caplog.at_level("DEBUG", logger="bridge"):
        with bridge.task("t") as task:
            task.returned({1, 2})
    assert (end_of(redis_client, "t").state, end_of(redis_client, "t").result) == ("succeeded", None)
    assert "what it returned is left out" in caplog.text


def test_a_task_can_be_given_back(settings: Settings, redis_client: redis.Redis) -> None:
    """The run ends, whatever is raised; the task waits with its text, and the next run begins anew."""
    task = bridge.task("t").start()
    report_progress("first")
    task.requeue()
    assert task.finish(ValueError("again"))
    view = read_view(redis_client, "t")
    assert (view.state, view.text, view.attempt) == ("queued", "first", 1)
    with bridge.task("t"):
        report_progress("second")
    view = read_view(redis_client, "t")
    assert (view.state, view.text, view.attempt) == ("succeeded", "second", 2)


def test_who_gives_a_task_back_is_not_alarmed_by_the_next(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A queue may be quicker than the pump: then another attempt has the task already, as was meant."""
    # It hears of the other one only when it has been given back itself.
    deaf = settings.with_(cancel_check_seconds=600, lease_seconds=1800)
    first = bridge.task("t", settings=deaf, bind=False).start()
    assert first.wait_begun(8)
    with bridge.task("t"):
        report_progress("second")
    first.requeue()
    first.finish()
    assert end_of(redis_client, "t").state == "succeeded"
    assert "taken over" not in caplog.text


def test_waiting_for_the_begin_tells_of_a_cancel(settings: Settings, redis_client: redis.Redis) -> None:
    """So the work needn't begin; otherwise Redis knows of the run by then."""
    task = bridge.task("t", bind=False).start()
    assert task.wait_begun(8)
    assert read_view(redis_client, "t").state == "running"
    task.finish()
    bridge.create_task("u")
    call(settings, "cancel", "u")
    task = bridge.task("u", bind=False).start()
    assert not task.wait_begun(8)
    task.finish()
    assert read_view(redis_client, "u").attempt == 0


def test_nothing_waits_for_the_begin_without_redis() -> None:
    """Once it is known to be away the work goes first."""
    away = brisk(f"redis://127.0.0.1:{free_port()}/0").with_(close_timeout_seconds=0.05)
    bridge.task("t", settings=away).start().finish()
    eventually(lambda: process.away(away))
    task = bridge.task("u", settings=away).start()
    assert task.wait_begun(1000)
    task.finish(wait=False)


def test_an_end_needs_nobody_to_wait_for_it(settings: Settings, redis_client: redis.Redis) -> None:
    """Without `wait` it is sent all the same, at the latest when the process ends."""
    for number in range(50):
        bridge.task(f"t{number}", bind=False).start().finish(wait=False)
    process.flush()
    assert all(end_of(redis_client, f"t{number}").state == "succeeded" for number in range(50))
