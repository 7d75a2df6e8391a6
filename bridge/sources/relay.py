"""Joins a source to a task, in any worker: hands its events over, and stops it when nobody wants them any
more.

Rules
-----
1. The task is given all that the source yields, in order. The source's `End` says what the task's will be; a
   source that just ends has succeeded, and one that was cancelled from elsewhere has failed. The task itself
   ends where its block does: what `relay` has told it can still be told otherwise.
2. The source is stopped when the hook says so: cancelled, or superseded by a newer attempt. Only if asked to,
   also when nobody has watched for a while; nobody knowing who watches is no such while. A silent source is
   no exception: the task is asked every `ASK_SECONDS`, which costs no I/O.
3. To stop means to cancel the reading of the source, which closes what it holds. A source that has a better
   way (a process that gets a signal first) is asked by that way, and read to its end.
4. A cancellation from outside stops the source, too, and goes on outwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, Self

from bridge.events import MAIN_FIELD, Chunk, Data, End, Event, Progress

ASK_SECONDS: Final = 0.1

UNWATCHED: Final = {
    "code": "unwatched",
    "message": "The work was stopped, because nobody was watching any more.",
}
STOPPED: Final = {"code": "cancelled", "message": "The work was cancelled where it ran."}


class Reports(Protocol):
    """What is needed of a task: `bridge.Task` has it."""

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked it to stop."""

    @property
    def watchers(self) -> int | None:
        """How many watch, or None where nobody knows."""

    @property
    def report_progress(self) -> Callable[..., bool]:
        """The hook."""

    def succeed(self, result: Any = None, usage: Mapping[str, Any] | None = None) -> None:
        """It has succeeded."""

    def fail(
        self, code: str, message: str, result: Any = None, usage: Mapping[str, Any] | None = None
    ) -> None:
        """It has failed."""


class NoTask:
    """Stands where there is no task: it hears all and says nothing."""

    cancel_requested: Final = False
    watchers: Final = None

    def report_progress(self, *_: object, **__: object) -> bool:
        """Go on."""
        return True

    def succeed(self, result: Any = None, usage: Mapping[str, Any] | None = None) -> None:
        """Nothing."""

    def fail(
        self, code: str, message: str, result: Any = None, usage: Mapping[str, Any] | None = None
    ) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went, and what was handed over.

    `state` is succeeded, failed, cancelled, or superseded: another worker has the task now. `text` and `data`
    are the main text and the named values, whole, also where the task was too small for them.
    """

    state: str
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    result: Any = None
    usage: Mapping[str, Any] | None = None


class Watch:
    """Asks a task again and again whether its work should go on, and calls `act` once when it shouldn't.

    For use in one event loop, in a `with` block; outside of it nothing is asked.
    """

    def __init__(self, task: Reports, *, unwatched_seconds: float | None = None) -> None:
        self.act: Callable[[], object] = _nothing
        """What is done to stop. Until it is set, nothing has begun."""
        self.stopping = False
        self.told = False
        """The hook said that it should stop."""
        self.unwatched = False
        """Nobody has watched for as long as was given."""
        self._task = task
        self._patience = unwatched_seconds
        self._alone_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self.ask()
        return self

    def __exit__(self, *_: object) -> None:
        self.ask_no_more()

    def ask(self) -> bool:
        """Whether the work should go on, as far as is known; it is asked again and again from here on."""
        self.ask_no_more()
        if self.stopping:
            return False
        self.told = not self._task.report_progress()
        self.unwatched = not self.told and self._alone_for_long()
        if self.told or self.unwatched:
            self.stop()
            return False
        self._timer = self._loop.call_later(ASK_SECONDS, self.ask)
        return True

    def ask_no_more(self) -> None:
        """What the task says doesn't count from here on."""
        if self._timer is not None:
            self._timer.cancel()

    def stop(self) -> None:
        """Stop the work."""
        self.stopping = True
        self.act()

    def _alone_for_long(self) -> bool:
        if self._patience is None or self._task.watchers != 0:
            self._alone_since = None
            return False
        now = self._loop.time()
        if self._alone_since is None:
            self._alone_since = now
        return now - self._alone_since >= self._patience


async def relay(
    task: Reports | None, source: AsyncGenerator[Event, None], *, stop_when_unwatched: float | None = None
) -> Outcome:
    """Give a task what a source yields, to the source's end; how it went.

        async with bridge.task(job_id) as task:
            outcome = await relay(task, chain.events(request))

    With `stop_when_unwatched` the work is stopped, and the task failed with the code `unwatched`, when nobody
    has followed the task for so many seconds. A gateway counts as following for its `linger_seconds` (30)
    after the last stream or poll.

    Without a task (`bridge.current_task()` is None outside of any) the work is done all the same.

    Raises what the source raises; sources of this package don't, for what goes wrong out there.
    """
    task = NoTask() if task is None else task
    texts: list[str] = []
    data: dict[str, Any] = {}

    def keep(event: Event) -> None:
        if isinstance(event, Chunk) and event.field == MAIN_FIELD:
            texts.append(event.text)
        elif isinstance(event, Data):
            data[event.name] = event.value

    with Watch(task, unwatched_seconds=stop_when_unwatched) as watch:
        async with aclosing(source):
            end = None if watch.stopping else await carry(task, source, watch, keep=keep)
    state, end = conclude(task, end, told=watch.told, unwatched=watch.unwatched)
    return Outcome(state, "".join(texts), data, end.error, end.result, end.usage)


def relay_sync(
    task: Reports | None, source: AsyncGenerator[Event, None], *, stop_when_unwatched: float | None = None
) -> Outcome:
    """`relay` for work that is no coroutine, such as a Celery task: in an event loop of its own.

    Raises RuntimeError where one runs already.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(relay(task, source, stop_when_unwatched=stop_when_unwatched))
    raise RuntimeError("an event loop runs here already: use `await relay(…)`")


async def carry(
    task: Reports,
    source: AsyncGenerator[Event, None],
    watch: Watch,
    *,
    stop: Callable[[], object] | None = None,
    keep: Callable[[Event], object] | None = None,
) -> End | None:
    """Hand all events over; the source's end, or None if it has none or its reading was cancelled.

    `watch` stops it by `stop`, after which the source must end; without it the reading is cancelled. `keep`
    is shown every event.
    """
    reading = asyncio.ensure_future(_read(task, source, keep))
    watch.act = stop or reading.cancel
    try:
        return await reading
    except asyncio.CancelledError:
        this = asyncio.current_task()
        if not watch.stopping or not reading.cancelled() or (this is not None and this.cancelling()):
            raise
        return None


async def _read(
    task: Reports, source: AsyncGenerator[Event, None], keep: Callable[[Event], object] | None
) -> End | None:
    end: End | None = None
    async with aclosing(source):
        async for event in source:
            if keep is not None:
                keep(event)
            match event:
                case Chunk(text, name):
                    task.report_progress(text, field=name)
                case Progress(fraction, message):
                    if fraction is not None:
                        task.report_progress(fraction, message=message)
                    elif message is not None:
                        task.report_progress(message=message)
                case Data(name, value):
                    task.report_progress(value, name=name)
                case End():
                    end = event
    return end


def conclude(task: Reports, end: End | None, *, told: bool, unwatched: bool = False) -> tuple[str, End]:
    """Tell the task how its work went; the outcome's state, and the end. `told`: it was told to stop."""
    if end is not None and end.state == "failed":
        return _fail(task, end)
    if end is not None and end.state == "succeeded":
        task.succeed(end.result, end.usage)
        return "succeeded", end
    # It was stopped, or it is a source that just ends.
    end = end or End("succeeded")
    if told:
        return ("cancelled" if task.cancel_requested else "superseded"), end
    if unwatched:
        return _fail(task, End("failed", UNWATCHED))
    if end.state == "cancelled":
        return _fail(task, replace(end, error=STOPPED))
    return "succeeded", end


def _fail(task: Reports, end: End) -> tuple[str, End]:
    said = end.error or {}
    task.fail(said.get("code", "failed"), said.get("message", ""), end.result, end.usage)
    return "failed", end


def _nothing() -> None:
    """Nothing has begun that could be stopped."""
