"""What uvicorn keeps for every connection in case that somebody waits, without room for those who don't.

A `deque`, and so every `asyncio.Event`, takes 700 bytes from its beginning on, for the sixty-four who may
wait in it. A connection of uvicorn's has three, a sixth of what an idle stream took. These do the same, and
take next to nothing as long as nobody waits.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from uvicorn.protocols.http.flow_control import FlowControl


class Flag:
    """An `asyncio.Event`, which is made when somebody waits for it and given up when it is set."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        """Whether it is."""
        return self._is_set

    def set(self) -> None:
        """Let all go on who wait, also if it is cleared before they do."""
        self._is_set = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def clear(self) -> None:
        """Who waits from now on, waits."""
        self._is_set = False

    async def wait(self) -> Literal[True]:
        """Wait until it is set."""
        if not self._is_set:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
        return True


class Flow(FlowControl):
    """uvicorn's own, all of it, with a `Flag`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.read_paused = False
        self.write_paused = False
        self._reads_from = transport
        self._writable = Flag()
        self._writable.set()

    async def drain(self) -> None:
        """Wait until the client is writable."""
        await self._writable.wait()

    def pause_reading(self) -> None:
        """Take nothing from the client."""
        if not self.read_paused:
            self.read_paused = True
            self._reads_from.pause_reading()

    def resume_reading(self) -> None:
        """Take it again."""
        if self.read_paused:
            self.read_paused = False
            self._reads_from.resume_reading()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self.write_paused = False
        self._writable.set()


class Pipeline(list[Any]):
    """The requests that wait behind an answer: as much of a deque as uvicorn asks for."""

    __slots__ = ()

    def appendleft(self, item: Any) -> None:
        """Another one, behind all others."""
        self.insert(0, item)
