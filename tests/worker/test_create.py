from __future__ import annotations

import asyncio

import pytest
import redis

import bridge
from bridge.errors import InvalidInput, InvalidTaskId
from bridge.settings import Settings
from bridge.worker import process
from tests.servers import RedisProcess
from tests.waiting import eventually
from tests.worker.conftest import brisk
from tests.worker.logs import end_of, events, fields, read_view


def test_an_announced_task_is_queued(settings: Settings, redis_client: redis.Redis) -> None:
    """True means that Redis knows the task and its owner; saying it again changes nothing."""
    assert bridge.create_task("t", owner="änn")
    assert bridge.create_task("t", owner="bob")
    assert len(events(redis_client, "t")) == 1
    assert read_view(redis_client, "t").state == "queued"
    assert fields(redis_client, "t")["owner"] == "änn"


async def test_the_async_form_does_not_block(settings: Settings, redis_client: redis.Redis) -> None:
    """Many announcements of one loop wait together."""
    answers = await asyncio.gather(*(bridge.create_task_async(f"t{number}") for number in range(50)))
    assert answers == [True] * 50
    assert len(redis_client.keys("bridge:*:task")) == 50


def test_an_ended_task_is_announced_anew(settings: Settings, redis_client: redis.Redis) -> None:
    """A retry is a new epoch, and its worker's attempt counts on."""
    for _ in range(2):
        assert bridge.create_task("t")
        assert read_view(redis_client, "t").state == "queued"
        with bridge.task("t"):
            bridge.report_progress("x")
        # The announcement has to be younger than the run, in milliseconds.
        began = int(fields(redis_client, "t")["started"])
        eventually(lambda began=began: _now(redis_client) > began)  # type: ignore[misc]  # a default
    assert read_view(redis_client, "t").attempt == 2


def _now(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def test_without_redis_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """False, a line in the log, and no exception; it is there when Redis is, in front of its worker's run."""
    server = RedisProcess()
    bridge.configure(brisk(server.url).with_(create_timeout_seconds=0.05, close_timeout_seconds=0.05))
    assert bridge.create_task("t", owner="ann") is False
    assert "isn't announced yet" in caplog.text
    with bridge.task("t"):
        bridge.report_progress("x")
    with server, server.client() as client:
        assert eventually(lambda: end_of(client, "t")).state == "succeeded"
        assert fields(client, "t")["owner"] == "ann"
        assert read_view(client, "t").text == "x"
        process.reset()


async def test_without_redis_the_async_form_says_false() -> None:
    """The same for a coroutine."""
    server = RedisProcess()
    bridge.configure(brisk(server.url).with_(create_timeout_seconds=0.05))
    assert await bridge.create_task_async("t") is False


def test_what_can_never_work_is_refused(settings: Settings) -> None:
    """Bad ids and owners raise."""
    with pytest.raises(InvalidTaskId):
        bridge.create_task("")
    for owner in ("x" * 1001, "\ud800"):
        with pytest.raises(InvalidInput, match="owner="):
            bridge.create_task("t", owner=owner)
    with pytest.raises(TypeError, match="owner="):
        bridge.create_task("t", owner=5)  # type: ignore[arg-type]  # that is the point


def test_a_refused_announcement_is_given_up(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """When Redis says no for good, it is False and a line in the log."""
    redis_client.set("bridge:{t}:task", "not a hash", ex=100)
    assert bridge.create_task("t") is False
    assert "is not announced" in caplog.text
