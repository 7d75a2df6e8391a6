"""Real workers of real queues as processes, for as long as a module's tests need them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import environ
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
START_SECONDS = 40.0
"""A worker imports much; on a busy machine that takes its time."""
HUNG_SECONDS = 30.0
"""A task that isn't done by then never will be. Celery looks for dead children only every five seconds."""


class WorkerProcess:
    """One worker and its children. What it says goes into a file, which a failing test can show."""

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=environ(**env),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        def there() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"the worker ended:\n{self.said()}")
            return words in self.said()

        eventually(there, timeout=START_SECONDS)

    def stop(self) -> int:
        """Ask it to end in order, and wait until it has; its status."""
        self._process.terminate()
        return self._process.wait(START_SECONDS)

    def kill(self) -> None:
        """It and all its children, at once."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def worker(arguments: list[str], log: Path, ready: str, **env: str) -> Iterator[WorkerProcess]:
    """``python -m arguments…``, from when it has said `ready`. With the block it is killed: to end in order
    takes a worker of Celery three seconds. Nothing of ours may have gone wrong in it.
    """
    process = WorkerProcess(arguments, log, env)
    try:
        process.wait_for(ready)
        yield process
    finally:
        process.kill()
    for complaint in ("Signal handler", "an error of its own", "the bridge has an error"):
        assert complaint not in process.said()
