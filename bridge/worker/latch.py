"""A one-shot signal from the pump's thread that threads and coroutines can wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Latch:
    """Once set it stays set. `set` may be called by any thread, and never raises."""

    __slots__ = ("_callbacks", "_event")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._event.is_set()

    def set(self) -> None:
        """Let everyone go on who waits, now and later."""
        self._event.set()
        for callback in list(self._callbacks):
            callback()

    def wait(self, seconds: float) -> bool:
        """Block the thread until it is set, at most so long; whether it is."""
        return self._event.wait(max(seconds, 0))

    async def wait_async(self, seconds: float) -> bool:
        """The same for a coroutine; the event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(resolve)
            except RuntimeError:
                pass  # the loop was closed, and nobody waits there any more

        self._callbacks.append(wake)
        try:
            # Looked at after the callback is in place: a `set` in between is seen here or there.
            if not self.is_set() and seconds > 0:
                async with asyncio.timeout(seconds):
                    await future
        except TimeoutError:
            pass
        finally:
            self._callbacks.remove(wake)
        return self.is_set()
