"""When the next request may go. Pure; told the time, never asking for it. Seconds.

Rules
-----
1. **Never quicker than `interval`**, whatever it is.
2. **A message that ages is edited more rarely**: a twentieth of its age. Hundreds of edits would make a room
   slow to load; so an hour has some hundred and fifty.
3. **A server that says "too many" is believed.** Nothing goes before the time that it names, and from then on
   edits come at that distance, and at twice the one before, up to `LONGEST`.
4. **At most `MOST_EDITS`** live edits per message. The last one, which completes it, is always sent, and only
   waits for 1 and 3.
"""

from __future__ import annotations

import math
from typing import Final

AGE_SHARE: Final = 1 / 20
LONGEST: Final = 60.0
MOST_EDITS: Final = 200


class Pace:
    """What the requests of one answer have in common."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._between = interval
        """The distance that live edits keep, at least; grows by rule 3."""
        self._last = -math.inf
        self._not_before = -math.inf

    def due(self) -> float:
        """When a message may be begun or completed."""
        return max(self._not_before, self._last + self._interval)

    def live_due(self, born: float, edits: int) -> float:
        """When a message that was begun at `born`, and edited so often, may be edited while it grows."""
        if edits >= MOST_EDITS:
            return math.inf
        aged = min(max(self._last - born, 0.0) * AGE_SHARE, LONGEST)
        return max(self._not_before, self._last + max(self._between, aged))

    def sent(self, now: float) -> None:
        """A request was answered well."""
        self._last = now

    def limited(self, now: float, seconds: float) -> None:
        """The server said "too many", and to come back in so many seconds."""
        self._not_before = now + seconds
        self._between = max(self._between, min(max(2 * self._between, seconds), LONGEST))

    def failed(self, now: float, seconds: float) -> None:
        """The server couldn't be reached; the next try is in so many seconds."""
        self._not_before = now + seconds
