"""Answers a bot's questions: each becomes a task, and what a source yields for it the answer.

The work belongs to this process, not to who watches it: a gateway that is away for a while is no reason to
end it. When the process that did it has died, it is done again, as the task's next attempt, up to
`MOST_ATTEMPTS`: a question that kills whoever answers it mustn't kill them all.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge import Task, create_task_async
from bridge.cli.following import client_for, follow
from bridge.codec import utf8
from bridge.errors import BridgeError, SettingsError, StoreUnavailable, TaskNotFound
from bridge.events import TERMINAL_STATES, End, Event
from bridge.settings import Settings, env_name, file_name
from bridge.sinks.matrix.asked import Asked
from bridge.sources.command import Command
from bridge.sources.relay import Watch, carry, conclude
from bridge.view import View

log = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 3

_LOOK_SECONDS: Final = 1.0
"""While Redis doesn't take an end, the bot looks so often whether it is to leave."""


@dataclass(frozen=True, slots=True)
class Work:
    """What answers one question: a source, and how to stop it if not by closing it."""

    events: AsyncGenerator[Event, None]
    stop: Callable[[], object] | None = None


Maker = Callable[[Asked], Work]
"""Makes the work for a question. What it gives is either run to its end or never begun."""


def by_command(arguments: Sequence[str]) -> Maker:
    """A command that reads the question from its standard input, without a shell. It prints the answer."""

    def make(asked: Asked) -> Work:
        command = Command(arguments, environ=_environ(asked), stdin=utf8(asked.text))
        return Work(command.events(), command.stop)

    return make


def by_function(name: str) -> Maker:
    """A function ``module:name``, also of a module here, that takes the question and gives a source of
    events.

    Raises `SettingsError` when there is none.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"--source must name a function as module:name (got {name!r}): {error}"
        ) from error
    return lambda asked: Work(function(asked))


class Answering:
    """Does the work. Use it in an `async with` block: at its end all work ends."""

    def __init__(self, maker: Maker, settings: Settings) -> None:
        self._maker = maker
        self._settings = settings
        self._works: dict[str, tuple[Task, asyncio.Task[None]]] = {}
        self._watches: set[Watch] = set()
        self._leaving = False

    async def views(self, asked: Asked) -> AsyncGenerator[View, None]:
        """The views of the task that answers a question, which is begun if need be.

        Raises `ClientError` and `StoreError`, before anything has begun where that can be known. Work
        that has begun goes on, and whoever asks again is shown it.
        """
        if asked.task_id not in self._works and await self._is_open(asked.task_id):
            if not await create_task_async(asked.task_id, settings=self._settings):
                raise StoreUnavailable(f"the task {asked.task_id} can't be announced now")
            task = Task(asked.task_id, self._settings, bind=False).start()
            work = asyncio.create_task(self._work(asked, task))
            self._works[asked.task_id] = task, work
            work.add_done_callback(lambda _: self._works.pop(asked.task_id))
        if asked.task_id in self._works:
            # Who follows sooner may find the end of an earlier attempt, also one that comes only now: the
            # lease of whoever has died is over.
            task, _ = self._works[asked.task_id]
            if not await task.begun(self._settings.create_timeout_seconds):
                raise StoreUnavailable(f"the task {asked.task_id} can't be begun now")
        async with aclosing(follow(asked.task_id, self._settings)) as views:
            async for view in views:
                if _lost(view.error) and asked.task_id in self._works:
                    # It will be taken back: ours goes on. Or it is an old one, and the gateway is behind.
                    raise StoreUnavailable(f"the task {asked.task_id} is taken for lost, but worked on")
                yield copy(view)  # the view grows; what was given must not end with it

    def stop(self) -> None:
        """End all work now; its tasks fail, with what they have."""
        self._leaving = True
        for watch in self._watches:
            watch.stop()

    async def _is_open(self, task_id: str) -> bool:
        """Whether the question is still to be answered, because nobody has, or who did so has died."""
        try:
            async with client_for(task_id, self._settings) as client:
                status = await client.status(task_id)
        except TaskNotFound:
            return True
        if status.get("attempt", 0) >= MOST_ATTEMPTS:
            return False
        return _lost(status.get("error")) or status.get("state") not in TERMINAL_STATES

    async def _work(self, asked: Asked, task: Task) -> None:
        """One attempt at an answer, until Redis has its end: before that it is still taken for open."""
        await self._attempt(asked, task)
        while not (self._leaving or await task.ended(_LOOK_SECONDS)):
            pass

    async def _attempt(self, asked: Asked, task: Task) -> None:
        """What goes wrong is the task's end, and in the log."""
        try:
            with Watch(task) as watch:
                self._watches.add(watch)
                try:
                    # It may have been cancelled, or the bot told to leave, before the work can begin.
                    end = None if watch.stopping or self._leaving else await self._carry(asked, task, watch)
                finally:
                    self._watches.discard(watch)
        except BaseException as error:
            await task.finish_async(error)
            if not isinstance(error, Exception):
                raise
            log.error("%s: %s", asked.task_id, error, exc_info=not isinstance(error, BridgeError))
            return
        if self._leaving and (end is None or end.state == "cancelled"):
            task.fail("stopped", "The bot was stopped before the answer was complete.")
        else:
            conclude(task, end, told=watch.told)
        await task.finish_async()

    async def _carry(self, asked: Asked, task: Task, watch: Watch) -> End | None:
        work = self._maker(asked)
        return await carry(task, work.events, watch, stop=work.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.gather(*(work for _, work in self._works.values()), return_exceptions=True)


def _lost(error: Mapping[str, str] | None) -> bool:
    """Whether who worked on a task is said to have died."""
    return error is not None and error["code"] == "worker_lost"


def _environ(asked: Asked) -> dict[str, str]:
    """This process's own, without its secrets, and who asks where, without what can't stand there.

    Redis' address counts as a secret: it may hold a password, and lets whoever has it write into any task.
    """
    secrets = {
        each
        for one in fields(Settings)
        if one.metadata["secret"] or one.name == "redis_url"
        for each in (env_name(one), file_name(one))
    }
    said = {
        "BRIDGE_TASK_ID": asked.task_id,
        "MATRIX_ROOM": asked.room,
        "MATRIX_SENDER": asked.sender,
        "MATRIX_EVENT": asked.event_id,
        "MATRIX_THREAD": asked.thread,
    }
    kept = {name: value for name, value in os.environ.items() if name not in secrets}
    return {**kept, **{name: utf8(value.replace("\0", "")).decode() for name, value in said.items()}}
