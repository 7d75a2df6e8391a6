"""The worker: a process that reports tokens of many tasks at a pace, and remembers what it reported.

Tasks take turns, so the tokens of all are spread evenly over time. What is overdue is caught up
with, and the longest delay is told: a worker that can't keep its pace proves nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import bridge
from benchmarks.feeds import Feed, Hook, Nchan, Publish
from benchmarks.helper import obey
from benchmarks.tokens import token

_SHORTEST_SLEEP: Final = 0.0005
_ROUNDS: Final = 5


class Writer:
    """The commands of the process."""

    def __init__(self) -> None:
        self._feed: Feed | None = None
        self._tasks: Sequence[str] = ()
        self._said: list[list[str]] = []

    def start(self, by: str, tasks: Sequence[str], **options: Any) -> dict[str, Any]:
        """Begin tasks; `by` is the feed."""
        kinds: dict[str, type[Hook | Publish | Nchan]] = {"hook": Hook, "publish": Publish, "nchan": Nchan}
        self._tasks, self._said = tasks, [[] for _ in tasks]
        self._feed = kinds[by](tasks, **options)
        return {}

    def write(self, pace: float, count: int, texts: str) -> dict[str, Any]:
        """Report `count` tokens of each task, `pace` per second and task, the last of them marked as such.
        The whole texts, with what was reported before, go into that file.
        """
        assert self._feed is not None
        feed, said, tasks = self._feed, self._said, len(self._tasks)
        total, step = count * tasks, 1 / (pace * tasks)
        written, latest = 0, 0.0
        began = time.monotonic()
        while written < total:
            passed = time.monotonic() - began
            latest = max(latest, passed - written * step)
            due = min(int(passed / step) + 1, total)
            for number in range(written, due):
                text = token(last=number >= total - tasks)
                said[number % tasks].append(text)
                feed.report(number % tasks, text)
            feed.flush()
            written = due
            pause = began + written * step - time.monotonic()
            if pause > 0:
                time.sleep(max(pause, _SHORTEST_SLEEP))
        seconds = time.monotonic() - began
        whole = {task: "".join(tokens) for task, tokens in zip(self._tasks, said, strict=True)}
        Path(texts).write_text(json.dumps(whole))
        return {"seconds": seconds, "late": latest}

    def finish(self) -> dict[str, Any]:
        """End all tasks; how long that took, and of how many it is confirmed."""
        assert self._feed is not None
        began = time.monotonic()
        return {"confirmed": self._feed.finish(), "seconds": time.monotonic() - began}

    def tight(self, redis_url: str, calls: int) -> dict[str, Any]:
        """Call the hook in a tight loop. Microseconds per call: by the clock, with the pump at work beside
        it, and of the caller's thread alone. The middle of some rounds.
        """
        bridge.configure(redis_url=redis_url)
        report, text = bridge.report_progress, token()
        walls, cpus = [], []
        for number in range(_ROUNDS):
            with bridge.task(f"tight-{number}"):
                wall, cpu = time.perf_counter(), time.thread_time()
                for _ in range(calls):
                    report(text)
                walls.append((time.perf_counter() - wall) / calls * 1e6)
                cpus.append((time.thread_time() - cpu) / calls * 1e6)
        return {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}


def main() -> None:
    """Do what is said on the standard input."""
    writer = Writer()
    obey({"start": writer.start, "write": writer.write, "finish": writer.finish, "tight": writer.tight})


if __name__ == "__main__":
    main()
