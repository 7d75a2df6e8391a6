"""How long to wait before the app is asked again. Pure: it is told what happened, and looks at no clock.

Rules
-----
1. While the task changes, the app is asked as often as is allowed; while it doesn't, ever more rarely, up to
   the longest pause. One change is enough to be quick again.
2. An app in trouble is left alone for longer each time, beginning with `FIRST_BACKOFF` shortest pauses.
3. `Retry-After` is the least pause, whatever the answer was; but not more than `LONGEST_ASKED_SECONDS`,
   because a mistake in it must not look like a task that hangs.
4. Every pause varies, so that the pollers of many tasks don't ask in step.
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Callable
from typing import Final

FIRST_BACKOFF: Final = 3
LONGEST_BACKOFF_SECONDS: Final = 30.0
LONGEST_ASKED_SECONDS: Final = 300.0
_GROWTH: Final = 1.5
_JITTER: Final = 0.2
"""A pause is made longer by up to this part of it."""


class Pace:
    """The pauses between the questions about one task. `random` gives numbers from 0 to 1."""

    def __init__(self, shortest: float, longest: float, random: Callable[[], float]) -> None:
        self._shortest = shortest
        self._longest = max(shortest, longest)
        self._random = random
        self._pause = shortest
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many questions in a row came to nothing."""
        return self._failures

    def answered(self, *, changed: bool, retry_after: float = 0.0) -> float:
        """Seconds to wait after an answer."""
        self._failures = 0
        self._pause = self._shortest if changed else min(self._pause * _GROWTH, self._longest)
        return self._varied(self._pause, retry_after)

    def failed(self, retry_after: float = 0.0) -> float:
        """Seconds to wait after no answer, or one that can't be understood."""
        self._failures += 1
        backoff = FIRST_BACKOFF * self._shortest * 2 ** min(self._failures - 1, 10)
        return self._varied(min(backoff, max(LONGEST_BACKOFF_SECONDS, self._longest)), retry_after)

    def _varied(self, pause: float, asked: float) -> float:
        pause = max(pause, min(asked, LONGEST_ASKED_SECONDS))
        return pause * (1 + _JITTER * self._random())


def retry_after(text: str | None, now: float) -> float:
    """The seconds that a `Retry-After` asks for (RFC 9110, 10.2.3): a number, or a date, by a clock that says
    `now` in seconds since 1970. 0 for none, for what is neither, and for what is over.
    """
    if text is None:
        return 0.0
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return max(0.0, moment - now) if math.isfinite(moment) else 0.0
