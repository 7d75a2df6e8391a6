"""Writes what the app says into a task's log, so that nothing is in it twice, whoever writes at the same
time.

Rules
-----
1. All pollers of a task are one writer: they share a token. `open` with it begins the log, or, where it has
   begun, says where it stands: its position and the number of the last batch, in one step.
2. What is to be added is the difference between a snapshot and the fold of the log at exactly that position,
   and it is sent as the next batch. Redis takes it only if nothing else has been appended since. If something
   has, the answer is `seen`, and everything begins anew: look where the log stands, read it, compare.
3. So it doesn't matter whether an answer got lost, who held the lease, or how late a call arrives.
4. `open` is polite: a task that a worker has, or had, is left to it (`Taken`).
5. Where Redis has lost batches that were acknowledged (`gap`, or a position that is less than one seen
   before), or another server stands in its place, ids could be given a second time to other text. And a log
   can be full of what is superseded. Then all that is known is written anew, in a new epoch (`restore`).

It knows neither the app nor the lease. What it keeps of the task is a mark; the content is the channel's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.codec import dumps, encode, utf8
from bridge.events import MAIN_FIELD, START, Chunk, End, Event, Position, Reset
from bridge.gateway.channel import Channel
from bridge.gateway.hub import Hub, Poll
from bridge.sources.polling import Snapshot, diff
from bridge.store.log import POLLER_TOKEN
from bridge.store.scripts import Answer, Call, wire
from bridge.view import View

log = logging.getLogger("bridge.gateway")

_TRIES: Final = 10
"""Others write seldom; who meets them so often in a row lets the next answer of the app decide."""
_LOG_FACTOR: Final = 4
"""As with workers: the log of an epoch may hold so many times `max_task_bytes`."""


class Taken(Exception):
    """Somebody else tells the task now, or it is over: there is nothing more for a poller to write."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the log stood. now: Redis time then, in ms since 1970."""

    position: Position
    batch: int
    attempt: int
    now: int

    @classmethod
    def of(cls, answer: Answer) -> _Mark:
        return cls(answer.position, answer.batch, answer.attempt, answer.now)


class Recorder:
    """The log of one task, for one poller. `poll` is its follower of the task's channel."""

    def __init__(self, hub: Hub, channel: Channel, poll: Poll) -> None:
        self._hub = hub
        self._channel = channel
        self._poll = poll
        self._mark: _Mark | None = None
        self._links = 0
        self._newest = START
        """The newest position that Redis has acknowledged to us."""
        self._limit = hub.settings.max_task_bytes * _LOG_FACTOR

    async def record(self, snapshot: Snapshot) -> bool:
        """Make the log say what the snapshot says; whether something had to be added.

        Raises `Taken`, and `StoreError` when it can't be known what was written: call it again later, with
        the newest snapshot.
        """
        changed = False
        for _ in range(_TRIES):
            mark = self._mark if self._links == self._hub.links else None
            if mark is None:
                mark = await self._look(snapshot)
            if mark is None:
                changed = True  # the log was written anew, and stands somewhere else now
                continue
            await self._hub.fresh(self._channel, self._poll, mark.position)
            if self._channel.position != mark.position:
                self._mark = None
                continue
            events = diff(self._channel.view, snapshot, mark.now)
            if not events:
                return changed
            self._mark = None  # until there is an answer nobody knows
            if await self._write(mark, events, snapshot):
                return True
        log.info("task %s: others write so often that this poller waits", self._channel.task_id)
        return changed

    @property
    def intact(self) -> bool:
        """Whether all that was written is known to be there still, as far as the channel has heard."""
        return self._channel.known and self._channel.position >= self._newest

    async def arrive(self) -> None:
        """Wait until the channel holds what was written. Raises `StoreError`."""
        await self._hub.fresh(self._channel, self._poll, self._newest)

    async def _look(self, snapshot: Snapshot) -> _Mark | None:
        """Begin the log, or find out where it stands. None: it had to be written anew."""
        store, task_id = self._hub.store, self._channel.task_id
        links = self._hub.links
        answer = await store.run(
            store.calls.open(task_id, token=POLLER_TOKEN, lease_ms=0, room=self._limit, polite=True)
        )
        if answer.verdict not in ("applied", "seen"):
            raise Taken
        mark = _Mark.of(answer)
        if answer.verdict == "seen" and (mark.position < self._newest or await store.moved(task_id)):
            await self._restore(mark, snapshot, "log_lost")
            return None
        self._mark, self._newest, self._links = mark, mark.position, links
        return mark

    async def _write(self, mark: _Mark, events: list[Event], snapshot: Snapshot) -> bool:
        """Whether the batch was taken."""
        answer = await self._hub.store.run(self._call(mark, events))
        match answer.verdict:
            case "applied":
                self._mark, self._newest = _Mark.of(answer), answer.position
                return True
            case "seen" | "lost":
                return False
            case "gap":
                await self._restore(mark, snapshot, "log_lost")
                return False
            case "full":
                await self._restore(mark, snapshot, "compacted")
                return False
        raise Taken

    def _call(self, mark: _Mark, events: list[Event]) -> Call:
        calls, task_id = self._hub.store.calls, self._channel.task_id
        *content, last = events
        end = last if isinstance(last, End) else None
        flat = wire(content if end else events)
        batch, length = mark.batch + 1, dumps(_lengths(self._channel.view, events))
        if end is None:
            return calls.append(
                task_id, token=POLLER_TOKEN, batch=batch, length=length, limit=self._limit, events=flat
            )
        code = end.error["code"] if end.error else ""
        return calls.close(
            task_id, token=POLLER_TOKEN, batch=batch, length=length, limit=self._limit, state=end.state,
            code=code, end=encode(end), events=flat,
        )  # fmt: skip

    async def _restore(self, mark: _Mark, snapshot: Snapshot, reason: str) -> None:
        """Rule 5. An end isn't written by this, but by what follows it."""
        store, view = self._hub.store, self._channel.view
        events = [*view.content(), *diff(view, snapshot, mark.now)]
        content: list[Event] = [event for event in events if not isinstance(event, End)]
        call = store.calls.restore(
            view.task_id,
            token=POLLER_TOKEN,
            attempt=mark.attempt,
            name=secrets.token_hex(8),
            reason=reason,
            batch=mark.batch + 1,
            known_epoch=self._newest.epoch,
            lease_ms=0,
            length=dumps(_lengths(View(view.task_id), content)),
            cancel_requested=view.cancel_requested,
            created_at=view.created_at or 0,
            started_at=view.started_at or mark.now,
            events=wire(content),
        )
        answer = await store.run(call)
        if answer.verdict not in ("applied", "seen"):
            raise Taken
        log.info("task %s: its log is written anew (%s)", view.task_id, reason)
        self._mark, self._newest = _Mark.of(answer), answer.position


def _lengths(view: View, events: Sequence[Event]) -> dict[str, int]:
    """The UTF-8 bytes of each field after these events."""
    texts = {MAIN_FIELD: view.text, **view.fields}
    lengths = {name: len(utf8(text)) for name, text in texts.items() if text}
    for event in events:
        if isinstance(event, Reset):
            lengths = {}
        elif isinstance(event, Chunk):
            lengths[event.field] = lengths.get(event.field, 0) + len(utf8(event.text))
    return lengths
