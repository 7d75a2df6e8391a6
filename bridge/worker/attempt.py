"""One attempt's side of the protocol with the scripts: what to send next, and what an answer means.

This does no I/O: the pump asks `next_calls`, sends them, and hands the answers to `answered`.

Rules
-----
1. At most one batch is without an answer. It is sent again, byte for byte, until there is one; its number
   lets Redis recognise it.
2. `open` goes in front of the first batch, in the same round trip. Answers are read in order, and what stands
   after one that changes the situation (ended, fenced, lost) is not looked at: it was sent too early.
3. The fold holds what Redis has acknowledged, nothing else. When Redis turns out not to have it any more, it
   is written anew (`restore`), before anything else of this attempt is sent; the batch without an answer
   follows after it. A repair has a name, so that repeating it is harmless.
4. "Fenced" by an attempt with a lower number means that Redis lost our `open`: that is a loss, too, and
   `restore` decides who is right.
5. A log that is full is mostly old progress and data, of which only the latest counts: it is written anew,
   as after a loss. Content is left out only where that wouldn't make much room, or didn't.
6. The end and the last batch are one call. It may be the end of this attempt only ("queued"): then the task
   waits for the next one. Once it is confirmed, or refused for good, the attempt is `over`.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.codec import dumps, encode
from bridge.errors import StoreError, StoreUnavailable
from bridge.events import Chunk, End
from bridge.settings import Settings
from bridge.store.scripts import Answer, Call, Calls
from bridge.worker.batch import Batch, take_batch
from bridge.worker.buffer import Buffer
from bridge.worker.fold import Fold, Piece
from bridge.worker.latch import Latch
from bridge.worker.outcome import Ending

log = logging.getLogger(__name__)

LOG_FACTOR: Final = 4
"""The log of an epoch may hold several attempts and much progress: so many times `max_task_bytes`."""
COMPACT_FRACTION: Final = 0.5
"""A full log is written anew if that needs no more than this part of it; else it would soon be full again."""
REPAIR_PAUSE_SECONDS: Final = 1.0
"""Between two repairs of one attempt: a Redis that evicts at once what is written must not be flooded."""


_SAID: Final = {
    "log_lost": (logging.WARNING, "task %s: Redis has lost some of it; its content is written anew"),
    "worker_returned": (logging.WARNING, "task %s: it was declared lost; its content is written anew"),
    "compacted": (logging.INFO, "task %s: its log is full; its content is written anew, merged"),
}


@dataclass(frozen=True, slots=True)
class _Repair:
    name: str
    reason: str


class Attempt:
    """One run of a task by this process, as the pump sees it. For the pump's thread, but for `end`."""

    def __init__(self, task_id: str, settings: Settings, buffer: Buffer, place: str = "") -> None:
        self.task_id = task_id
        self.over = False
        self.confirmed = False
        self.begun = Latch()
        """Set once Redis knows of this attempt, or when it is over."""
        self.done = Latch()
        self.waited = False
        """Whether the work has waited its time for the end. Then nobody waits for it a second time."""
        self._buffer = buffer
        self._token = place + secrets.token_hex(8)
        self._lease = settings.lease_seconds
        self._check = settings.cancel_check_seconds
        self._flush = settings.flush_milliseconds / 1000
        self._room = settings.max_task_bytes
        self._limit = settings.max_task_bytes * LOG_FACTOR
        self._pieces: deque[Piece] = deque()
        self._fold = Fold()
        self._acknowledged = 0
        self._in_flight: Batch | None = None
        self._repair: _Repair | None = None
        self._repaired_at = -math.inf
        self._ending: Ending | None = None
        self._full = False
        self._compacted = False
        self._warned = False
        # What Redis said about this attempt.
        self._opened = False
        self._number = 0
        self._started = 0
        self._created = 0
        self._owner = ""
        self._epoch = 0
        self._generation = 0
        # Times of the monotonic clock.
        self._flushed_at = -math.inf
        self._progressed_at = -math.inf
        self._leased_at = -math.inf
        self._heard_at = -math.inf
        self._hold_until = -math.inf
        self._refusals = 0

    def end(self, ending: Ending) -> None:
        """The work has ended, after its buffer was closed. Called once, by any thread."""
        self._ending = ending
        self._buffer.signal()

    def hurry(self) -> None:
        """Send at once what is merged otherwise."""
        self._buffer.hurry()

    @property
    def ending(self) -> bool:
        """Whether the work has ended and Redis doesn't know yet."""
        return self._ending is not None and not self.over

    def quiet(self) -> bool:
        """Whether nothing is worth waiting for: all is sent but signs of life, or it was waited for."""
        return self.over or self.waited or (
            self._opened and not (self._repair or self._in_flight or self._pieces or self._ending)
            and not self._buffer.level
        )  # fmt: skip

    def size(self) -> int:
        """About how many bytes of content are held."""
        waiting = sum(len(p.text) if isinstance(p, Chunk) else len(p.data) for p in self._pieces)
        return self._fold.size() + self._buffer.size() + waiting

    def due(self, now: float) -> float:
        """When `next_calls` should be asked."""
        if self.over:
            return math.inf
        if not self._opened or self._repair or self._in_flight or self._pieces or self._ending:
            wanted = now
        else:
            renew_at = min(self._heard_at + self._check, self._leased_at + self._lease / 3)
            wanted = min(self._content_due(), renew_at)
        return max(wanted, self._hold_until)

    def next_calls(self, calls: Calls, generation: int, now: float) -> list[Call]:
        """What to send now. `generation` counts the servers that the connection has led to."""
        if self.over:
            return []
        if self._opened and generation != self._generation and not self._repair:
            self._plan_repair("log_lost", now)
        self._generation = generation
        if self._repair:
            return [self._restore(calls, self._repair)] if now >= self._hold_until else []
        found = []
        lease_ms = int(self._lease * 1000)
        if not self._opened:
            found.append(calls.open(self.task_id, token=self._token, lease_ms=lease_ms, room=self._room))
        elif now >= min(self._heard_at + self._check, self._leased_at + self._lease / 3):
            found.append(calls.renew(self.task_id, token=self._token, lease_ms=lease_ms))
        if self._in_flight is None:
            self._in_flight = self._next_batch(calls, now)
        if self._in_flight is not None:
            found.append(self._in_flight.call)
        return found

    def answered(self, calls: Sequence[Call], replies: Sequence[Answer | StoreError], now: float) -> None:
        """Take the answers to what `next_calls` gave, in the same order."""
        for call, reply in zip(calls, replies, strict=True):
            if self.over:
                return
            if isinstance(reply, StoreError):
                self._refused(reply, now)
                return
            self._heard_at = now
            if call.script.name in ("open", "renew", "restore") and reply.verdict == "applied":
                self._leased_at = now
            if not self._understood(call.script.name, reply, now):
                return

    def give_up(self, why: str) -> None:
        """Forget what can't be sent. The work may go on: this is none of its business."""
        log.error("task %s: %s; what it reported last and its end are not in Redis", self.task_id, why)
        self._stop(go_on=True)

    # What to send.

    def _content_due(self) -> float:
        return self._buffer.due(self._flushed_at, self._flush, self._progressed_at)

    def _next_batch(self, calls: Calls, now: float) -> Batch | None:
        ending = self._ending  # set by another thread, after it closed the buffer
        if not self._pieces and (ending or now >= self._content_due()):
            taken = self._buffer.take()
            self._pieces.extend(taken)
            self._flushed_at = now
            if any(piece.kind == "progress" for piece in taken):
                self._progressed_at = now
        if self._buffer.truncated and not self._warned:
            self._warned = True
            log.warning("task %s has reported more than max_task_bytes; the rest is left out", self.task_id)
        if self._full:
            self._pieces.clear()
        if not self._pieces and not ending:
            return None
        pieces, events = take_batch(self._pieces)
        number = self._acknowledged + 1
        lengths = self._fold.lengths(pieces)
        common: dict[str, Any] = {
            "token": self._token,
            "batch": number,
            "length": dumps(lengths),
            "limit": self._limit,
            "events": events,
        }
        # What came while the pieces of an earlier batch still waited is in the buffer.
        if ending is None or self._pieces or self._buffer.level:
            return Batch(number, calls.append(self.task_id, **common), pieces)
        truncated = ending.truncated or self._buffer.truncated
        end = End(ending.state, ending.error, ending.result, ending.usage, lengths, truncated)
        code = ending.error["code"] if ending.error else ""
        call = calls.close(self.task_id, state=ending.state, code=code, end=encode(end), **common)
        return Batch(number, call, pieces)

    def _restore(self, calls: Calls, repair: _Repair) -> Call:
        return calls.restore(
            self.task_id,
            token=self._token,
            attempt=self._number,
            name=repair.name,
            reason=repair.reason,
            batch=self._acknowledged,
            known_epoch=self._epoch,
            lease_ms=int(self._lease * 1000),
            length=self._fold.length_json(),
            cancel_requested=self._buffer.cancel_requested,
            created_at=self._created,
            started_at=self._started,
            owner=self._owner,
            events=self._fold.wire(),
        )

    # What an answer means.

    def _understood(self, script: str, reply: Answer, now: float) -> bool:
        """Act on one answer; False when those that follow it mean nothing any more."""
        if reply.cancel_requested or reply.state == "cancelled":
            self._buffer.request_cancel()
        if reply.watchers >= 0:
            self._buffer.watchers = (reply.watchers, now)
        self._epoch = max(self._epoch, reply.position.epoch)
        # After a loss Redis may not know these any more.
        self._owner = reply.owner or self._owner
        self._created = self._created or reply.created_at
        match reply.verdict:
            case "applied" | "seen":
                return self._accepted(script, reply, now)
            case "lost" | "gap":
                self._plan_repair("log_lost", now)
            case "ended":
                self._ended(script, reply, now)
            case "fenced":
                self._fenced(script, reply, now)
            case "full":
                self._make_room(now)
            case verdict:
                self._refused(StoreError(f"{script} answered {verdict}"), now)
        return False

    def _accepted(self, script: str, reply: Answer, now: float) -> bool:
        self._refusals = 0
        if script == "open":
            self._opened = True
            self._number, self._started = reply.attempt, reply.now
            self.begun.set()
        elif script == "restore":
            if self._repair and not self._opened:
                log.log(*_SAID[self._repair.reason], self.task_id)
            self._opened = True
            self._repair = None
            self.begun.set()
        elif script == "renew":
            if reply.batch < self._acknowledged:
                self._plan_repair("log_lost", now)
                return False
        elif self._in_flight is not None:
            self._compacted = False
            self._acknowledged = self._in_flight.number
            self._fold.add(self._in_flight.pieces)
            self._in_flight = None
            if script == "close":
                self.confirmed = True
                self._stop()
        return True

    def _ended(self, script: str, reply: Answer, now: float) -> None:
        batch = self._in_flight
        if batch and batch.call.script.name == "close" and reply.batch == batch.number:
            # It was our own end. Its answer got lost.
            self.confirmed = True
            self._stop()
        elif reply.code == "worker_lost":
            # The one end that can be taken back. Whether it was ours, `restore` knows.
            if not self._opened:
                self._number, self._started = reply.attempt, reply.now
            self._plan_repair("worker_returned", now)
        else:
            log.info("task %s has ended already (%s); this attempt stops", self.task_id, reply.state)
            self._stop()

    def _fenced(self, script: str, reply: Answer, now: float) -> None:
        if self._opened and script != "restore" and reply.attempt < self._number:
            self._plan_repair("log_lost", now)
            return
        if self._buffer.cancel_requested and not self._opened:
            log.info("task %s was cancelled before this attempt began", self.task_id)
        elif self._ending is None or self._ending.state != "queued":
            log.warning("task %s was taken over by a newer attempt; this one stops", self.task_id)
        self._stop()

    def _plan_repair(self, reason: str, now: float) -> None:
        # Before it is open it may not be this attempt that was declared lost: what is done is told then.
        if self._opened:
            log.log(*_SAID[reason], self.task_id)
        self._repair = _Repair(secrets.token_hex(8), reason)
        self._hold_until = max(self._hold_until, self._repaired_at + REPAIR_PAUSE_SECONDS)
        self._repaired_at = now

    def _make_room(self, now: float) -> None:
        """The log is full, and the batch refused: compact what is there, or leave the rest out."""
        needed = sum(len(data) for data in self._fold.wire()[1::2])
        if self._compacted or self._full or needed > self._limit * COMPACT_FRACTION:
            self._refuse_content(now)
        else:
            self._compacted = True
            self._plan_repair("compacted", now)

    def _refuse_content(self, now: float) -> None:
        if self._full:
            self._refused(StoreError("Redis refuses the end because the log is full"), now)
            return
        log.warning("task %s: its log is full; what it reports from now on is left out", self.task_id)
        self._warned = self._full = True
        self._in_flight = None  # it was refused, so its number is free
        self._pieces.clear()
        self._buffer.truncate()

    def _refused(self, error: StoreError, now: float) -> None:
        if isinstance(error, StoreUnavailable):
            return  # it passes; the pump waits for that
        if not self._refusals:
            log.error("task %s: %s; it is tried again", self.task_id, error)
        self._hold_until = now + min(self._lease / 3, 0.1 * 2 ** min(self._refusals, 10))
        self._refusals += 1

    def _stop(self, *, go_on: bool = False) -> None:
        self.over = True
        self._fold = Fold()
        self._in_flight = self._repair = None
        self._pieces.clear()
        self._buffer.close(go_on=go_on)
        self._buffer.discard()
        self.begun.set()
        self.done.set()
