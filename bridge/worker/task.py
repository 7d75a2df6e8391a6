"""A task, as the work sees it: begin, report, end.

`bridge.task(id)` makes a `Task` for one run. It is a context manager (`with` and `async with`) and a
decorator; `start` and `finish` are the same without a block, for code that learns of both by callbacks.

While a task is bound (a ContextVar), `report_progress` reports to it. Context variables reach asyncio tasks
and `asyncio.to_thread`, but no other threads and no executors: there, use the handle's `report_progress`.

A generator shares its consumer's context, also while it is suspended: a task bound in it would get what the
consumer reports. It begins its task with ``bind=False`` and reports with the handle.

Blocks that are suspended (generators, callbacks) may end in any order and in other contexts than they began
in. So a binding may outlive its run; such a one counts as none, and what it was bound inside counts again.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from bridge.errors import InvalidEvent
from bridge.events import RESERVED_CODES, check_task_id
from bridge.settings import Settings
from bridge.worker import process
from bridge.worker.buffer import Buffer
from bridge.worker.outcome import Ending, ending, failure, json_copy
from bridge.worker.report import MISSING, check_name, report

if TYPE_CHECKING:
    from bridge.worker.attempt import Attempt

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_UNBOUND = "bind=False leaves a decorated function without any way to report; use a block"

_current: ContextVar[Task | None] = ContextVar("bridge_task", default=None)


def current_task() -> Task | None:
    """The task that `report_progress` reports to here, or None."""
    return _unfinished(_current.get())


def _unfinished(task: Task | None) -> Task | None:
    while task is not None and task.finished:
        task = task.outer
    return task


class Task:
    """One run of a task. Its methods may be called from any thread of the process that began it."""

    def __init__(
        self, task_id: str, settings: Settings | None = None, *, bind: bool = True, place: str = ""
    ) -> None:
        """Does nothing yet. Raises `InvalidTaskId`.

        place: a name that a supervisor of this process can tell, too, so that it can say how this run ended
        when the process was killed (see `bridge.worker.notice.concluded`). Nobody else has it at this time.
        """
        self.id = check_task_id(task_id)
        self._place = place
        self.finished = False
        self.outer: Task | None = None
        """What was bound where this one was bound, as long as it may count again."""
        self._bind = bind
        self._given = settings
        self._chosen = settings
        self._filled: Buffer | None = None
        self._attempt: Attempt | None = None
        self._started = False
        self._said: Ending | None = None
        self._binding: Token[Task | None] | None = None

    # Made when first needed, at the latest by `start`: a decorator stands in a module that is imported before
    # `configure` runs. Without a lock, because a fork would leave it held; before `start` one thread has it.

    @property
    def _settings(self) -> Settings:
        if self._chosen is None:
            self._chosen = process.current_settings()
        return self._chosen

    @property
    def buffer(self) -> Buffer:
        """What it has reported and the pump hasn't fetched, and whether to go on."""
        if self._filled is None:
            self._filled = Buffer(self._settings.max_task_bytes, self._settings.flush_bytes)
        return self._filled

    @overload
    def report_progress(self, value: str | None, *, field: str = ...) -> bool: ...
    @overload
    def report_progress(self, value: float, *, message: str | None = ...) -> bool: ...
    @overload
    def report_progress(self, *, message: str | None = ...) -> bool: ...
    @overload
    def report_progress(self, value: object, *, name: str) -> bool: ...

    def report_progress(
        self,
        value: object = MISSING,
        *,
        message: str | None = None,
        name: str | None = None,
        field: str | None = None,
    ) -> bool:
        """Report to this task, from any thread. See `bridge.report_progress`."""
        return report(self.buffer, value, message, name, field)

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody has asked this task to stop. Who reads True here is told, as by a report."""
        if self.buffer.cancel_requested:
            self.buffer.told_to_stop = True
        return self.buffer.cancel_requested

    @property
    def watchers(self) -> int | None:
        """How many gateways follow this task just now, or None when that isn't known: Redis hasn't said so
        for a lease. It may be a second old.

        A gateway counts once, however many people it serves, and for `linger_seconds` after the last of them
        left. Polls count as well as streams. What else subscribes to the task's channel counts, too.
        """
        counted = self.buffer.watchers
        if counted is None or time.monotonic() - counted[1] > self._settings.lease_seconds:
            return None
        return counted[0]

    def succeed(self, result: Any = None, usage: Mapping[str, Any] | None = None) -> None:
        """Say what the end will carry; the task ends when its block is left.

        `result` is any JSON value, `usage` a JSON object such as token counts. Raises `InvalidEvent` for
        what JSON can't say. What is larger than `max_task_bytes` is left out, and the end is `truncated`.
        """
        self._said = self._fitting(Ending("succeeded"), result, usage)

    def fail(
        self, code: str, message: str, result: Any = None, usage: Mapping[str, Any] | None = None
    ) -> None:
        """Say that the task will end as failed. `code` is for programs, `message` for people.

        `result` and `usage` are as in `succeed`: what there is, and what it cost, all the same.

        `worker_lost` and `unknown_task` are codes of the bridge's own; they raise `InvalidEvent`.
        """
        check_name(code, "code")
        if code in RESERVED_CODES:
            raise InvalidEvent(f"code={code!r} is the bridge's own; choose another")
        self._said = self._fitting(Ending("failed", failure(code, str(message))), result, usage)

    def returned(self, value: object) -> None:
        """What the work returned: the end's result, unless the work has said one itself. It decides nothing
        about how the task ends, and what JSON can't say is left out.
        """
        if self._said is None:
            try:
                self._said = self._fitting(Ending(""), value, None)
            except InvalidEvent as error:
                log.debug("task %s: what it returned is left out of its end: %s", self.id, error)

    def requeue(self) -> None:
        """Say that this run ends and the task doesn't: somebody will begin it again. Until then it is queued,
        and keeps its text.
        """
        self._said = Ending("queued")

    def _fitting(self, said: Ending, result: Any, usage: Mapping[str, Any] | None) -> Ending:
        if usage is not None and not isinstance(usage, Mapping):
            raise TypeError("usage= must be a mapping, such as {'output_tokens': 12}")
        result, size = json_copy(result)
        cost, more = json_copy(None if usage is None else dict(usage))
        if size + more > self._settings.max_task_bytes:
            log.warning("task %s: its result is larger than max_task_bytes and is left out", self.id)
            return replace(said, truncated=True)
        return replace(said, result=result, usage=cost)

    # Without a block.

    def start(self) -> Self:
        """Begin the run and, with `bind`, bind it here, without waiting for Redis. Once per object."""
        if self._started:
            raise RuntimeError("a task object is for one run; call bridge.task() again for another")
        self._attempt = process.begin(self.id, self._settings, self.buffer, self._place)
        self._started = True
        if self._bind:
            self.outer = current_task()
            self._binding = _current.set(self)
        return self

    def wait_begun(self, seconds: float) -> bool:
        """Wait, at most so long, until Redis knows of this run; whether the work should begin: not if the
        task was cancelled before. Where Redis is away it doesn't wait, and the work goes first.
        """
        if self._attempt is not None and not process.away(self._settings):
            self._attempt.begun.wait(seconds)
        return self.buffer.go_on or not self.cancel_requested

    async def begun(self, seconds: float) -> bool:
        """Whether Redis knows of this run, or knew; for that it waits at most so long."""
        return self._attempt is not None and await self._attempt.begun.wait_async(seconds)

    async def ended(self, seconds: float) -> bool:
        """Whether all is said about this run, which was finished: Redis has its end, or wants none from here;
        for that it waits at most so long.
        """
        return self._attempt is None or await self._attempt.done.wait_async(seconds)

    def finish(self, raised: BaseException | None = None, *, wait: bool = True, logged: bool = False) -> bool:
        """End the run; whether Redis has confirmed that. Waits for it at most `close_timeout_seconds`,
        and only a second where Redis has been away for longer than that already; not at all without `wait`.

        `raised` is what the work raised, if anything, `logged` whether somebody else logs that. Calling it
        again does nothing. A task that another worker has taken over, or that was cancelled before it began,
        gets no end from here.
        """
        attempt = self._leave(raised, logged)
        if attempt is None:
            return False
        # A generator that is closed may be so by the garbage collector, where nothing should wait.
        if wait and not isinstance(raised, GeneratorExit):
            self._check(attempt, attempt.done.wait(process.patience(self._settings)))
        return attempt.confirmed

    async def finish_async(self, raised: BaseException | None = None) -> bool:
        """The same without blocking the event loop."""
        attempt = self._leave(raised)
        if attempt is None:
            return False
        # A coroutine that is closed must not await anything any more.
        if not isinstance(raised, GeneratorExit):
            self._check(attempt, await attempt.done.wait_async(process.patience(self._settings)))
        return attempt.confirmed

    def _leave(self, raised: BaseException | None, logged: bool = False) -> Attempt | None:
        """Unbind, decide how it ended and tell the pump. None when there is nothing to wait for."""
        if not self._started:
            raise RuntimeError("this task was not started")
        again, self.finished = self.finished, True
        self._unbind()
        attempt = self._attempt
        if attempt is None or again or self.buffer.left_behind:
            return None
        if isinstance(raised, Exception) and not logged:
            log.info("task %s failed", self.id, exc_info=raised)
        process.leave(self.buffer)
        attempt.end(
            ending(
                self._said,
                raised,
                told_to_stop=self.buffer.told_to_stop,
                cancel_requested=self.buffer.cancel_requested,
            )
        )
        return attempt

    def _unbind(self) -> None:
        # A binding that stays behind must not keep those alive that don't count any more.
        self.outer = _unfinished(self.outer)
        binding, self._binding = self._binding, None
        if binding is None or _current.get() is not self:
            return  # another was bound since and goes on, or this is another context
        try:
            _current.reset(binding)
        except ValueError:
            pass  # a copy of the context in which it began

    def _check(self, attempt: Attempt, done: bool) -> None:
        if not done:
            attempt.waited = True
            log.warning("the end of task %s isn't confirmed yet; it goes on being sent", self.id)

    # As a block and as a decorator.

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, raised: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.finish(raised)

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, _type: type[BaseException] | None, raised: BaseException | None, _tb: TracebackType | None
    ) -> None:
        await self.finish_async(raised)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Make each call of a function a run of the task with this id. Raises TypeError without `bind`."""
        if not self._bind:
            raise TypeError(_UNBOUND)
        return TaskDecorator(lambda *_args, **_kwargs: self.id, self._given)(function)


class TaskDecorator:
    """Makes each call of a function, sync or async, a run of a task."""

    def __init__(self, id_of: Callable[..., str], settings: Settings | None) -> None:
        """`id_of` gets the call's arguments and returns the task's id."""
        self._id_of = id_of
        self._settings = settings

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate. Raises TypeError for generators, and where the id is missing."""
        if not callable(function):
            raise TypeError("@bridge.task needs the task's id, or a function of the arguments that gives it")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                "a generator can't be decorated, because it runs between its consumer's steps."
                " Write `with bridge.task(..., bind=False) as task:` inside it, and report with"
                " task.report_progress"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with Task(self._id_of(*args, **kwargs), self._settings):
                    return await function(*args, **kwargs)

            return cast("Callable[P, T]", call_async)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with Task(self._id_of(*args, **kwargs), self._settings):
                return function(*args, **kwargs)

        return call


@overload
def task(task_id: str, *, settings: Settings | None = None, bind: bool = True) -> Task: ...
@overload
def task(task_id: Callable[..., str], *, settings: Settings | None = None) -> TaskDecorator: ...


def task(
    task_id: str | Callable[..., str], *, settings: Settings | None = None, bind: bool = True
) -> Task | TaskDecorator:
    """One run of the task with the app's own id, as a block or as a decorator.

        with bridge.task("job-42") as task: ...         # also: async with

        @bridge.task(lambda order: f"order-{order.id}") # each call is a run; the id from its arguments
        def process(order): ...

    Leaving the block ends the task: as `task.succeed` or `task.fail` said, `failed` when something was
    raised, `cancelled` when the work stopped because it was told to, else `succeeded`. That waits at most
    `close_timeout_seconds` for Redis, and never hides what the work raised.

    With ``bind=False`` only `task.report_progress` reports to it, and `bridge.report_progress` goes on
    meaning what it meant before. That is for a block inside a generator: while that is suspended its
    consumer runs, whose reports are not this task's.

    Raises `InvalidTaskId`, and `SettingsError` when the settings can't be used. Redis being away is no error.
    """
    if callable(task_id):
        if not bind:
            raise TypeError(_UNBOUND)
        return TaskDecorator(task_id, settings)
    return Task(task_id, settings, bind=bind)
