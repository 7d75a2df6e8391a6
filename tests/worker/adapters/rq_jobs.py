"""Jobs as users have them, run by real RQ workers."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import redis
import rq
from rq.job import get_current_job

import bridge
from bridge import report_progress

WORDS = ["Nothing ", "lost, ", "nothing ", "twice. ", "Übrigens: ", "🚲"]


def _step() -> bool:
    """Wait for the test to let this job go on; whether it did before somebody asked to stop."""
    job = get_current_job()
    assert job is not None
    steer = redis.Redis.from_url(os.environ["SHOP_REDIS"] + "/3")
    while report_progress():
        if steer.lpop(job.id) is not None:
            return True
        time.sleep(0.005)
    return False


def speak(words: list[str]) -> str:
    """One report per word."""
    for word in words:
        report_progress(word)
    return "".join(words)


async def speak_async(words: list[str]) -> str:
    """The same as a coroutine."""
    return speak(words)


def long(total: int) -> str:
    """Goes on when the test says so."""
    text = ""
    for word in WORDS[:total]:
        text += word
        report_progress(word)
        if not _step():
            break
    return text


def fail() -> None:
    """Says something first."""
    report_progress("partial")
    raise ValueError("no such product")


def shaky() -> str:
    """Fails at first."""
    task = bridge.current_task()
    assert task is not None
    report_progress("try ")
    if redis.Redis.from_url(os.environ["SHOP_REDIS"] + "/3").incr(f"tries:{task.id}") == 1:
        raise ConnectionError("shaky")
    return "came through"


def again(times: int) -> rq.Retry:
    """Never gets anywhere."""
    report_progress("not yet")
    return rq.Retry(max=times)


def returns_date() -> datetime:
    """No JSON."""
    return datetime(2026, 1, 1, tzinfo=UTC)


def dies() -> None:
    """As when memory runs out."""
    report_progress("begun")
    _step()
    os.kill(os.getpid(), signal.SIGKILL)


def schedules() -> Any:
    """Schedules another job, and is over at once."""
    from bridge.worker.adapters.rq import Queue

    job = get_current_job()
    assert job is not None
    return Queue(job.origin, connection=job.connection).enqueue(speak, WORDS).id
