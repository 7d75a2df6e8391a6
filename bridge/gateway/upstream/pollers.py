"""All pollers of one gateway: one for each task that is followed here and may be the app's.

It observes the hub: the first follower of such a task makes a poller, and the last one that leaves ends it,
also in the midst of a question. Their number is bounded by that of streams and requests; what they may do at
the same time is bounded by `Questions`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from bridge.gateway.follower import Nobody
from bridge.gateway.hub import Hub
from bridge.gateway.status import PollFollower
from bridge.gateway.upstream.asking import Questions
from bridge.gateway.upstream.poller import Poller

log = logging.getLogger("bridge.gateway")

_LOOK_SECONDS: Final = 3.0
"""So long a plain poll waits for the app to be asked; then it gets what is in the log."""
_AFTER_A_BUG_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 0.1


class Pollers:
    """Pollers by task id. `running` is entered while the hub runs."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._holder = secrets.token_hex(8)
        self._pollers: dict[str, Poller] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._hub: Hub

    def __len__(self) -> int:
        return len(self._pollers)

    @asynccontextmanager
    async def running(self, hub: Hub) -> AsyncIterator[None]:
        """For the length of the block tasks that are followed in this hub are asked about."""
        self._hub = hub
        async with self._questions.open(), asyncio.TaskGroup() as group:
            self._group, hub.observer = group, self
            try:
                yield
            finally:
                self._group, hub.observer = None, Nobody()
                for task in self._tasks.values():
                    task.cancel()

    @asynccontextmanager
    async def look(self, task_id: str) -> AsyncIterator[None]:
        """Within the block the log is as new as the app's answer to a question that was asked just now, or is
        asked all the time. Costs a wait only where nobody asked.
        """
        with self._hub.attach(task_id, PollFollower()):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    while (poller := self._pollers.get(task_id)) is not None and poller.ending:
                        await asyncio.wait([self._tasks[task_id]])
                    if poller is not None:
                        await poller.looked.wait()
            yield

    # --- the hub's observer ---------------------------------------------------------------------------

    def joined(self, task_id: str) -> None:
        """Begin to ask, if it may be the app's task."""
        if task_id in self._pollers:
            self._pollers[task_id].wake()
        elif self._group is not None and self._to_be_asked_about(task_id):
            poller = self._pollers[task_id] = Poller(self._hub, self._questions, task_id, self._holder)
            task = self._group.create_task(self._run(poller), name=f"bridge poller {task_id}")
            self._tasks[task_id] = task

    def left(self, task_id: str) -> None:
        """If nobody is left, stop asking."""
        poller = self._pollers.get(task_id)
        if poller is not None and poller.alone:
            poller.ending = True
            self._tasks[task_id].cancel()

    def _to_be_asked_about(self, task_id: str) -> bool:
        """Whether somebody follows the task, and it may be the app's and not over."""
        channel = self._hub.channel(task_id)
        if channel is None or not channel.followers or self._hub.draining:
            return False
        polled = channel.head is not None and channel.head.polled
        return not channel.known or (polled and not channel.view.ended)

    async def _run(self, poller: Poller) -> None:
        """The poller's life; then another's, if somebody came just when it had ended because nobody was
        there.
        """
        try:
            await poller.run()
            if self._to_be_asked_about(poller.task_id):
                await asyncio.sleep(_AGAIN_SECONDS)
        except Exception:
            log.exception("task %s: its poller broke in a way that it should not", poller.task_id)
            await asyncio.sleep(_AFTER_A_BUG_SECONDS)
        finally:
            del self._pollers[poller.task_id], self._tasks[poller.task_id]
            self.joined(poller.task_id)
