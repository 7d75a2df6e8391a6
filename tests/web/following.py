"""`follow()` in a node process of its own, as a page or a script would call it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.tools import JS, require_tool

Fact = dict[str, Any]


class Page:
    """What happens in the process, one fact after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.facts: list[Fact] = []
        self._process = process

    def tell(self, command: str) -> None:
        """Have it call `cancel`, `reconnect` or `close`."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def until(self, wanted: Callable[[Fact], bool]) -> Fact:
        """The next fact that is as wanted."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fact: Fact = json.loads(line)
            self.facts.append(fact)
            if wanted(fact):
                return fact
        raise AssertionError(f"it didn't happen, but only {self.facts}")

    def until_text(self, text: str) -> None:
        """Until it shows that text."""
        self.until(lambda fact: fact["type"] == "view" and fact["view"]["text"] == text)

    def until_open(self, way: str) -> None:
        """Until that way is open."""
        wanted = {"type": "connection", "state": "open", "way": way}
        self.until(lambda fact: wanted.items() <= fact.items())

    def end(self) -> Fact:
        """How the following ended. After that, nothing may happen any more: the process ends by itself."""
        last = self.until(lambda fact: fact["type"] in ("done", "failed"))
        assert self._process.wait() == 0
        return last

    def texts(self) -> list[str]:
        """The text of each view so far."""
        return [fact["view"]["text"] for fact in self.facts if fact["type"] == "view"]


@contextmanager
def page(base_url: str, task_id: str = "job-1", **options: Any) -> Iterator[Page]:
    """Follow a task. `eventsource=True` gives it an EventSource, as browsers have it."""
    command = [str(require_tool("node")), "follow.js", base_url, task_id, json.dumps(options)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=JS, text=True, stdin=pipe, stdout=pipe) as process:
        try:
            yield Page(process)
        finally:
            if process.poll() is None:
                process.kill()
