"""The worker of the large test, ``python -m tests.scale.worker COUNT``: writes that many tasks side by side.

Each line on its standard input lets it write one more round of all tasks; after the last it ends them.
"""

from __future__ import annotations

import sys

import bridge
from bridge.events import Chunk, Data, Event, Progress
from tests.scale.script import result, rounds, task_ids


def main() -> None:
    """Write a round per line."""
    names = task_ids(int(sys.argv[1]))
    tasks = [bridge.task(name) for name in names]
    scripts = [rounds(name) for name in names]
    for number, _ in enumerate(sys.stdin):
        for task, script in zip(tasks, scripts, strict=True):
            if number == 0:
                task.start()
            for event in next(script):
                report(task, event)
    for task in tasks:
        task.succeed(result(task.id))
        if not task.finish():
            raise SystemExit(f"the end of {task.id} is not confirmed")


def report(task: bridge.Task, event: Event) -> None:
    """Say an event with the worker's hook."""
    match event:
        case Chunk(text, field):
            go_on = task.report_progress(text, field=field)
        case Progress(fraction, message):
            assert fraction is not None
            go_on = task.report_progress(fraction, message=message)
        case Data(name, value):
            go_on = task.report_progress(value, name=name)
        case _:
            raise ValueError(f"a worker doesn't report a {event.kind}")
    if not go_on:
        raise SystemExit(f"task {task.id} was told to stop")


if __name__ == "__main__":
    main()
