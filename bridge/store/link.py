"""The link: one pub/sub connection of a gateway, over which all live events arrive.

What it promises
----------------
- `subscribe` returns only after Redis has acknowledged: what is published from then on arrives, as long as
  the link lives. (Subscribe, wait for the acknowledgement, read the log, go live: never the other way round.)
- It reconnects for ever, with jittered backoff, and subscribes anew to all that is wanted. `up` is called
  when the last of these is acknowledged, `down` when the connection is lost. Whatever was published in
  between is gone: the listener reads the logs.
- Messages are handed over in the order in which Redis sent them, those that came together in one plain call,
  which must not block. That one of them is wrong is the listener's to see to: it must disturb no other.
- A server that takes the connection but doesn't acknowledge is given up after the time that any answer may
  take, as long as the link isn't up.

What it does not promise: that a link that looks up is alive. Bytes can vanish without a close. That is what
the hub's probe is for, which calls `drop` when its message doesn't come back.

redis-py's own PubSub object is not used, because it reconnects silently; the raw connection says so. How its
replies are read is in `replies.py`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import redis.asyncio
from redis.exceptions import RedisError

from bridge.errors import LinkDown
from bridge.store.connect import cancellable
from bridge.store.replies import read_replies

log = logging.getLogger("bridge.link")

FIRST_BACKOFF_SECONDS: Final = 0.05
LONGEST_BACKOFF_SECONDS: Final = 2.0
_CHANNELS_PER_COMMAND: Final = 500
_BROKE: Final = "a listener of the link broke in a way that it should not"


Message = tuple[str, bytes]
"""The channel, and what was published on it."""


class Listener(Protocol):
    """Who is told what happens on the link. None of these may block; what they raise is only logged."""

    def up(self) -> None:
        """Connected, and everything wanted is acknowledged."""

    def down(self) -> None:
        """Not connected any more."""

    def messages(self, came: Sequence[Message]) -> None:
        """This was published."""


class Link:
    """One pub/sub connection, kept alive by `run`."""

    def __init__(self, client: redis.asyncio.Redis, listener: Listener) -> None:
        self._pool: Any = client.connection_pool  # redis-py leaves make_connection untyped
        self._listener = listener
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._acks: dict[str, deque[asyncio.Future[None]]] = {}
        self._orders: list[tuple[str, str]] = []
        self._ordered = asyncio.Event()
        self._connection: Any = None
        self.is_up = False

    async def run(self) -> None:
        """Keep the link; ends only by cancellation."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                await self._live()
            except* (RedisError, OSError, LinkDown) as errors:
                # An outage is one warning, however long it lasts.
                level = logging.WARNING if self.is_up or backoff == FIRST_BACKOFF_SECONDS else logging.DEBUG
                log.log(level, "the link to Redis is down: %s", errors.exceptions[0])
            except* Exception:
                log.exception("the link to Redis broke in a way that it should not")
            finally:
                was_up, self.is_up = self.is_up, False
                self._fail_acks()
            if was_up:
                backoff = FIRST_BACKOFF_SECONDS
                self._tell(self._listener.down)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)

    async def subscribe(self, channel: str) -> None:
        """Subscribe and wait for Redis to acknowledge. Raises `LinkDown`, but keeps the wish: when the link
        comes up (`Listener.up`) the channel is subscribed.
        """
        pending = self._acks.get(channel) if channel in self._wanted else None
        self._wanted.add(channel)
        if not self.is_up:
            raise LinkDown("the link to Redis is down")
        await asyncio.shield(pending[-1] if pending else self._order_subscribe(channel))

    def unsubscribe(self, channel: str) -> None:
        """Messages on this channel are not wanted any more."""
        self._wanted.discard(channel)
        self._subscribed.discard(channel)
        if self._connection is not None:
            self._order("UNSUBSCRIBE", channel)

    def drop(self) -> None:
        """Give this connection up and make a new one: it looks alive, but nothing comes through."""
        if self._connection is not None:
            self._order("DROP", "")

    async def _live(self) -> None:
        """One connection from its beginning to its end."""
        connection = self._pool.make_connection()
        try:
            with cancellable():
                await connection.connect()
            self._orders.clear()
            self._subscribed.clear()
            self._connection = connection
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(connection))
                group.create_task(self._come_up())
                await read_replies(connection, self._take)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _come_up(self) -> None:
        """Subscribe to all that is wanted, also to what is wished for meanwhile; then the link is up."""
        seconds = self._pool.connection_kwargs.get("socket_timeout")
        try:
            async with asyncio.timeout(seconds):
                while missing := self._wanted - self._subscribed:
                    await asyncio.gather(*[self._order_subscribe(channel) for channel in sorted(missing)])
        except TimeoutError:
            raise LinkDown(f"Redis acknowledged no subscription within {seconds:g} s") from None
        self.is_up = True
        self._tell(self._listener.up)

    def _order_subscribe(self, channel: str) -> asyncio.Future[None]:
        """Redis acknowledges in order, so the n-th acknowledgement of a channel answers its n-th order."""
        ack: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acks.setdefault(channel, deque()).append(ack)
        self._subscribed.add(channel)
        self._order("SUBSCRIBE", channel)
        return ack

    def _order(self, verb: str, channel: str) -> None:
        self._orders.append((verb, channel))
        self._ordered.set()

    async def _write(self, connection: Any) -> None:
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            orders, self._orders = self._orders, []
            for verb, channels in _grouped(orders):
                if verb == "DROP":
                    raise LinkDown("the link was given up: nothing comes through")
                with cancellable():
                    await connection.send_command(verb, *channels)

    def _take(self, replies: list[Any]) -> None:
        """What came together. An error is raised: of what was ordered something will never come. The messages
        that came with it are as good as those that are missed until there is another link.
        """
        came = list[Message]()
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
            kind, channel, data = reply
            if kind == b"message":
                came.append((channel.decode(), data))
            elif kind == b"subscribe":
                self._acknowledge(channel.decode())
        if came:
            self._tell(partial(self._listener.messages, came))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:
            log.exception(_BROKE)

    def _acknowledge(self, channel: str) -> None:
        pending = self._acks.get(channel)
        if not pending:
            return
        ack = pending.popleft()
        if not pending:
            del self._acks[channel]
        if not ack.done():
            ack.set_result(None)

    def _fail_acks(self) -> None:
        for pending in self._acks.values():
            for ack in pending:
                if not ack.done():
                    ack.set_exception(LinkDown("the link to Redis dropped"))
                    ack.exception()  # seen: perhaps nobody waits for it any more
        self._acks.clear()


def _grouped(orders: list[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    """Neighbouring orders of one verb as one command, so that a thousand joins cost a few round trips."""
    verb, channels = "", list[str]()
    for next_verb, channel in orders:
        if channels and (next_verb != verb or len(channels) >= _CHANNELS_PER_COMMAND):
            yield verb, channels
            channels = []
        verb = next_verb
        channels.append(channel)
    if channels:
        yield verb, channels
