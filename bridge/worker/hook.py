"""`report_progress`: the one hook that work calls, wherever it runs."""

from __future__ import annotations

from typing import Final, overload

from bridge.worker import process
from bridge.worker.buffer import Buffer
from bridge.worker.report import MISSING, report
from bridge.worker.task import current_task

_NOWHERE: Final = Buffer.nowhere()


@overload
def report_progress(value: str | None, *, field: str = ...) -> bool: ...
@overload
def report_progress(value: float, *, message: str | None = ...) -> bool: ...
@overload
def report_progress(*, message: str | None = ...) -> bool: ...
@overload
def report_progress(value: object, *, name: str) -> bool: ...


def report_progress(
    value: object = MISSING,
    *,
    message: str | None = None,
    name: str | None = None,
    field: str | None = None,
) -> bool:
    """Report something of the task that runs here. True: go on. False: stop, cancelled or superseded.

        report_progress("some text")                     appends it to the answer
        report_progress("hm…", field="reasoning")        appends it to another field
        report_progress(0.4)                             a fraction, 0.0-1.0; keeps the status line
        report_progress(0.4, message="reading")          … and a status line
        report_progress(message="reading")               a status line; keeps the fraction
        report_progress(name="sources", value=[…])       a named JSON value; the latest wins
        report_progress()                                nothing, but says whether to go on

    It never waits: a thread in the background carries it to Redis, also when Redis is away for a while.
    Empty text and None report nothing. Lone surrogates become U+FFFD. Names have 1-100 printable
    characters, status lines are cut at 1,000. What a task reports beyond `max_task_bytes`, beyond 100
    fields or beyond 1,000 names is left out, and its end is marked `truncated`.

    Outside any task it checks its arguments, does nothing and returns True. Other threads than the task's
    and executors are outside: pass the task there, and call `task.report_progress`.

    Raises TypeError for ints, bools, bytes and arguments that don't go together, and `InvalidEvent` (a
    ValueError) for a fraction out of range, a bad name, or a value that JSON can't say.
    """
    task = current_task()
    if task is not None:
        return report(task.buffer, value, message, name, field)
    process.notice_unbound()
    return report(_NOWHERE, value, message, name, field)
