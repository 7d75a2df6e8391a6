"""Tasks of this process that Redis knows before the test goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bridge
from tests.waiting import DEADLINE_SECONDS


@contextmanager
def begun(task_id: str, *, bind: bool = True) -> Iterator[bridge.Task]:
    """A task's block, entered only when Redis knows of it: whoever asks for the task inside finds it.

    `bridge.task` doesn't wait, as work shouldn't. Who asks right after it may come first, and is told 404.
    """
    with bridge.task(task_id, bind=bind) as task:
        assert task.wait_begun(DEADLINE_SECONDS)
        # It says so, too, when the time is over: the work should begin all the same.
        assert task._attempt is not None
        assert task._attempt.begun.is_set()
        yield task
