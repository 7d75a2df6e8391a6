"""Starts the demonstration's workers, sees them end, and retries what was lost: the part of a task queue.

Rules
-----
1. **A process per task**, tied to this one's life by a pipe that only we hold: it ends when we do, however.
2. **Bounded.** At most `MAX_TASKS` are under way, and the latest `REMEMBERED` are remembered.
3. **A worker that dies is noticed by its exit status; that its task is lost is the bridge's to say.** So the
   retry waits until the lease has run out, `RETRY_SECONDS` more, and then begins a new attempt of the same
   id. There are at most `MAX_ATTEMPTS`: a worker that can't even start doesn't do so for ever. A task that
   was asked to stop isn't retried; only the endless one has always a next round.
4. **Everything is reaped.** Each task has a thread that waits for its process; leaving the block closes the
   pipes, kills what doesn't end then, and waits for all threads.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

from bridge.cli.demo.kinds import ENDLESS
from bridge.errors import StoreError
from bridge.settings import Settings
from bridge.store.writer import Writer

MAX_TASKS: Final = 8
MAX_ATTEMPTS: Final = 5
REMEMBERED: Final = 100
RETRY_SECONDS: Final = 2.0
LEASE_SECONDS: Final = 3.0
"""Short, so that a killed worker is seen to be lost soon."""

_LOOK_SECONDS: Final = 0.25
_END_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 3.0
"""So long a worker insists on a task's end. It must be less than what it gets when all is over."""


class TooManyTasks(Exception):
    """As many tasks are under way as may be."""


@dataclass(slots=True)
class Job:
    """A task that was started here. `state` is "running", "retrying" (its worker died) or "over"."""

    task_id: str
    kind: str
    attempt: int = 1
    state: Literal["running", "retrying", "over"] = "running"
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None

    def as_dict(self) -> dict[str, object]:
        """What the page may know of it."""
        return {"id": self.task_id, "kind": self.kind, "attempt": self.attempt, "state": self.state}


@dataclass(slots=True)
class Workers:
    """All workers of a demonstration. A context manager; its methods may be called from any thread."""

    settings: Settings
    _jobs: dict[str, Job] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            if job.process is not None and job.process.stdin is not None:
                job.process.stdin.close()
        end = time.monotonic() + _END_SECONDS
        for job in jobs:
            assert job.thread is not None
            job.thread.join(max(end - time.monotonic(), 0))
            if job.thread.is_alive() and job.process is not None:
                job.process.kill()
            job.thread.join()

    def start(self, kind: str, task_id: str | None = None) -> Job:
        """Start a task of a kind; its id is made up. Raises `TooManyTasks`."""
        job = Job(task_id or f"{kind}-{secrets.token_hex(4)}", kind)
        with self._lock:
            under_way = [
                each for each in self._jobs.values() if each.state != "over" and each.kind != ENDLESS
            ]
            if len(under_way) >= MAX_TASKS and kind != ENDLESS:
                raise TooManyTasks
            self._jobs[job.task_id] = job
            self._forget()
            job.thread = threading.Thread(target=self._care_for, args=(job,), name=f"worker of {job.task_id}")
            job.thread.start()
        return job

    def get(self, task_id: str) -> Job | None:
        """The task that was started here with this id."""
        with self._lock:
            return self._jobs.get(task_id)

    def kill(self, job: Job) -> bool:
        """Kill a task's worker (SIGKILL) as a crash would; False when none is running."""
        with self._lock:
            if job.process is None or job.state != "running" or job.process.poll() is not None:
                return False
            job.process.kill()
            return True

    def _forget(self) -> None:
        """Rule 2: the oldest go that are over."""
        over = [each.task_id for each in self._jobs.values() if each.state == "over"]
        for task_id in over[: max(len(self._jobs) - REMEMBERED, 0)]:
            del self._jobs[task_id]

    def _care_for(self, job: Job) -> None:
        """A task's thread: from its first worker to the end of its last."""
        try:
            while self._run(job) and self._lost(job) and job.attempt < MAX_ATTEMPTS:
                job.attempt += 1
        finally:
            job.state = "over"

    def _run(self, job: Job) -> bool:
        """Run a worker to its end; whether it died."""
        with self._lock:
            if self._closing.is_set():
                return False
            job.process = process = self._popen(job)
            job.state = "running"
        status = process.wait()
        with self._lock:
            assert process.stdin is not None
            process.stdin.close()
            died = status != 0 and not self._closing.is_set()
            job.state = "retrying" if died and job.attempt < MAX_ATTEMPTS else "over"
        return died

    def _popen(self, job: Job) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "BRIDGE_REDIS_URL": self.settings.redis_url,
            "BRIDGE_LEASE_SECONDS": str(self.settings.lease_seconds),
            # When it ends, Redis may have gone before it; and it isn't waited for any longer.
            "BRIDGE_CLOSE_TIMEOUT_SECONDS": str(_CLOSE_SECONDS),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "bridge.cli.demo.worker", job.kind, job.task_id],
            # Nothing is ever written: that the pipe closes is the message.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environ,
            # A Ctrl-C is for us; it is told when its time has come.
            start_new_session=True,
        )

    def _lost(self, job: Job) -> bool:
        """Wait for the bridge's word on a task whose worker died; whether it wants a retry (rule 3)."""
        writer = Writer(self.settings)
        try:
            while not self._closing.wait(_LOOK_SECONDS):
                try:
                    # Redis runs on this machine, so its clock is ours. It ends the task if nobody else has.
                    call = writer.calls.expire(job.task_id, sent_at=int(time.time() * 1000))
                    (answer,) = writer.send([call])
                except StoreError:
                    continue
                if isinstance(answer, StoreError) or answer.state == "running":
                    continue
                # One that is queued still was never begun, and can be at once.
                lost = answer.state == "queued" or answer.code == "worker_lost"
                # The endless one's may also have died between two rounds, when there was nothing to be lost.
                wanted = job.kind == ENDLESS or (lost and not answer.cancel_requested)
                return wanted and not self._closing.wait(RETRY_SECONDS)
            return False
        finally:
            writer.disconnect()
