"""The typing indicator: on while an answer grows, renewed before it runs out, and always taken back.

Several answers may grow in one room: the last one to end takes it back. It is a courtesy: where it fails,
nobody waits for it and nothing else does. A process that is killed takes nothing back; then it ends by
itself, after `TIMEOUT_SECONDS`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from bridge.errors import SinkError
from bridge.sinks.matrix.api import Homeserver

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 30.0
RENEW_SECONDS: Final = 20.0


class Indicators:
    """One user's indicators, in any number of rooms."""

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._answers: Counter[str] = Counter()
        self._on: set[str] = set()

    @asynccontextmanager
    async def shown(self, room: str, user: str) -> AsyncGenerator[Indicator]:
        """An indicator that is on from its first `renew` to the end of the block."""
        indicator = Indicator(self._homeserver, self._on, room, user)
        self._answers[room] += 1
        try:
            yield indicator
        finally:
            self._answers[room] -= 1
            if not self._answers[room]:
                del self._answers[room]
                await indicator.clear()


class Indicator:
    """One answer's. `due` is when it must be renewed, by the monotonic clock: at once, at first."""

    def __init__(self, homeserver: Homeserver, on: set[str], room: str, user: str) -> None:
        self.due = 0.0
        self._homeserver = homeserver
        self._on = on
        """The rooms where it is on, by any answer."""
        self._room = room
        self._user = user

    async def renew(self) -> None:
        """Say that it goes on."""
        self._on.add(self._room)
        self.due = time.monotonic() + RENEW_SECONDS
        await self._say(TIMEOUT_SECONDS)

    async def clear(self) -> None:
        """Say that it is over, if anything was said."""
        if self._room in self._on:
            self._on.discard(self._room)
            await self._say(0.0)

    async def _say(self, seconds: float) -> None:
        try:
            await self._homeserver.typing(self._room, self._user, seconds)
        except SinkError as error:
            log.debug("the typing indicator failed: %s", error)
