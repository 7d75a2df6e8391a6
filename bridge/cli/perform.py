"""Hands a source's events to a task, and stops the source when a signal or the bridge says so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Self

from bridge import Task
from bridge.cli import errors
from bridge.errors import StoreError
from bridge.events import Chunk, Data, End, Event, Progress
from bridge.settings import Settings
from bridge.store.connect import async_client, keys_for
from bridge.store.log import Store

OPEN_SECONDS: Final = 2.0
"""So long Redis is asked whether the task was cancelled already, before the work begins all the same."""

LAST_SECONDS: Final = 1.0
"""So long the end may still take to reach Redis once a signal wants us to go."""

ASK_SECONDS: Final = 0.1
"""How often a silent source's task is looked at; that costs no I/O."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `state` is the task's end, or "superseded": another worker has the task now."""

    state: str
    exit_code: int
    began: bool = True
    confirmed: bool = True
    """Whether Redis has taken everything, or will never want it."""


class _Stops:
    """Hears what wants the work to stop, remembers the first, and passes each on to `act`."""

    def __init__(self, task: Task) -> None:
        self.signal = 0
        self.told = False
        self.act: Callable[[int], object] = lambda _: None
        """What is done to stop, with the signal to use. Until it is set, nothing has begun."""
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._signals = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        ]

    def __enter__(self) -> Self:
        for number in self._signals:
            self._loop.add_signal_handler(number, self._on_signal, number)
        self.ask()
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._signals:
            self._loop.remove_signal_handler(number)
        self.ask_no_more()

    def ask(self) -> bool:
        """Whether the work should go on, as far as is known; it is asked again and again from here on."""
        self.ask_no_more()
        if self.signal or self.told:
            return False
        if not self._task.report_progress():
            self.told = True
            self.act(signal.SIGTERM)
            return False
        self._timer = self._loop.call_later(ASK_SECONDS, self.ask)
        return True

    def ask_no_more(self) -> None:
        """Only signals count from here on."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_signal(self, number: int) -> None:
        if not (self.signal or self.told):
            self.signal = number
            _cancel_here(self._task)
        self.act(number)


async def perform(
    task_id: str,
    settings: Settings,
    source: AsyncGenerator[Event, None],
    stop: Callable[[int], object] | None = None,
) -> Outcome:
    """Run a task with what the source yields, to the end of both.

    `stop` is called with a signal's number when the work should stop, and again for every further signal;
    the source must end then. Without it, reading the source is cancelled. A source whose task was cancelled
    before it began is not started. Raises what the source raises, after the task has ended as failed.
    """
    task = Task(task_id, settings)
    with _Stops(task) as stops:
        forbidden = await _is_cancelled(task_id, settings)
        task.start()
        try:
            began = not forbidden and stops.ask()
            end = await _carry(task, source, stops, stop) if began else None
        except BaseException as error:
            await task.finish_async(error)
            raise
        if forbidden:
            _cancel_here(task)
            stops.told = True
        outcome = _outcome(task, end, stops)
        confirmed = await _finish(task, stops)
    return replace(outcome, began=began, confirmed=confirmed)


async def _is_cancelled(task_id: str, settings: Settings) -> bool:
    """Whether a cancel forbids a new attempt. If Redis can't say so now, the work isn't kept waiting."""
    client = async_client(settings)
    store = Store(client, keys_for(settings, client))
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            # Any script's answer tells it, and this one changes nothing for a worker that it doesn't know.
            answer = await store.run(store.calls.renew(task_id, token="", lease_ms=0))
    except (StoreError, TimeoutError):
        return False
    finally:
        await client.aclose()
    return answer.cancel_requested


async def _carry(
    task: Task,
    source: AsyncGenerator[Event, None],
    stops: _Stops,
    stop: Callable[[int], object] | None,
) -> End | None:
    """Hand over all events. The end is returned; None if there is none or the reading was cancelled."""
    reading = asyncio.ensure_future(_read(task, source))
    stops.act = stop or (lambda _: reading.cancel())
    try:
        return await reading
    except asyncio.CancelledError:
        if not reading.cancelled() or not (stops.signal or stops.told):
            raise
        return None


async def _read(task: Task, source: AsyncGenerator[Event, None]) -> End | None:
    end: End | None = None
    async with aclosing(source):
        async for event in source:
            match event:
                case Chunk(text, field):
                    task.report_progress(text, field=field)
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


def _outcome(task: Task, end: End | None, stops: _Stops) -> Outcome:
    """What became of the work; tells the task, too."""
    if end is not None and end.state == "failed":
        said = end.error or {}
        task.fail(said.get("code", "failed"), said.get("message", ""), end.result)
        return Outcome("failed", (end.result or {}).get("exit_code", errors.FAILED))
    if end is not None and end.state == "succeeded":
        task.succeed(end.result, end.usage)
        return Outcome("succeeded", errors.SUCCEEDED)
    # It was stopped, or it is a source that just ends.
    if stops.signal:
        return Outcome("cancelled", 128 + stops.signal)
    if stops.told:
        if task.cancel_requested:
            return Outcome("cancelled", errors.CANCELLED)
        return Outcome("superseded", errors.FAILED)
    return Outcome("succeeded", errors.SUCCEEDED)


async def _finish(task: Task, stops: _Stops) -> bool:
    """End the task; whether Redis knows. A signal meanwhile means: don't wait long for that. But a Redis that
    is there must still be told, also when the signal comes in the very moment in which the work ends.
    """
    # A task that has ended says stop to everybody.
    stops.ask_no_more()
    finishing = asyncio.ensure_future(task.finish_async())
    loop = asyncio.get_running_loop()
    stops.act = lambda _: loop.call_later(LAST_SECONDS, finishing.cancel)
    try:
        return await finishing
    except asyncio.CancelledError:
        if not finishing.cancelled():
            raise
        return False


def _cancel_here(task: Task) -> None:
    """The person at this end cancels: the task ends so, and there is nobody who must be asked for it."""
    task.buffer.request_cancel()
    task.report_progress()
