"""The memory that all channels of a gateway take together, and who gives some back when it is too much.

Lingering channels go first, the longest idle before the others; then history, which is read again when
somebody asks for it. What remains is what followers are in the midst of, and nobody loses that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from bridge.gateway.channel import Channel

log = logging.getLogger("bridge.gateway")

_CHANNEL_OVERHEAD: Final = 4096
"""About what a channel costs in memory beside what it holds, in bytes."""


def taken(channels: Iterable[Channel]) -> int:
    """About how many bytes these channels take."""
    return sum(channel.size + _CHANNEL_OVERHEAD for channel in channels)


class Budget:
    """So many bytes all channels may take. A budget that can't be kept is said once, not at every look."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._over = False

    def keep(self, channels: Collection[Channel], drop: Callable[[Channel], None]) -> None:
        """Look at all channels. `drop` is called for those that go, and takes them out of the collection."""
        warned, self._over = self._over, False
        total = taken(channels)
        if total <= self._most:
            return
        idle = sorted((c for c in channels if not c.followers), key=lambda c: c.idle_since)
        for channel in idle:
            total -= channel.size + _CHANNEL_OVERHEAD
            drop(channel)
            if total <= self._most:
                return
        for channel in sorted(channels, key=lambda c: c.size, reverse=True):
            total -= channel.size
            channel.forget_history()
            total += channel.size
            if total <= self._most:
                return
        self._over = True
        if not warned:
            log.warning("the tasks being read take %d bytes, more than channels_bytes allows", total)
