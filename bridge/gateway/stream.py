"""`GET /tasks/{id}/events`: one open stream.

Rules
-----
1. Nothing is queued per stream: it is a cursor into a channel. When it is up to date it waits for a batch,
   which the channel hands over ready encoded (`offer`). When it was busy sending meanwhile, it comes for
   what it missed (`Channel.take`), a piece at a time, and the socket is drained between two pieces.
2. EventSource gives up for ever on any status but 200. So what will pass (Redis away, draining) is said in a
   200 with `retry:` and a comment, then closed; and a task that nobody knows yet is waited for.
3. A stream that has said `end` is closed. Who comes back with that position gets 204: no more.
4. A client that takes nothing for `stall_timeout_seconds` is disconnected. It can resume. One that takes a
   little now and then may be as slow as it likes. Closing in order would wait for it to take what is
   buffered, so the connection is cut (`Connection.cut`).
5. Visitors who see their own tasks only take nothing (`Channel.take`) before the task is known to be theirs;
   and to who has taken nothing, nothing is handed over.
6. A client that is gone is told of by its server, or by one task per stream (`disconnect.py`).

The fan-out's seam is `offer` and `_next`: how bytes get from a channel to a socket is decided here only. What
a channel offers to a stream that waits is written at once (`Connection.push`). No task wakes up for it: that
would cost more than the write. `send` does what takes time, for a client that isn't writable, and what comes
last. Under servers that aren't ours it does all.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from starlette.types import Receive, Send

from bridge import sse
from bridge.codec import encode
from bridge.entries import Entry
from bridge.errors import StoreError
from bridge.events import START, UNKNOWN_TASK_END, End, Position
from bridge.gateway.auth import Visitor
from bridge.gateway.channel import Channel
from bridge.gateway.connection import PLAIN, Connection
from bridge.gateway.counts import Ending
from bridge.gateway.disconnect import Watching, cut_off
from bridge.gateway.follower import Batch
from bridge.gateway.history import Dialect
from bridge.gateway.hub import Hub
from bridge.gateway.record import Recorded, turned_away
from bridge.gateway.wire import (
    come_back,
    native,
    no_more,
    retry_line,
    send_body,
    send_head,
)

_GOING_AWAY: Final = "this gateway is going away"
_DECIDE_SECONDS: Final = 1.0
"""So long an answer to a client with a position waits, to know whether it is 200 or 204."""
_LAST_WORDS_SECONDS: Final = 1.0
"""So long a client has to take its last words; a drain doesn't wait for one that takes nothing."""
_LOOKS: Final = 8
"""Whether a client still takes something is looked at so often within the time it has. The kernel is asked,
which costs as much as a token.
"""
_BEAT: Final = b"%x\r\n%b\r\n" % (len(sse.HEARTBEAT), sse.HEARTBEAT)
"""A heartbeat as a chunk of the body, for `Connection.push`."""


class StreamFollower:
    """One stream's cursor, and the hand-over from the channel to the socket.

    To a visitor who may not see the task it is unknown, even if it was theirs before.
    """

    def __init__(
        self,
        position: Position,
        hub: Hub,
        visitor: Visitor,
        connection: Connection = PLAIN,
    ) -> None:
        self.position = position
        self.generation = -1
        self.dialect: Dialect = native
        self.read_awaited = 0
        self.closed = False
        self.leaving = False
        self.stalled = False
        self._hub = hub
        self._visitor = visitor
        self._settings = hub.settings
        self._channel: Channel | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._last_words = b""
        self.began = self._active_at = monotonic()
        self.resumed = position != START
        self.ending: Ending | None = None
        self._events_before = -position.seq
        """Those before its cursor was put back, less those that the client came with."""
        self._sending = False
        self._connection = connection
        self.bytes_sent = self._taken = 0
        self._taken_at = self.began
        self._had_all = False
        self._unknown_since: float | None = None
        self._task = asyncio.current_task()

    # --- the channel's and the hub's side -------------------------------------------------------------

    def offer(self, batch: Batch) -> bool:
        """Take a batch, if the socket waits for one."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        if not batch.last:
            chunk = batch.chunk(self.dialect)
            if self._connection.push(chunk):
                self.bytes_sent += len(chunk)
                self._active_at = batch.at
                return True
        waiter.set_result(batch.frames(self.dialect))
        return True

    def wake(self) -> None:
        """Look at the channel again."""
        self._hub.tick_soon(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(b"")

    def tick(self, now: float) -> float:
        """Heartbeats, stalls, and waits that are over. While anything is waited for, each tick is due."""
        if self._had_all or self._has_all:
            # All was taken at the last look. What waits now was sent since, perhaps only just before this.
            self._taken_at = now
        elif not self.stalled and self._takes_nothing(now) and self._task is not None:
            self.stalled = True
            self.ending = "drained" if self.ending == "drained" else "stalled"
            self._task.cancel()
        self._had_all = self._has_all
        if self._sending or self.stalled:
            return now
        settings = self._settings
        waits = self._give_up_waiting(now)
        if now - self._active_at >= settings.heartbeat_seconds:
            self._beat(now)
        if waits or self.leaving:
            return now
        look = self._taken_at + settings.stall_timeout_seconds / _LOOKS
        return min(look, self._active_at + settings.heartbeat_seconds)

    def _beat(self, now: float) -> None:
        """Give a sign of life, where nothing else is being sent: like a batch, at once if that can be."""
        if self._waiter is None or self._waiter.done():
            return
        if self._channel is not None and self._connection.push(_BEAT):
            self.bytes_sent += len(_BEAT)
            self._active_at = now
        else:
            self._waiter.set_result(sse.HEARTBEAT)

    @property
    def _has_all(self) -> bool:
        """Whether it had taken at the last look all that was ever sent to it."""
        return self._taken == self.bytes_sent and not self._sending

    def _takes_nothing(self, now: float) -> bool:
        """Whether something waits for the client, and it has taken none of it for too long."""
        patience = self._settings.stall_timeout_seconds
        if self.leaving:
            patience = min(patience, _LAST_WORDS_SECONDS)
        if now - self._taken_at < patience / _LOOKS:
            return False
        taken = self.bytes_sent - self._connection.unsent()
        if taken > self._taken:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at >= patience

    def drain(self) -> None:
        """The gateway stops: tell the client when to come back, and close."""
        self._leave("drained", retry_line() + sse.comment(_GOING_AWAY))

    def cut(self) -> bool:
        """Break the connection off; what follows is what follows when a client leaves. A server that can't
        do that lets the stream end before its time, which sends clients back as well.
        """
        if self.closed or self.ending == "cut":
            return False
        self.ending = "cut"
        if not self._connection.cut():
            self._leave("cut")
        return True

    def restarted(self) -> None:
        """The cursor is put back to before the first event."""
        self._events_before += self.position.seq
        self._hub.counts.resets += 1

    @property
    def events_sent(self) -> int:
        """Over how many events of the log it was brought."""
        return self._events_before + self.position.seq

    def disconnected(self) -> None:
        """The client is gone."""
        self.closed = True
        self._leave("gone")

    def _leave(self, why: Ending, last_words: bytes = b"") -> None:
        self.ending = self.ending or why
        if not self.leaving:
            self._last_words = last_words
            self.leaving = True
        self.wake()

    def _give_up_waiting(self, now: float) -> bool:
        """A task nobody created, or a Redis that stays away, is not waited for for ever. Whether it waits."""
        channel, settings = self._channel, self._settings
        if channel is None or self._visitor.may_see(channel.owner):
            self._unknown_since = None
            return channel is None
        if not channel.loaded:
            if now - self.began >= settings.outage_wait_seconds:
                why = "this task can't be read now: Redis is away"
                self._leave("redis_away", retry_line() + sse.comment(why))
        elif not self._hub.ready:
            self._unknown_since = None  # without Redis nobody can tell; the waiting begins anew
        else:
            self._unknown_since = self._unknown_since or now
            if now - self._unknown_since >= settings.unknown_task_wait_seconds:
                self._leave("unknown_task", native([self._unknown_end()]))
        return True

    def _unknown_end(self) -> Entry:
        """The end of a stream whose task doesn't exist, or no longer: Redis lost it, and no worker has it.

        Its id is the same for all, also for those whose position is greater: who comes back with it while
        the task is unknown is told 204, or EventSource would go on for ever.
        """
        message = "There is no such task." if self.position == START else "The task is no longer known."
        end = End("failed", {"code": "unknown_task", "message": message})
        return Entry(UNKNOWN_TASK_END, end, encode(end))

    # --- the socket's side ----------------------------------------------------------------------------

    async def run(self, channel: Channel, send: Send) -> None:
        """Send until the end, the client's leaving or ours."""
        self._channel = channel
        # Who sees the task whoever owns it has nothing to look at again.
        take = channel.take if self._visitor.granted else self._take_own
        first = retry_line()
        while True:
            piece = None if self.leaving else take(self)
            if first:
                # What there is goes with it; a task that is waited for has nothing yet.
                piece, first = first + (piece or b""), b""
            if piece is None:
                if self.leaving or channel.finished(self):
                    break
                piece = await self._next()
            if piece:
                await self._send(send, piece)
        self.ending = self.ending or "ended"
        if not self.closed:
            await self._send(send, self._last_words, more=False)

    def _take_own(self, _: StreamFollower) -> bytes | None:
        """The next piece, if the task is the visitor's (rule 5)."""
        channel = self._channel
        if channel is not None and self._visitor.may_see(channel.owner):
            return channel.take(self)
        self.generation = -1  # if it was theirs before: no more is handed over
        return None

    async def changed(self) -> None:
        """Wait until there may be something new."""
        await self._next()

    async def _next(self) -> bytes:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        self._sending, self._active_at = True, monotonic()
        self.bytes_sent += len(body)
        await send_body(send, body, more=more)
        self._sending, self._active_at = False, monotonic()


async def stream(
    hub: Hub,
    visitor: Visitor,
    task_id: str,
    after: Position,
    connection: Connection,
    receive: Receive,
    send: Send,
) -> None:
    """Send the events of a task after a position. Raw ASGI: a stream is nothing but `send`s."""
    if hub.draining:
        turned_away(hub.counts, task_id, "drained", resumed=after != START)
        await come_back(send, _GOING_AWAY)
        return
    follower = StreamFollower(after, hub, visitor, connection)
    with hub.attach(task_id, follower) as channel, Recorded(hub.counts, task_id, follower):
        async with Watching(connection, receive, follower):
            try:
                if await _has_the_end(hub, visitor, channel, follower):
                    follower.ending = follower.ending or "no_more"
                    await no_more(send)
                    return
                await send_head(send)
                await follower.run(channel, send)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not follower.stalled or task is None:
                    raise
                task.uncancel()
                await cut_off(connection)


async def _has_the_end(hub: Hub, visitor: Visitor, channel: Channel, follower: StreamFollower) -> bool:
    """Rule 3: whether the client has all there is. Only who comes with a position may have it, and only for
    them the answer's first line waits for the log, and not for long. What is doubtful is no reason to send
    somebody away for ever.
    """
    after = follower.position
    if after == START:
        return False
    if not hub.is_fresh(channel, after):  # mostly it is, and a timer for each who comes back is much
        try:
            async with asyncio.timeout(_DECIDE_SECONDS):
                await hub.fresh(channel, follower, after)
        except (TimeoutError, StoreError):
            return False
    sees = visitor.may_see(channel.owner)
    if after == UNKNOWN_TASK_END:
        return not sees
    return sees and channel.view.ended and after == channel.position
