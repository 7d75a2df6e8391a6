"""Hands a source's events to a task, and stops the source when a signal or the bridge says so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final, Self

from bridge import Task
from bridge.cli import errors
from bridge.errors import StoreError
from bridge.events import End, Event
from bridge.settings import Settings
from bridge.sources.relay import Watch, carry, conclude
from bridge.store.connect import async_client, keys_for
from bridge.store.log import Store

OPEN_SECONDS: Final = 2.0
"""So long Redis is asked whether the task was cancelled already, before the work begins all the same."""

LAST_SECONDS: Final = 1.0
"""So long the end may still take to reach Redis once a signal wants us to go."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `state` is the task's end, or "superseded": another worker has the task now."""

    state: str
    exit_code: int
    began: bool = True
    confirmed: bool = True
    """Whether Redis has taken everything, or will never want it."""


class _Signals:
    """Hears the signals that want the work to stop, remembers the first, and passes each on to `act`. When it
    has ended without raising, a Ctrl-C is ignored from then on.
    """

    def __init__(self, task: Task, watch: Watch) -> None:
        self.first = 0
        self.act: Callable[[int], object] = lambda _: None
        """What is done to stop, with the signal to use. Until it is set, nothing has begun."""
        self._task = task
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._heard = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        ]

    def __enter__(self) -> Self:
        for number in self._heard:
            self._loop.add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._heard:
            if kind is None and number == signal.SIGINT:
                self._ignore_ctrl_c()
            else:
                self._loop.remove_signal_handler(number)

    def _ignore_ctrl_c(self) -> None:
        """The work has ended, and the little that is left to do mustn't be broken off in its middle by who
        presses it once more. The other signals may: they must end us when nobody reads what we say last.
        """
        # asyncio leaves it to Python's own handler for a moment, which raises.
        with suppress(KeyboardInterrupt):
            self._loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self, number: int) -> None:
        if not (self.first or self._watch.stopping):
            self.first = number
            _cancel_here(self._task)
            self._watch.ask_no_more()
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
    with Watch(task) as watch, _Signals(task, watch) as signals:
        forbidden = await _is_cancelled(task_id, settings)
        task.start()
        try:
            began = not (forbidden or signals.first) and watch.ask()
            end = await _carry(task, source, watch, signals, stop) if began else None
        except BaseException as error:
            await task.finish_async(error)
            raise
        if forbidden:
            _cancel_here(task)
        state, end = conclude(task, end, told=forbidden or watch.told or signals.first > 0)
        outcome = _outcome(state, end, signals)
        # A task that has ended says stop to everybody.
        watch.ask_no_more()
        confirmed = await _finish(task, signals)
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
    watch: Watch,
    signals: _Signals,
    stop: Callable[[int], object] | None,
) -> End | None:
    """Hand over all events; signals and the bridge stop the source in the same way."""
    if stop is None:
        signals.act = lambda _: watch.stop()
        return await carry(task, source, watch)
    signals.act = stop
    return await carry(task, source, watch, stop=partial(stop, signal.SIGTERM))


def _outcome(state: str, end: End, signals: _Signals) -> Outcome:
    """What became of the work, for whoever started us."""
    match state:
        case "failed":
            return Outcome(state, (end.result or {}).get("exit_code", errors.FAILED))
        case "cancelled":
            return Outcome(state, 128 + signals.first if signals.first else errors.CANCELLED)
        case "superseded":
            return Outcome(state, errors.FAILED)
    return Outcome(state, errors.SUCCEEDED)


async def _finish(task: Task, signals: _Signals) -> bool:
    """End the task; whether Redis knows. A signal meanwhile means: don't wait long for that. But a Redis that
    is there must still be told, also when the signal comes in the very moment in which the work ends.
    """
    finishing = asyncio.ensure_future(task.finish_async())
    loop = asyncio.get_running_loop()
    signals.act = lambda _: loop.call_later(LAST_SECONDS, finishing.cancel)
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
