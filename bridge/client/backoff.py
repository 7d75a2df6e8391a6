"""How long to wait before the next try. No clock of its own: failures are counted, not timed.

The server's wish (its `retry:`, which is jittered already) is waited exactly at first. Without one it is a
jittered second. Each further failure in a row waits twice as long, up to `LONGEST_WAIT`, and never less
than the wish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_WAIT: Final = 1.0
"""Seconds before the first new try when the server asked for nothing; jittered down to half of it."""

LONGEST_WAIT: Final = 30.0
"""Seconds that backoff grows to."""

LONGEST_RETRY: Final = 300.0
"""Seconds that a server may ask for; more means this."""


class Backoff:
    """Counts failures in a row. `wish` is what the server asked for last, in seconds, or None."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.wish: float | None = None
        self._jitter = jitter
        self._failures = 0

    def forgive(self) -> None:
        """Something went well."""
        self._failures = 0

    def failed(self) -> float:
        """Count one more failure; seconds to wait now."""
        self._failures += 1
        asked = FIRST_WAIT if self.wish is None else self.wish
        if self._failures == 1 and self.wish is not None:
            return asked
        # Capped exponent: after an hour of failures 2**n would not fit into a float any more.
        grown = max(asked, 0.05) * 2.0 ** min(self._failures - 1, 16)
        wait = min(grown, LONGEST_WAIT) * (0.5 + self._jitter() / 2)
        return wait if self.wish is None else max(wait, asked)
