"""How a task ends: from what the work said, what it raised, and whether it was told to stop. Pure.

In this order:

0. `task.requeue` was called: that; the task itself goes on.
1. `task.fail` was called: that, also when something is raised afterwards.
2. Something was raised: `cancelled` if somebody had asked to cancel and the work knew (it was told so by a
   report, or what was raised is CancelledError or GeneratorExit); otherwise `failed`, with the type's name
   as code. SystemExit with status 0 is no failure.
3. `task.succeed` was called: that.
4. The work was told to stop because of a cancel: `cancelled`.
5. `succeeded`.

What the work returned, or said with `task.succeed`, is the result also where it was cancelled: what there is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.codec import MAX_DEPTH, dumps, utf8

MAX_MESSAGE: Final = 1000
"""Characters of an error's message; a longer one is cut."""

_INTERRUPTIONS: Final = {
    asyncio.CancelledError: "The work was cancelled where it ran.",
    GeneratorExit: "The work was closed before it had finished.",
    KeyboardInterrupt: "The work was interrupted.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work ended. `result` and `usage` are JSON values that nobody changes any more.

    state: as in the `end`; or "queued", when it will be begun again; or "", when that isn't decided yet.
    """

    state: str
    error: Mapping[str, str] | None = None
    result: Any = None
    usage: Mapping[str, Any] | None = None
    truncated: bool = False


def ending(
    said: Ending | None, raised: BaseException | None, *, told_to_stop: bool, cancel_requested: bool
) -> Ending:
    """The end by the rules at the top."""
    if isinstance(raised, SystemExit) and raised.code in (None, 0):
        raised = None
    said = said or Ending("")
    if said.state in ("failed", "queued"):
        return said
    if raised is not None:
        stopped = isinstance(raised, asyncio.CancelledError | GeneratorExit) and cancel_requested
        if stopped or told_to_stop:
            return replace(said, state="cancelled")
        return Ending("failed", error_of(raised), usage=said.usage)
    if said.state:
        return said
    return replace(said, state="cancelled" if told_to_stop else "succeeded")


def error_of(raised: BaseException) -> dict[str, str]:
    """Code and message for what the work raised. Nothing of its traceback: clients read this."""
    code = type(raised).__name__
    if isinstance(raised, SystemExit):
        return failure(code, f"The work exited with status {raised.code}.")
    for kind, message in _INTERRUPTIONS.items():
        if isinstance(raised, kind):
            return failure(code, message)
    try:
        message = str(raised)
    except Exception:
        message = ""  # an exception that can't even say itself must not hide behind another
    return failure(code, message or f"{code} without a message")


def failure(code: str, message: str) -> dict[str, str]:
    """An `error` within its limits. Lone surrogates become U+FFFD."""
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    return {"code": utf8(code[:100]).decode(), "message": utf8(message).decode()}


def json_copy(value: Any) -> tuple[Any, int]:
    """A copy of a JSON value that its owner can't change any more, and its size in bytes.

    Raises `InvalidEvent` for what JSON can't say.
    """
    data = dumps(value, MAX_DEPTH)
    return json.loads(data), len(data)
