"""The pump: one background thread per process and settings that carries reports to Redis and flags back.

What it promises:

- Each turn sends what is due, the oldest first, in one pipeline of at most `ROUND_JOBS` tasks and about
  `ROUND_BYTES`, and then looks again. So what is due first needn't wait until all the others are packed.
- Where many tasks are busy it lets their reports gather for a millisecond: a turn costs worker, Redis and
  gateways more than an event does, and with a turn for each two or three that is most of what they do.
- Nothing that goes wrong in it reaches the work. An error of its own is logged, and it goes on.
- While Redis is away it retries with growing, jittered pauses; what was without an answer is sent again.
- After an end or an announcement it waits briefly for a replica, before it forgets what it sent: nobody else
  could say it again.
- It is bounded. Tasks that still run hold what `max_task_bytes` allows. Of those that have ended and that
  Redis doesn't take it holds `MAX_LEAVING` and `MAX_LEAVING_BYTES`; beyond, the oldest are given up. Of
  announcements it holds `MAX_CREATIONS`; a further one is refused. Both is said in the log.

The inbox is a SimpleQueue because its `put` may be interrupted by a signal handler that puts, too.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Final

from bridge.errors import StoreError, StoreUnavailable
from bridge.settings import Settings
from bridge.store.scripts import Answer, Call
from bridge.store.writer import Writer
from bridge.urls import shown
from bridge.worker.agenda import Agenda
from bridge.worker.job import Job
from bridge.worker.latch import Latch

log = logging.getLogger(__name__)

ROUND_BYTES: Final = 4 * 1024 * 1024
ROUND_JOBS: Final = 100
GATHER_SECONDS: Final = 0.001
GATHER_JOBS: Final = 8
"""A turn that carried at least so many is followed by another soon; that is some 6,000 reports a second.
With fewer, the time that one takes counts for more than what its turn costs.
"""
MAX_LEAVING: Final = 1000
MAX_LEAVING_BYTES: Final = 256 * 1024 * 1024
MAX_CREATIONS: Final = 1000
_LAST_WORDS: Final = frozenset({"close", "create", "cancel", "conclude"})
"""Scripts after which nobody holds what was said."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 3.0
LEAST_PATIENCE_SECONDS: Final = 1.0


class _Flush:
    """Asks the pump to say when everything that was handed in so far is sent."""

    def __init__(self) -> None:
        self.done = Latch()
        self.complete = False


class _Stop:
    """Asks the pump to end its thread, whatever is left."""


class Pump:
    """Takes jobs from any thread and sends them from its own."""

    def __init__(self, settings: Settings) -> None:
        """Starts nothing yet. Raises `SettingsError` for a Redis URL that can't be used."""
        self.settings = settings
        self._writer = Writer(settings)
        self._inbox: SimpleQueue[Job | _Flush | _Stop] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._creations: set[Job] = set()
        self._refusing = False
        self._away_since: float | None = None
        # The rest belongs to the thread.
        self._jobs: dict[Job, None] = {}  # in the order in which they came
        self._agenda = Agenda()
        self._flushes: list[_Flush] = []
        self._stopped = False
        self._busy = False
        self._generation = 0
        self._failures = 0
        self._pause_until = -math.inf

    # For all threads.

    def submit(self, job: Job) -> None:
        """Take a job on. If no thread can be started, it is given up."""
        if self._start():
            self._inbox.put(job)
        else:
            job.give_up("no thread can be started")
            self._creations.discard(job)

    def announce(self, job: Job) -> bool:
        """Take a notice on, unless too many are waiting; whether it was taken."""
        if len(self._creations) >= MAX_CREATIONS:
            if not self._refusing:
                self._refusing = True
                log.error(
                    "%d announcements of tasks wait for Redis; further ones are not kept", MAX_CREATIONS
                )
            return False
        self._creations.add(job)
        self.submit(job)
        return True

    def wake(self, job: Job) -> None:
        """Look at a job again: something has changed. Neither blocks nor raises."""
        self._inbox.put(job)

    def flush(self, seconds: float) -> bool:
        """Wait, at most so long, until all that was handed in is sent, but for what somebody has waited for
        already; whether all is sent.
        """
        if self._thread is None or not self._thread.is_alive():
            return True
        flush = _Flush()
        self._inbox.put(flush)
        return flush.done.wait(seconds) and flush.complete

    @property
    def away(self) -> bool:
        """Whether Redis didn't answer when it was asked last."""
        return self._away_since is not None

    def patience(self) -> float:
        """How many seconds an end is worth waiting for: `close_timeout_seconds`, but counted from when Redis
        went away. Work with many tasks must not stand still for that long at each of them.
        """
        longest, since = self.settings.close_timeout_seconds, self._away_since
        if since is None:
            return longest
        return max(longest - (time.monotonic() - since), min(longest, LEAST_PATIENCE_SECONDS))

    def stop(self, seconds: float = 10.0) -> None:
        """End the thread, whatever is left to send."""
        if self._thread is not None:
            self._inbox.put(_Stop())
            self._thread.join(seconds)

    def _start(self) -> bool:
        """Whether the thread runs; it is started if need be."""
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return True
            thread = threading.Thread(target=self._run, name="bridge-pump", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False  # no more threads: too many, or the interpreter shuts down
            self._thread = thread
            return True

    # The thread.

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._turn()
            except Exception:
                log.exception("the pump had an error of its own and goes on")
                self._pause()
                self._look_at_all()
        self._writer.disconnect()

    def _turn(self) -> None:
        if self._busy:
            # Not by waiting for the inbox, which would wake up for each report.
            self._busy = False
            time.sleep(GATHER_SECONDS)
        self._receive(self._next_time())
        now = time.monotonic()
        if now >= self._pause_until:
            try:
                self._exchange(now)
            except StoreError as error:
                self._failed(error)
        self._answer_flushes()

    def _answer_flushes(self) -> None:
        if self._flushes and all(job.quiet() for job in self._jobs):
            for flush in self._flushes:
                flush.complete = not any(job.ending for job in self._jobs)
                flush.done.set()
            self._flushes.clear()

    def _next_time(self) -> float:
        """When something is due next."""
        first = self._agenda.next()
        return max(first, self._pause_until) if first < math.inf else math.inf

    def _receive(self, until: float) -> None:
        """Wait for the inbox, at most until a time, and take all that is in it."""
        try:
            if until == math.inf:
                item = self._inbox.get()
            else:
                item = self._inbox.get(timeout=max(until - time.monotonic(), 0))
            while True:
                self._accept(item)
                item = self._inbox.get_nowait()
        except Empty:
            pass

    def _accept(self, item: Job | _Flush | _Stop) -> None:
        if isinstance(item, _Stop):
            self._stopped = True
        elif isinstance(item, _Flush):
            self._flushes.append(item)
            for job in self._jobs:
                job.hurry()
                self._schedule(job)
        elif not item.over:
            self._jobs[item] = None
            self._schedule(item)

    def _schedule(self, job: Job) -> None:
        """Put a job on the agenda, or off it when it is over."""
        now = time.monotonic()
        self._agenda.put(job, job.due(now), now)
        if job.over:
            self._jobs.pop(job, None)
            self._creations.discard(job)

    def _look_at_all(self) -> None:
        for job in list(self._jobs):
            self._schedule(job)

    def _exchange(self, now: float) -> None:
        """Send what is due, and hand out the answers. Raises `StoreError` when that fails."""
        if self._agenda.next() > now:
            return
        self._writer.look()
        self._moved()
        work = self._collect(now)
        # After a full turn there is more to send already.
        self._busy = GATHER_JOBS <= len(work) < ROUND_JOBS
        flat = [call for _, calls in work for call in calls]
        try:
            replies = self._writer.send(flat) if flat else []
            if _lets_go(flat, replies):
                # When this fails, nobody has read the answers: all of it is sent again.
                self._writer.settle()
            self._hand_out(work, replies)
        finally:
            for job, _ in work:
                self._schedule(job)
        refusals = [reply for reply in replies if isinstance(reply, StoreError)]
        for refusal in refusals:
            if isinstance(refusal, StoreUnavailable):
                raise refusal
        if refusals:
            self._shed()
        if flat:
            self._recovered()

    def _collect(self, now: float) -> list[tuple[Job, list[Call]]]:
        """Take the jobs that are due from the agenda, with what they send. Not more than fits a turn."""
        work: list[tuple[Job, list[Call]]] = []
        size = 0
        while size < ROUND_BYTES and len(work) < ROUND_JOBS and (job := self._agenda.take(now)):
            if job.over:
                continue
            try:
                calls = job.next_calls(self._writer.calls, self._writer.generation, now)
            except Exception:
                log.exception("task %s can't be sent", job.task_id)
                job.give_up("the bridge has an error")
                self._schedule(job)
                continue
            size += sum(_size(call) for call in calls)
            work.append((job, calls))
        return work

    def _hand_out(self, work: list[tuple[Job, list[Call]]], replies: list[Answer | StoreError]) -> None:
        now = time.monotonic()
        start = 0
        for job, calls in work:
            mine = replies[start : start + len(calls)]
            start += len(calls)
            try:
                job.answered(calls, mine, now)
            except Exception:
                log.exception("task %s can't take its answers", job.task_id)
                job.give_up("the bridge has an error")

    # Outages.

    def _failed(self, error: StoreError) -> None:
        if self._moved():
            return
        self._writer.disconnect()
        if not self._failures:
            self._away_since = time.monotonic()
            log.warning(
                "Redis at %s: %s; reports are kept and sent when it is back",
                shown(self.settings.redis_url),
                error,
            )
        self._pause()
        self._shed()

    def _moved(self) -> bool:
        """Whether the failure only meant that the connection now leads to another server."""
        if self._writer.generation == self._generation:
            return False
        self._generation = self._writer.generation
        for job in list(self._jobs):
            # Also those that have nothing to send: they have something to repair.
            self._agenda.put(job, -math.inf, 0)
        return True

    def _recovered(self) -> None:
        if self._failures:
            log.info("Redis at %s is back", shown(self.settings.redis_url))
        self._failures = 0
        self._away_since = None
        self._refusing = False

    def _pause(self) -> None:
        longest = min(LONGEST_PAUSE_SECONDS, self.settings.lease_seconds / 3)
        pause = min(longest, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10))
        self._failures += 1
        self._pause_until = time.monotonic() + pause * random.uniform(0.5, 1)

    def _shed(self) -> None:
        """Give up the oldest of the tasks that have ended, when there are too many."""
        leaving = [job for job in self._jobs if job.ending]
        size = sum(job.size() for job in leaving)
        for position, job in enumerate(leaving):
            if len(leaving) - position <= MAX_LEAVING and size <= MAX_LEAVING_BYTES:
                break
            size -= job.size()
            job.give_up("too many tasks have ended that Redis doesn't take")
            self._schedule(job)


def _size(call: Call) -> int:
    return sum([len(part) for part in call.args if not isinstance(part, int)])


def _lets_go(calls: Sequence[Call], replies: Sequence[Answer | StoreError]) -> bool:
    """Whether something was confirmed that nobody will hold any more."""
    said = [reply for call, reply in zip(calls, replies, strict=True) if call.script.name in _LAST_WORDS]
    return any(isinstance(reply, Answer) and reply.verdict in ("applied", "seen") for reply in said)
