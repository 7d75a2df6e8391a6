"""`bridge demo` as a process, for tests that look at it from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.processes import program
from tests.servers import free_port
from tests.waiting import DEADLINE_SECONDS


class Demo:
    """A running `bridge demo`, and what it printed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.printed: list[str] = []
        for line in process.stdout:
            self.printed.append(line.decode().strip())
            if self.printed[-1].startswith("Ctrl-C"):
                break
        else:
            raise AssertionError(process.stderr.read().decode())

    def line(self, start: str) -> str:
        """The rest of the first line that begins so."""
        return next(line.removeprefix(start) for line in self.printed if line.startswith(start))

    @property
    def url(self) -> str:
        """The gateway's address, without a slash at its end."""
        return self.line("gateway  ")

    def get(self, path: str) -> httpx.Response:
        """Ask for a path below the gateway's address."""
        return httpx.get(self.url + path, timeout=DEADLINE_SECONDS)

    def post(self, path: str, body: object = None, kind: str = "application/json") -> httpx.Response:
        """Post JSON, or bytes as they are, with that content type."""
        options: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"content-type": kind}
        return httpx.post(self.url + path, headers=headers, timeout=DEADLINE_SECONDS, **options)

    def start(self, kind: str) -> str:
        """Start a task; its id."""
        answer = self.post("/demo/tasks", {"kind": kind})
        assert answer.status_code == 202, answer.text
        task_id = answer.json()["id"]
        assert isinstance(task_id, str)
        return task_id

    def status(self, task_id: str) -> dict[str, Any]:
        """What a poll says of a task; with empty members where it isn't known."""
        answer = self.get(f"/tasks/{task_id}/status")
        known: dict[str, Any] = answer.json()
        return known if answer.status_code == 200 else {"state": None, "text": "", "attempt": 0}


@contextmanager
def running_demo(*arguments: str) -> Iterator[Demo]:
    """A demonstration on ports of its own. Whatever it writes to stderr can be read from its process."""
    with program("demo", "--port", "0", "--redis-port", str(free_port()), *arguments) as process:
        yield Demo(process)
        process.terminate()
        process.wait(30)
