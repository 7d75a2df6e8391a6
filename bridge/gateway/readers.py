"""The readers: they read the logs of channels that want to be read, a few at the same time.

Rules
-----
1. A channel that was not read yet is subscribed first, and read when that is acknowledged; so no event falls
   between the two. Without a link it is read all the same: the audit finds what was missed.
2. What is wrong with one task (a log that can't be read, even a bug met while reading it) is that task's
   trouble alone. It is postponed, those that wait for it are woken to be told why, and it is read again with
   the next audit, or sooner when somebody needs it.
3. When Redis is away, all that is read is postponed, and the audit knows.
4. Who reads finds out as well whether the task's worker is lost.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from bridge.errors import LinkDown, StoreError, StoreUnavailable
from bridge.gateway.audit import Audit
from bridge.gateway.channel import Channel
from bridge.store.link import Link
from bridge.store.log import Store

log = logging.getLogger("bridge.gateway")

_READERS: Final = 16
"""So many logs are read at the same time."""

_SUBSCRIBE_SECONDS: Final = 1.0


class Readers:
    """Channels that wait to be read, in order, and those whose reading failed."""

    def __init__(self, store: Store, link: Link, audit: Audit) -> None:
        self._store = store
        self._link = link
        self._audit = audit
        self._due: asyncio.Queue[Channel] = asyncio.Queue()
        self._postponed: dict[Channel, StoreError] = {}

    def ask(self, channel: Channel) -> None:
        """A channel wants to be read, and can be."""
        self._due.put_nowait(channel)

    def failed(self, channel: Channel) -> StoreError | None:
        """Why a channel could not be read when that was last tried, unless it is being tried again."""
        return self._postponed.get(channel)

    def retry(self, channel: Channel) -> None:
        """Read a channel again, if that has failed."""
        if self._postponed.pop(channel, None) is not None:
            self._due.put_nowait(channel)

    def retry_all(self) -> None:
        """Read all again for which that has failed."""
        for channel in list(self._postponed):
            self.retry(channel)

    def forget(self, channel: Channel) -> None:
        """Nobody needs the channel any more. It was dropped, and is passed over where it still waits."""
        self._postponed.pop(channel, None)

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(_READERS):
                group.create_task(self._reads(), name=f"bridge reader {number}")

    async def _reads(self) -> None:
        """A reader: takes channels that want to be read, one after the other, for ever. It keeps none."""
        while True:
            await self.read(await self._due.get())

    async def read(self, channel: Channel) -> None:
        """Read a channel's log, if that is still wanted. Raises nothing."""
        if channel.dropped or not channel.read_due:
            return
        if not channel.loaded:
            # Nor may a silent link keep the readers, who are few.
            with suppress(LinkDown, TimeoutError):
                async with asyncio.timeout(_SUBSCRIBE_SECONDS):
                    await self._link.subscribe(self._store.keys.channel(channel.task_id))
        after = channel.begin_read()
        try:
            reading = await self._store.read(channel.task_id, after)
            channel.load(reading)
        except StoreError as error:
            self._postpone(channel, error)
            return
        except Exception:
            log.exception("task %s: reading it broke in a way that it should not", channel.task_id)
            self._postpone(channel, StoreError("the gateway made a mistake"))
            return
        try:
            await self._audit.judge_lease(channel.task_id, reading.head, reading.now)
        except StoreError as error:
            self._audit.redis_failed(error)
        except Exception:
            log.exception("task %s: judging its lease broke in a way that it should not", channel.task_id)

    def _postpone(self, channel: Channel, error: StoreError) -> None:
        if isinstance(error, StoreUnavailable):
            self._audit.redis_failed(error)
        else:
            log.error("task %s can't be read: %s", channel.task_id, error)
        channel.read_failed()
        if channel.dropped:
            return
        self._postponed[channel] = error
        for follower in tuple(channel.followers):
            follower.wake()
