"""The memory that all channels of a gateway take together, and who gives some back when it is too much.

Lingering channels go first, the longest idle before the others; then history, which is read again when
somebody asks for it. What remains is what followers are in the midst of, and nobody loses that.

How much they take is known without looking at any: what each takes or gives back it adds to one number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sized
from typing import Final, Protocol, TypeVar

log = logging.getLogger("bridge.gateway")

_CHANNEL_OVERHEAD: Final = 4096
"""About what a channel costs in memory beside what it holds, in bytes."""


class Taken:
    """About how many bytes all channels of a gateway hold."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Holder(Protocol):
    """What a channel is here."""

    idle_since: float
    size: int

    @property
    def followers(self) -> Sized:
        """Who reads it."""

    def forget_history(self) -> None:
        """Give back what can be read again."""


H = TypeVar("H", bound=Holder)


class Budget:
    """So many bytes all channels may take. A budget that can't be kept is said once, not at every look."""

    def __init__(self, most: int) -> None:
        self.taken = Taken()
        self._most = most
        self._over = False

    def total(self, channels: Sized) -> int:
        """About how many bytes all channels take; these are all."""
        return self.taken.bytes + _CHANNEL_OVERHEAD * len(channels)

    def keep(self, channels: Collection[H], drop: Callable[[H], None]) -> None:
        """Take memory from channels if all have too much. `drop` is called for those that go, and takes them
        out of the collection.
        """
        warned, self._over = self._over, False
        total = self.total(channels)
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
