"""How long to wait for who is away, and when to give up. Seconds.

Each further failure in a row waits twice as long, jittered, up to `LONGEST_WAIT`, and never less than who was
asked wants. The first of a row is logged, and the end of the row.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from bridge.errors import BridgeError, SinkUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS: Final = 600.0
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0


class Failures:
    """Counts failures in a row; told the time. Patience is `PATIENCE_SECONDS`, or, `forever`, without end."""

    def __init__(self, *, forever: bool = False) -> None:
        self._forever = forever
        self._since = math.inf
        self._count = 0

    def forgive(self) -> None:
        """Something went well."""
        if self._count:
            log.warning("it works again")
        self._since, self._count = math.inf, 0

    def bear(self, error: BridgeError, now: float, *, forever: bool = False) -> None:
        """Raise `error` when patience is over. Where it has no end it hasn't begun either."""
        if forever or self._forever:
            self._since = now
        self._since = min(self._since, now)
        if now - self._since > PATIENCE_SECONDS:
            raise error

    def wait(self, error: BridgeError, now: float, *, forever: bool = False) -> float:
        """Seconds until the next try. Raises `error` when patience is over."""
        self.bear(error, now, forever=forever)
        if not self._count:
            log.warning("%s; trying again", error)
        grown = min(FIRST_WAIT * 2.0 ** min(self._count, 16), LONGEST_WAIT)
        self._count += 1
        asked = error.retry_seconds if isinstance(error, SinkUnavailable) else 0.0
        return max(grown * (0.5 + random.random() / 2), asked)


async def insist(ask: Callable[[], Awaitable[T]], *, forever: bool = False) -> T:
    """Ask until there is an answer. Raises `SinkUnavailable` when patience is over, if it ever is."""
    failures = Failures(forever=forever)
    while True:
        try:
            answer = await ask()
        except SinkUnavailable as error:
            await asyncio.sleep(failures.wait(error, time.monotonic()))
        else:
            failures.forgive()
            return answer
