"""A worker's own record of one run: every event just before it is reported, and how the run ended.

It is a file, because the worker may be killed; each line is written to the system before the hook is called.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge.codec import decode, encode
from bridge.events import Event, Position
from bridge.view import View


class Recorder:
    """The worker's side."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)

    def event(self, event: Event) -> None:
        """It will be reported next."""
        self._file.write(event.kind.encode() + b" " + encode(event) + b"\n")

    def ended(self, state: str, result: Any) -> None:
        """The run will end so."""
        self._file.write(b"ended " + json.dumps({"state": state, "result": result}).encode() + b"\n")
        self._file.close()


class Record:
    """What stands in such a file: the fold of all that was reported, how many events, and how it ended."""

    def __init__(self, task_id: str, file: Path) -> None:
        self.view = View(task_id)
        self.events = 0
        self.state: str | None = None
        self.result: Any = None
        for line in file.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # the worker was killed while it wrote this
            kind, _, data = line.rstrip(b"\n").partition(b" ")
            if kind == b"ended":
                end = json.loads(data)
                self.state, self.result = end["state"], end["result"]
                continue
            self.view.apply(Position(0, 0), decode(kind.decode(), data))
            self.events += 1
