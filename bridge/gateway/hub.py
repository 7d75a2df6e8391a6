"""The hub: all channels of one gateway process, fed by one link.

What it promises
----------------
- Join: subscribe, wait for the acknowledgement, read the log, go live. However many followers come at once,
  a task is subscribed and read once.
- In health a poll of a known channel costs no Redis. While what is in memory is doubtful (see `audit.py`) a
  poll reads the log first (`fresh`), and the gateway is not ready.
- What is wrong with one task (a log that can't be read, even a bug met while reading it) is that task's
  trouble alone, and everything else goes on (`readers.py`).
- Nothing here depends on Redis being there: the hub starts without it, keeps its followers, and goes on when
  it comes back.

One loop ticks for all followers (heartbeats, stalls, waits that are over) and for memory; there is no timer
per connection. It looks at no follower that has nothing due (`ticks.py`), and only at channels that nobody
follows. `run` owns every task that the hub ever starts.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Protocol

from bridge.errors import CorruptLog, LinkDown, StoreUnavailable
from bridge.events import START, Position
from bridge.gateway.arrivals import Arrival, joined
from bridge.gateway.audit import Audit
from bridge.gateway.channel import Channel
from bridge.gateway.counts import Counts
from bridge.gateway.delays import Delays
from bridge.gateway.follower import TICK_SECONDS, Follower, Nobody, Observer
from bridge.gateway.memory import Budget
from bridge.gateway.readers import Readers
from bridge.gateway.ticks import Ticks
from bridge.settings import Settings
from bridge.store.connect import ANSWER_SECONDS, async_client, keys_for
from bridge.store.link import Link, Message
from bridge.store.log import Head, Store, parse_message
from bridge.store.scripts import Answer, Call

log = logging.getLogger("bridge.gateway")

_TICKS_AT_ONCE: Final = 500
"""A tick of so many followers takes at most about a millisecond, in which nothing is sent."""

_EARLY_SECONDS: Final = 0.002
"""Event loops that count in milliseconds wake up so much before the time."""

_LAST_GOODBYES_SECONDS: Final = 2.0


class Poll(Follower, Protocol):
    """A follower that can wait for a change."""

    async def changed(self) -> None:
        """Wait until `wake` or `offer` is called."""


class Attached:
    """What `Hub.attach` gives. A generator would do, but is three times as large, and each stream has one."""

    __slots__ = ("_channel", "_follower", "_hub", "_task_id")

    def __init__(self, hub: Hub, task_id: str, follower: Follower) -> None:
        self._hub = hub
        self._task_id = task_id
        self._follower = follower

    def __enter__(self) -> Channel:
        """Come."""
        self._channel = self._hub.enter(self._task_id, self._follower)
        return self._channel

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self._hub.leave(self._channel, self._follower)


class Hub:
    """Channels by task id. `run` must be running; `attach` and `fresh` are what requests call."""

    def __init__(self, settings: Settings, counts: Counts | None = None) -> None:
        self.settings = settings
        self.counts = counts or Counts()
        client = async_client(settings)
        self.store = Store(client, keys_for(settings, client))
        self._client = client
        self._link = Link(client, self)
        self._channels: dict[str, Channel] = {}
        self._by_name: dict[str, Channel] = {}
        self._audit = Audit(settings, self.store, self._link, self.counts)
        self._readers = Readers(self.store, self._link, self._audit)
        self._delays = Delays(self.counts, self._audit.redis_ms)
        self.observer: Observer = Nobody()
        self.links = 0
        """How many links there were so far. Another one may lead to another server."""
        self._followers = Ticks(
            min(
                TICK_SECONDS,
                settings.heartbeat_seconds / 4,
                settings.stall_timeout_seconds / 4,
                max(settings.linger_seconds / 4, 0.05),
            )
        )
        self._idle: set[Channel] = set()
        """Channels that nobody follows."""
        self._quiet = asyncio.Event()
        """Set when the last follower has left."""
        self._budget = Budget(settings.channels_bytes)
        self.draining = False
        self.running = False

    # --- for requests ---------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether live events reach this gateway: the link is up and the last probe came back."""
        return self.running and not self.draining and self._audit.well

    @property
    def channels(self) -> Collection[Channel]:
        """All of them, to be looked at."""
        return self._channels.values()

    @property
    def channels_bytes(self) -> int:
        """About how much memory they take."""
        return self._budget.total(self._channels)

    @property
    def link(self) -> tuple[bool, float | None]:
        """Whether the link to Redis is up, and its lag in seconds (see `Audit.lag`)."""
        return self._link.is_up, self._audit.lag

    def attach(self, task_id: str, follower: Follower) -> Attached:
        """Follow a task for the length of a `with` block, which gets its channel."""
        return Attached(self, task_id, follower)

    def enter(self, task_id: str, follower: Follower) -> Channel:
        """A follower comes; the channel is made, or found, and kept as long as it doesn't `leave`."""
        channel = self._channels.get(task_id)
        if channel is None:
            channel = Channel(task_id, self._readers.ask, self.counts, self._budget.taken)
            self._channels[task_id] = channel
            self._by_name[self.store.keys.channel(task_id)] = channel
            channel.want_read()
        channel.followers.add(follower)
        self._idle.discard(channel)
        self._followers.add(follower)
        self._quiet.clear()
        self.observer.joined(task_id)
        return channel

    def leave(self, channel: Channel, follower: Follower) -> None:
        """One that came leaves."""
        channel.followers.discard(follower)
        if not channel.followers:
            self._idle.add(channel)
        self.touch(channel)
        self.observer.left(channel.task_id)
        self._followers.remove(follower)
        if not self._followers:
            self._quiet.set()

    def tick_soon(self, follower: Follower) -> None:
        """Something changed for one that attached: a tick may be due sooner than it said."""
        self._followers.soon(follower)

    async def fresh(self, channel: Channel, poll: Poll, seen: Position = START) -> None:
        """Wait until what the channel holds can be trusted. Costs nothing, and no Redis, in health.

        `seen` is the newest position that the client has. When this gateway isn't there yet, another may
        just be quicker: the log is read first.
        Raises `StoreUnavailable` when Redis doesn't answer, `StoreError` when this task can't be read.
        """
        if self.is_fresh(channel, seen):
            return
        doubtful = self._audit.doubtful
        # For what a client has seen the first read is enough; what was written here came perhaps after it.
        ahead = channel.written > channel.position or (channel.loaded and seen > channel.position)
        # In health a read that has already begun is as good as one of our own: what it lacks is on its way.
        number = channel.want_read() if doubtful or ahead else channel.reads_begun + channel.read_due
        poll.read_awaited = number
        self._readers.retry(channel)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while channel.reads_done < number:
                    if (error := self._readers.failed(channel)) is not None:
                        raise error.with_traceback(None)
                    await poll.changed()
        except TimeoutError:
            raise StoreUnavailable("Redis doesn't answer") from None

    async def write(self, task_id: str, call: Call) -> Answer:
        """Run a script that writes to a task. Who polls here from then on finds what it wrote, also where
        that hasn't come back over the link yet. Raises as `Store.run`.
        """
        answer = await self.store.run(call)
        channel = self._channels.get(task_id)
        if channel is not None:
            channel.wrote(answer.position, answer.owner)
        return answer

    def at_hand(self, task_id: str, seen: Position = START) -> Channel | None:
        """The channel of a task for which `fresh` wouldn't wait; None where there is none, or it would. Who
        answers from it says so with `touch`.
        """
        channel = self._channels.get(task_id)
        if channel is None or self.draining or not self.running:
            return None
        return channel if self.is_fresh(channel, seen) else None

    def touch(self, channel: Channel) -> None:
        """Somebody has read a channel without following it: it lingers from now on."""
        channel.idle_since = monotonic()

    def is_fresh(self, channel: Channel, seen: Position = START) -> bool:
        """Whether what the channel holds can be trusted now: `fresh` wouldn't wait."""
        channel.read_all()  # what can't be read is then read from the log
        return (
            channel.loaded
            and seen <= channel.position >= channel.written
            and not (self._audit.doubtful or channel.reading or channel.read_due)
        )

    def channel(self, task_id: str) -> Channel | None:
        """What is in memory of a task, if anything."""
        return self._channels.get(task_id)

    async def head(self, task_id: str) -> Head | None:
        """What Redis knows of a task besides its events; None when it doesn't know it. From memory where that
        can be trusted. Raises `StoreError`.
        """
        channel = self._channels.get(task_id)
        if channel is None or not self.is_fresh(channel):
            (head,), _ = await self.store.heads([task_id])
            return head
        return channel.head if channel.known else None

    async def drain(self, seconds: float) -> None:
        """Send every follower away, in random order and spread over `seconds`. Returns when all are gone,
        or a little after that time.
        """
        self.draining = True
        followers = list(self._followers)
        random.shuffle(followers)
        begun = monotonic()
        for number, follower in enumerate(followers):
            await self._all_gone(begun + seconds * number / len(followers) - monotonic())
            follower.drain()
        await self._all_gone(_LAST_GOODBYES_SECONDS)

    def cut(self, task_id: str) -> int:
        """Break off the connections of all streams of a task, as a network that fails would. They can resume.

        Returns how many. For demonstrations and drills: nothing of the gateway's own needs it.
        """
        channel = self._channels.get(task_id)
        return sum(follower.cut() for follower in tuple(channel.followers)) if channel else 0

    async def _all_gone(self, seconds: float) -> None:
        """Wait until no follower is left, but not longer than that."""
        if self._followers and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._quiet.wait()

    # --- the link's listener --------------------------------------------------------------------------

    def up(self) -> None:
        """The link is up: find out at once what was missed."""
        log.info("the link to Redis is up")
        self.links += 1
        self._audit.soon()

    def down(self) -> None:
        """The link is down; what is published now will be missed."""
        self.counts.link_drops += 1
        self._audit.trouble()

    def messages(self, came: Sequence[Message]) -> None:
        """Probes, and events of tasks."""
        at = monotonic()
        arrived = [arrival for channel, data in came if (arrival := self._parse(channel, data)) is not None]
        for target, last, entries in joined(arrived) if len(arrived) > 1 else arrived:
            before = target.position
            try:
                target.receive(last, entries)
            except Exception as error:
                _broken(target, error)
            if target.followers and target.position is not before:
                self._delays.handed_out(at, entries)

    def _parse(self, channel: str, data: bytes) -> Arrival | None:
        """What came on a task's channel, as far as it can be read and somebody wants it."""
        target = self._by_name.get(channel)
        if target is None:
            if channel == self._audit.probe_channel:
                self._audit.probe_arrived(data)
            return None
        try:
            last, entries = parse_message(data)
        except CorruptLog as error:
            log.error("task %s: %s", target.task_id, error)
            target.heal("unreadable")
            return None
        except Exception as error:
            _broken(target, error)
            return None
        self.counts.messages_received += 1
        self.counts.events_received += len(entries)
        return target, last, entries

    # --- the loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled. Owns the link, the readers, the audit and the ticker."""
        self.running = True
        try:
            with suppress(LinkDown):
                await self._link.subscribe(self._audit.probe_channel)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._link.run(), name="bridge link")
                group.create_task(self._audit.run(self._to_audit), name="bridge audit")
                group.create_task(self._ticks(), name="bridge ticker")
                group.create_task(self._readers.run(), name="bridge readers")
        finally:
            self.running = False
            await self._client.aclose()

    def _to_audit(self) -> list[Channel]:
        self._readers.retry_all()
        return list(self._channels.values())

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(self._followers.wait(monotonic()) + _EARLY_SECONDS)
            await self._turn()

    async def _turn(self) -> None:
        """Tick all whose turn it is. Many are ticked in parts, spread over the turn."""
        try:
            due = self._followers.take(monotonic())
            parts = range(0, len(due), _TICKS_AT_ONCE)
            for start in parts:
                if start:
                    await asyncio.sleep(self._followers.seconds / len(parts))
                self._followers.tick(due[start : start + _TICKS_AT_ONCE], monotonic())
            self._let_go(monotonic())
        except Exception:
            log.exception("the ticker broke in a way that it should not")

    def _let_go(self, now: float) -> None:
        """Drop the channels that nobody has needed for a while, and keep to the memory that all may take."""
        for channel in list(self._idle):
            # A task that Redis doesn't know costs a poll little anyway; so nobody fills the memory with such.
            linger = self.settings.linger_seconds if channel.known else 0.0
            if now - channel.idle_since >= linger:
                self._drop(channel)
        self._budget.keep(self._channels.values(), self._drop)

    def _drop(self, channel: Channel) -> None:
        name = self.store.keys.channel(channel.task_id)
        del self._channels[channel.task_id]
        del self._by_name[name]
        channel.drop()
        self._idle.discard(channel)
        self._readers.forget(channel)
        self._link.unsubscribe(name)


def _broken(channel: Channel, error: Exception) -> None:
    """A message met a bug: what it brought is read instead."""
    log.error("task %s: a message broke it in a way that it should not", channel.task_id, exc_info=error)
    channel.want_read(whole=True)
