"""A Celery app as users have it, run by real workers. The bridge is one line in it, or isn't there at all."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

import redis
from celery import Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

import bridge
from bridge import report_progress
from bridge.worker.adapters.celery import install

WORDS = ["Nothing ", "lost, ", "nothing ", "twice. ", "Übrigens: ", "🚲"]
LIMIT_SECONDS = 2.0


def make_app(url: str, *, bridged: bool = True) -> Celery:
    """The app. Its broker, its results and what tests steer it with have databases of one server."""
    app = Celery("shop", broker=f"{url}/1", backend=f"{url}/2", set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        result_extended=True,
        task_acks_late=False,
        # After so many seconds the message of a killed worker comes back.
        broker_transport_options={"visibility_timeout": float(os.environ.get("SHOP_VISIBILITY", "3600"))},
        task_remote_tracebacks=False,
    )
    if bridged:
        install(app)
    define(app, redis.Redis.from_url(f"{url}/3"))
    app.finalize()

    @app.task(name="late", shared=False)
    def late(words: list[str]) -> str:
        """Defined when the app counts as complete already."""
        return str(app.tasks["speak"](words))

    return app


def define(app: Celery, steer: redis.Redis) -> None:
    """The tasks. Not shared: they would become those of every other app in the process."""
    task = functools.partial(app.task, shared=False)

    def step(name: str) -> bool:
        """Wait for the test to let it go on; whether it did before somebody asked to stop."""
        while report_progress():
            if steer.lpop(name) is not None:
                return True
            time.sleep(0.005)
        return False

    @task(name="speak")
    def speak(words: list[str]) -> str:
        for word in words:
            report_progress(word)
        return "".join(words)

    @task(name="long", bind=True)
    def long_task(self: Any, total: int) -> dict[str, Any]:
        """The one of a thousand tutorials; it also says what it does."""
        text = ""
        for i in range(total):
            self.update_state(state="PROGRESS", meta={"current": i, "total": total, "status": f"step {i}"})
            text += WORDS[i]
            report_progress(WORDS[i])
            if not step(self.request.id):
                break
        return {"current": total, "total": total, "status": "Task completed!", "result": text}

    @task(name="fail")
    def fail() -> None:
        report_progress("partial")
        raise ValueError("no such product")

    @task(name="retried", bind=True, autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0)
    def retried(self: Any, succeed_at: int) -> str:
        report_progress(f"try {self.request.retries} ")
        if self.request.retries < succeed_at:
            raise ConnectionError("shaky")
        step(self.request.id)
        return f"try {self.request.retries} "

    @task(name="postponed", bind=True)
    def postponed(self: Any, seconds: float) -> None:
        report_progress("so far")
        raise self.retry(countdown=seconds)

    @task(name="replaced", bind=True)
    def replaced(self: Any) -> None:
        report_progress("mine")
        raise self.replace(app.signature("speak", args=(WORDS,)))

    @task(name="ignored", bind=True)
    def ignored(self: Any, state: str | None) -> None:
        if state:
            self.update_state(state=state, meta={"by": "hand"})
        raise Ignore("enough")

    @task(name="rejected", bind=True, acks_late=True)
    def rejected(self: Any, requeue: bool) -> str:
        if self.request.delivery_info["redelivered"]:
            return "second time"
        raise Reject("not now", requeue=requeue)

    @task(name="returns")
    def returns(kind: str) -> Any:
        report_progress("x")
        return {"date": datetime(2026, 1, 1, tzinfo=UTC), "tuple": ("a", 1), "large": "x" * 3_000_000}[kind]

    @task(name="says", bind=True)
    def says(self: Any) -> str:
        me = bridge.current_task()
        assert me is not None
        me.succeed(result={"id": me.id, "same": self.request.id == me.id}, usage={"output_tokens": 3})
        return "for Celery"

    # No limit may strike before the work has begun, and written what it says then.
    @task(name="soft", soft_time_limit=LIMIT_SECONDS)
    def soft(handle: bool) -> str:
        report_progress("begun")
        try:
            step("never")
        except SoftTimeLimitExceeded:
            if handle:
                return "in time"
            raise
        return "not limited"

    @task(name="hard", time_limit=LIMIT_SECONDS)
    def hard() -> None:
        report_progress("begun")
        step("never")

    @task(name="exits")
    def exits() -> None:
        report_progress("begun")
        sys.exit(3)

    @task(name="dies", bind=True)
    def dies(self: Any) -> None:
        report_progress("begun")
        step(self.request.id)
        os.kill(os.getpid(), signal.SIGKILL)

    @task(name="dies_once", bind=True, acks_late=True, reject_on_worker_lost=True)
    def dies_once(self: Any) -> str:
        report_progress("begun ")
        step(self.request.id)
        if not self.request.delivery_info["redelivered"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return "came through"

    @task(name="parent")
    def parent() -> list[str]:
        """Schedules another task, and is over at once."""
        report_progress("p")
        return [app.send_task("speak", args=(WORDS,)).id]

    @task(name="add")
    def add(x: int, y: int) -> int:
        report_progress(str(x + y))
        return x + y

    @task(name="total")
    def total(numbers: list[int]) -> int:
        report_progress("sum")
        return sum(numbers)


if "SHOP_REDIS" in os.environ:
    app = make_app(os.environ["SHOP_REDIS"], bridged=os.environ.get("SHOP_BRIDGED", "1") == "1")
