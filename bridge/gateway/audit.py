"""The audit: what a gateway does to be sure that it hears everything, and who may judge a lease.

Rules
-----
1. Every round compares epoch, seq and size of all channels with Redis and then sends a message to itself over
   the link (the probe). Redis handles both in order, so when the probe is back, every event that the
   comparison saw must have arrived as well: a channel that still lacks one has lost a message, and reads.
   In health the round of many channels is done in parts, spread evenly over the time until the next one, and
   each part has its probe: to compare ten thousand at once would hold up what is sent.
   That finds a lost last message too, which no later one would betray. The probe is also a write, in the same
   step: a Redis that refuses writes has failed, though it answers everything else.
2. What is in memory is doubtful from the moment that the link drops, Redis fails or a probe is overdue, until
   a whole round has gone well on one and the same link. A link that a probe doesn't come back on is replaced.
3. A lease that is over ends its task only after this gateway's connections have been well for a whole lease
   without a break: when Redis was stopped, or took no writes, every lease looks over. The call says when it
   was sent, so that one that lay in a stopped server's queue is not believed either. Rounds come at least
   three times a lease: a stop too short for them to notice is too short to have kept a living worker from
   renewing.
4. What is wrong with one task keeps no other from being compared or judged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from bridge.errors import StoreError, StoreUnavailable
from bridge.events import Position
from bridge.gateway.channel import Channel
from bridge.gateway.counts import Counts
from bridge.settings import Settings
from bridge.store.link import Link
from bridge.store.log import Head, Store

log = logging.getLogger("bridge.gateway")

_HEADS_PER_ROUND_TRIP: Final = 200
"""Reading so many takes about a millisecond, in which nothing is sent."""
_OVERDUE_SECONDS: Final = 1.0
"""In health a probe takes about a millisecond."""


_Comparison = tuple[Channel, Position, int, Head | None, int]
"""What a round saw of a channel: what it held, after how many reads, then its head in Redis, and Redis time
when that was so.
"""


class Audit:
    """Rounds of comparing and probing, and what follows from them about the health of the connections."""

    def __init__(self, settings: Settings, store: Store, link: Link, counts: Counts) -> None:
        self._settings = settings
        self._counts = counts
        self._store = store
        self._link = link
        self._now = asyncio.Event()
        self._token = b""
        self._back = asyncio.Event()
        self._sent_at: float | None = None
        self._well_since: float | None = None
        self._lag: float | None = None
        self._redis_clock: tuple[int, float] | None = None
        self.probe_channel = store.keys.probe(secrets.token_hex(8))

    @property
    def well(self) -> bool:
        """Whether Redis answers and live events are known to arrive."""
        return not self.doubtful

    @property
    def doubtful(self) -> bool:
        """Whether what is in memory may be behind what Redis has (rule 2)."""
        overdue = self._sent_at is not None and monotonic() - self._sent_at > _OVERDUE_SECONDS
        return overdue or self._well_since is None or not self._link.is_up

    @property
    def judges(self) -> bool:
        """Whether this gateway may end tasks whose lease is over (rule 3)."""
        return (
            self._well_since is not None
            and not self.doubtful
            and monotonic() - self._well_since >= self._settings.lease_seconds
        )

    @property
    def lag(self) -> float | None:
        """How many seconds the last probe took until it was back; or the one under way, if that is more."""
        if self._sent_at is None:
            return self._lag
        return max(self._lag or 0.0, monotonic() - self._sent_at)

    def redis_ms(self, moment: float) -> float | None:
        """Redis time (ms) at a moment of monotonic time. Behind by as long as the answer was on its way."""
        if self._redis_clock is None:
            return None
        now, seen_at = self._redis_clock
        return now + (moment - seen_at) * 1000

    def soon(self) -> None:
        """Make the next round begin at once: the link came up, and who knows what was missed."""
        self._sent_at = None
        self._now.set()
        # A probe that is on its way was sent to the link before this one, and will not come back.
        self._back.set()

    def trouble(self) -> None:
        """Redis failed, or the link dropped: from here on nothing counts as well until a probe comes back."""
        self._well_since = None

    def redis_failed(self, error: StoreError) -> None:
        """Redis didn't answer somebody, or not as it should. What is new of that is logged."""
        if self.well or not isinstance(error, StoreUnavailable):
            log.warning("%s", error)
        self.trouble()

    def probe_arrived(self, token: bytes) -> None:
        """A message came in on the probe's channel."""
        if token == self._token:
            if self._sent_at is not None:
                self._lag = monotonic() - self._sent_at
            self._sent_at = None
            self._back.set()

    async def run(self, channels: Callable[[], Iterable[Channel]]) -> None:
        """A round every few seconds, for ever."""
        settings = self._settings
        pause = min(settings.audit_seconds, settings.probe_seconds, settings.lease_seconds / 3)
        while True:
            self._now.clear()
            until = monotonic() + pause
            try:
                await self._round(list(channels()), pause)
            except StoreError as error:
                self.redis_failed(error)
            except Exception:
                log.exception("the audit broke in a way that it should not")
            await self._wait(until - monotonic())

    async def _wait(self, seconds: float) -> None:
        """Wait for the next round, or part of one; not when that is wanted at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._now.wait()

    async def _round(self, channels: Sequence[Channel], seconds: float) -> None:
        if await self._store.look():
            log.warning("the Sentinels name another master; all connections are made anew")
            self.trouble()
            self._link.drop()
        if self.doubtful:
            await self._compare(channels, whole=True)
            return
        parts = range(0, len(channels) or 1, _HEADS_PER_ROUND_TRIP)
        for start in parts:
            some = channels[start : start + _HEADS_PER_ROUND_TRIP]
            await self._compare(some, whole=len(parts) == 1)
            if not self.well or self._now.is_set():
                return
            if start != parts[-1]:
                await self._wait(seconds / len(parts))

    async def _compare(self, channels: Sequence[Channel], *, whole: bool) -> None:
        """Compare and probe (rule 1). whole: these are all channels there are."""
        compared: list[_Comparison] = []
        settled = [c for c in channels if c.loaded and not (c.reading or c.dropped)]
        for start in range(0, max(len(settled), 1), _HEADS_PER_ROUND_TRIP):
            some = settled[start : start + _HEADS_PER_ROUND_TRIP]
            held = [channel.position for channel in some]
            reads = [channel.reads_done for channel in some]
            heads, now = await self._store.heads([channel.task_id for channel in some])
            self._redis_clock = (now, monotonic())
            compared += zip(some, held, reads, heads, [now] * len(some), strict=True)
        await self._probe(whole=whole)
        for channel, before, reads_before, head, _ in compared:
            # What was read since is newer: an older head must not take back whose the task is.
            if not channel.dropped and channel.reads_done == reads_before:
                channel.compare(head, before)
        for channel, _, _, head, now in compared:
            if _looks_over(head, now):
                await self.judge_lease(channel.task_id, head, now)

    async def _probe(self, *, whole: bool) -> None:
        if not self._link.is_up:
            return
        self._token = secrets.token_bytes(8)
        self._back.clear()
        self._sent_at = sent_at = monotonic()
        await self._store.probe(self.probe_channel, self._token)
        try:
            async with asyncio.timeout(self._settings.probe_seconds):
                await self._back.wait()
        except TimeoutError:
            self.trouble()
            if self._link.is_up:
                log.warning("the link to Redis is silent: the probe didn't come back, so a new link is made")
                self._link.drop()
            return
        if self._now.is_set():
            return  # the link is another than the one that the probe was sent over
        if self._well_since is None and not whole:
            return  # rule 2
        now = monotonic()
        if self._well_since is None or now - sent_at > self._settings.lease_seconds / 3:
            self._well_since = now

    async def judge_lease(self, task_id: str, head: Head | None, now: int) -> None:
        """End a task whose lease is over, if we may judge that. `now` is Redis time when `head` was read.

        Raises `StoreUnavailable`.
        """
        if not _looks_over(head, now) or not self.judges:
            return
        sent_at = int(self.redis_ms(monotonic()) or 0)
        try:
            answer = await self._store.run(self._store.calls.expire(task_id, sent_at=sent_at))
        except StoreUnavailable:
            raise
        except StoreError as error:
            log.error("task %s: its lease is over, but it can't be ended: %s", task_id, error)
            return
        if answer.verdict == "applied":
            self._counts.leases_lost += 1
            log.warning("task %s: its worker is lost", task_id)


def _looks_over(head: Head | None, now: int) -> bool:
    """Whether a lease is, at that Redis time, of which nobody knows yet how long it was on its way."""
    return head is not None and head.state == "running" and 0 < head.lease < now
