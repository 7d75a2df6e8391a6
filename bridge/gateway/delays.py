"""How long live events take: measured where they leave, and cheaply.

Rules
-----
1. Once per turn of the event loop, for the message that came first in it and so has waited longest: not per
   message, and never per follower. Under load that is a sample, of the worst.
2. A message is measured when the followers that were up to date have handed it to their sockets. They do so
   at once, or are woken by the event loop, in order: what is called behind them sees them all done. A
   follower whose socket is full is no part of it.
3. Fan-out is from our reading the message from the link until then. Delivery is from Redis time at which a
   script wrote the event, as far as the event carries it (every one but a chunk, and of a task's chunks one a
   second), by the clock of Redis as the audit knows it: short by as long as Redis' answer took, good to a
   millisecond otherwise, and never less than nothing. What the worker held back to merge text, and its way to
   Redis, is before that.
4. What was read from the log instead, because its message was lost, is not measured: it is counted (`heals`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from bridge.entries import Entry
from bridge.gateway.counts import Counts

_AT: Final = re.compile(rb',"at":(\d{1,15})\}\Z')
"""The time as scripts write it, behind all other members. To read the whole event would cost more."""


class Delays:
    """Measures into the counts. `redis_ms` tells Redis time at a moment of monotonic time, or None."""

    def __init__(self, counts: Counts, redis_ms: Callable[[float], float | None]) -> None:
        self._counts = counts
        self._redis_ms = redis_ms
        self._measuring = False

    def handed_out(self, came: float, entries: Sequence[Entry]) -> None:
        """A message that came at this moment of monotonic time was just offered to followers."""
        if not self._measuring:
            self._measuring = True
            asyncio.get_running_loop().call_soon(self._sent, came, entries)

    def _sent(self, came: float, entries: Sequence[Entry]) -> None:
        self._measuring = False
        now = monotonic()
        self._counts.fan_out.observe(now - came)
        redis_now = self._redis_ms(now)
        at = next((found for entry in entries if (found := _AT.search(entry.data))), None)
        if at is not None and redis_now is not None:
            self._counts.delivery.observe(max(0.0, (redis_now - int(at[1])) / 1000))
