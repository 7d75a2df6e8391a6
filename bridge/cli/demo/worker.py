"""The demonstration's worker: one process, one task.

It runs as ``python -m bridge.cli.demo.worker KIND TASK``, as workers do, and ends when its standard input is
closed: whoever started it is gone then, or wants it gone. Exit status 0 means that the task has got its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

import bridge
from bridge.cli.demo.kinds import ENDLESS
from bridge.cli.demo.works import WORKS, Work, command

_PAUSE_SECONDS: Final = 3.0


def main(kind: str, task_id: str) -> None:
    """Work on the task; one of the endless kind again and again."""
    over = threading.Event()
    if kind == "command":
        _on_end_of_input(lambda: os.kill(os.getpid(), signal.SIGTERM))
        asyncio.run(command(task_id, bridge.configure()))
        return
    _on_end_of_input(over.set)
    while True:
        if kind == ENDLESS:
            # The app would do this when it takes the user's next request; it also forgives an earlier cancel.
            bridge.create_task(task_id)
        _run(task_id, WORKS[kind], over)
        if kind != ENDLESS or over.wait(_PAUSE_SECONDS):
            break


def _run(task_id: str, work: Work, over: threading.Event) -> None:
    try:
        with bridge.task(task_id) as task:
            if not work(task, over.wait) and over.is_set():
                task.fail("demo_over", "The demonstration was ended.")
    except ConnectionError:
        pass  # the work's own, which has failed as it was meant to; the task's end says so


def _on_end_of_input(act: Callable[[], None]) -> None:
    def wait() -> None:
        # Not through `sys.stdin`, whose lock a thread that is still reading would hold when Python exits.
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
