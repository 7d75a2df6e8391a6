"""Something about a task that is told to Redis by nobody who runs it: one call, on its way.

An app announces a task, or says that it was cancelled; a queue's supervisor says how an attempt ended whose
worker can't any more. Nobody waits for these, but for `create_task`, which does for a while.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from bridge.errors import StoreError, StoreUnavailable
from bridge.events import check_task_id
from bridge.store.scripts import Answer, Call, Calls
from bridge.worker.latch import Latch

if TYPE_CHECKING:
    from bridge.worker.outcome import Ending

log = logging.getLogger(__name__)

LONG_AGO_MS: Final = 10**13
"""Before every end that there is: three hundred years."""


class Notice:
    """What the pump sends again and again until there is an answer.

    The call gets its age, in ms, so that Redis can tell a late one from one about what has happened since.
    """

    ending = False

    def __init__(self, task_id: str, call: Callable[[Calls, int], Call]) -> None:
        """Raises `InvalidTaskId`."""
        self.task_id = check_task_id(task_id)
        self.over = False
        self.confirmed = False
        self.done = Latch()
        self._call = call
        self._since = time.monotonic()

    def due(self, now: float) -> float:
        """At once, as long as there is no answer."""
        return math.inf if self.over else now

    def next_calls(self, calls: Calls, generation: int, now: float) -> list[Call]:
        """The one call."""
        return [self._call(calls, max(int((now - self._since) * 1000), 0))]

    def answered(self, calls: Sequence[Call], replies: Sequence[Answer | StoreError], now: float) -> None:
        """Any verdict means that Redis was told; what it makes of it is the script's business."""
        reply = replies[0]
        if isinstance(reply, StoreUnavailable):
            return
        if isinstance(reply, StoreError):
            self.give_up(str(reply))
            return
        self.confirmed = True
        self._finish()

    def give_up(self, why: str) -> None:
        """It can't be sent. The task appears when its worker begins, and ends with its lease."""
        log.error("task %s is not announced: %s", self.task_id, why)
        self._finish()

    def hurry(self) -> None:
        """It never waits for anything but Redis."""

    def quiet(self) -> bool:
        """Whether there is nothing more to send."""
        return self.over

    def size(self) -> int:
        """Next to nothing."""
        return 0

    def _finish(self) -> None:
        self.over = True
        self.done.set()


def created(task_id: str, owner: str) -> Notice:
    """The app announces the task. One that has ended waits anew."""
    name = secrets.token_hex(8)
    return Notice(task_id, lambda calls, age: calls.create(task_id, owner=owner, creation=name, age_ms=age))


def scheduled(task_id: str) -> Notice:
    """The app has given the task to a queue. That may be quicker than this: however late it comes, it means
    the run that there is, or was. So a task that has ended stays so, until its next run begins.
    """
    name = secrets.token_hex(8)
    return Notice(
        task_id, lambda calls, _: calls.create(task_id, owner="", creation=name, age_ms=LONG_AGO_MS)
    )


def cancelled(task_id: str) -> Notice:
    """Nobody is to begin the task, and whoever runs it is asked to stop."""
    return Notice(task_id, lambda calls, _: calls.cancel(task_id))


def concluded(task_id: str, place: str, ending: Ending) -> Notice:
    """The attempt that ran at `place` (see `Task`) has ended so, or has before it could begin. With no place
    that means the task, which nobody began.
    """
    error = ending.error or {"code": "", "message": ""}
    return Notice(
        task_id,
        lambda calls, age: calls.conclude(
            task_id,
            place=place,
            state=ending.state,
            code=error["code"],
            message=error["message"],
            age_ms=age,
        ),
    )
