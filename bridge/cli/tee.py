"""Copies a command's output to our own, without letting a reader that stands still stop everything.

Whoever reads our output may pause (a pager) or leave (`head`). While it pauses, the command pauses too, as
it would without us; but a cancel or a Ctrl-C must still be heard, so a thread does the writing. When it has
left, the output goes to the bridge alone: a viewer that goes away is no reason to end the work. Once the work
is to stop, a reader is given `PATIENCE_SECONDS` for each piece.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from queue import SimpleQueue
from typing import Final

PATIENCE_SECONDS: Final = 0.5


class Tee:
    """Writes bytes to a descriptor, one piece at a time. For one event loop, until `close`."""

    def __init__(self, descriptor: int) -> None:
        self.mid_line = False
        """Whether what was written last didn't end its line."""
        self.descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._writing: asyncio.Future[None] | None = None
        self._released = False
        self._hurried = False
        # A daemon, because nothing can wake it from a write to somebody who stands still.
        threading.Thread(target=self._run, daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Write all of it, then return; drop it when nobody reads any more."""
        if self._released:
            return
        self._writing = self._loop.create_future()
        self._queue.put(data)
        if self._hurried:
            self.hurry()
        await self._writing
        self.mid_line = not data.endswith(b"\n")

    def hurry(self) -> None:
        """From now on, don't wait long for whoever reads the output."""
        self._hurried = True
        if self._writing is not None:
            self._loop.call_later(PATIENCE_SECONDS, self._release, self._writing)

    def _release(self, writing: asyncio.Future[None]) -> None:
        if not writing.done():
            self._written(False)

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)

    def _written(self, good: bool) -> None:
        self._released = self._released or not good
        if self._writing is not None and not self._writing.done():
            self._writing.set_result(None)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            good = _write_all(self.descriptor, data)
            try:
                self._loop.call_soon_threadsafe(self._written, good)
            except RuntimeError:
                return  # the loop was closed without us


def _write_all(descriptor: int, data: bytes) -> bool:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Somebody else who has this terminal or pipe made it so.
            select.select([], [descriptor], [])
        except OSError:
            return False
    return True
