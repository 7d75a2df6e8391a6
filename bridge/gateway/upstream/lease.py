"""Who asks the app about a task: one gateway of the fleet, as long as it holds a lease in Redis.

Rules
-----
1. The lease is a key with a TTL. Who has it keeps it three times in that time; when its holder dies, it runs
   out, and another takes it.
2. It is given back as soon as nobody follows, or the gateway goes away, so that the next need not wait.
3. Who couldn't keep it for its length hasn't got it any more, and knows that by its own clock, before Redis
   is asked: a holder that hung may have the app's answer in its hands, but another's is newer.
4. It is politeness towards the app. That nothing is written twice doesn't depend on it (`recorder.py`): a
   holder that hung may wake up after another has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final

from bridge.errors import StoreError
from bridge.store.log import Store

LONGEST_SECONDS: Final = 10.0
"""So long at most a dead gateway's tasks are asked about by nobody."""
_GOODBYE_SECONDS: Final = 1.0


class Lease:
    """One gateway's lease on one task. `lost` is called when somebody else turns out to have it."""

    def __init__(
        self, store: Store, task_id: str, holder: str, seconds: float, lost: Callable[[], None]
    ) -> None:
        self._store = store
        self._name = store.keys.poller(task_id)
        self._holder = holder
        self._lost = lost
        self.seconds = min(seconds, LONGEST_SECONDS)
        self._taken = False
        self._kept_at = 0.0

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._taken and monotonic() - self._kept_at < self.seconds

    async def take(self) -> bool:
        """Whether it is ours now. Raises `StoreError`."""
        asked_at = monotonic()
        self._taken = await self._store.claim(self._name, self._holder, int(self.seconds * 1000))
        self._kept_at = asked_at
        return self.held

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Within the block a lease that was taken is kept, if that is possible; then it is given back."""
        keeper = asyncio.create_task(self._keep(), name="bridge lease keeper")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            if self._taken:
                self._taken = False
                with suppress(StoreError, TimeoutError):
                    async with asyncio.timeout(_GOODBYE_SECONDS):
                        await self._store.claim(self._name, self._holder, 0)

    async def _keep(self) -> None:
        while self.held:
            await asyncio.sleep(self.seconds / 3)
            with suppress(StoreError):  # as long as nobody else can have it, it is ours
                await self.take()
        self._lost()
