"""One announcement of a task, on its way to Redis."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Sequence

from bridge.errors import StoreError, StoreUnavailable
from bridge.store.scripts import Answer, Call, Calls
from bridge.worker.latch import Latch

log = logging.getLogger(__name__)


class Creation:
    """What the pump sends for `create_task`, again and again until there is an answer.

    The name and the growing age let Redis tell a late repetition from a new announcement.
    """

    ending = False

    def __init__(self, task_id: str, owner: str) -> None:
        self.task_id = task_id
        self.wake_at = math.inf
        self.over = False
        self.confirmed = False
        self.done = Latch()
        self._owner = owner
        self._name = secrets.token_hex(8)
        self._made_at = time.monotonic()

    def due(self, now: float) -> float:
        """At once, as long as there is no answer."""
        return math.inf if self.over else now

    def next_calls(self, calls: Calls, generation: int, now: float) -> list[Call]:
        """The one call."""
        age_ms = int((now - self._made_at) * 1000)
        return [calls.create(self.task_id, owner=self._owner, creation=self._name, age_ms=max(age_ms, 0))]

    def answered(self, calls: Sequence[Call], replies: Sequence[Answer | StoreError], now: float) -> None:
        """Any verdict means that the task is known."""
        reply = replies[0]
        if isinstance(reply, StoreUnavailable):
            return
        if isinstance(reply, StoreError):
            self.give_up(str(reply))
            return
        self.confirmed = True
        self._finish()

    def give_up(self, why: str) -> None:
        """It can't be sent. The task appears when its worker begins."""
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
