"""A bot: questions in rooms become tasks, and their answers threads.

Rules
-----
1. **Every question is answered once**, by whichever of several bots (with the same user, and the same Redis)
   has its lease. The others look again until it is answered; when that one dies, one of them goes on, in the
   same message.
2. **Nothing is skipped.** The place in the history from which to read after a restart is noted, and moves
   only past questions that are answered. What was answered is known by its own note. A place that nobody has
   noted (the first start, or a pause of a day) is now.
3. **So many at a time**: `MOST_ANSWERS` grow, further ones wait, and with `MOST_OPEN` of them the history
   isn't read on: it waits on the server.
4. **What may pass is tried again**: a gateway, a Redis or a homeserver that is away.
5. **Leaving**: told to stop, it takes no further questions. Answers that have begun get `leave_seconds`; then
   whoever makes them is told to stop, and the rooms are shown how far they came.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from bridge.codec import dumps
from bridge.errors import (
    BridgeError,
    GatewayUnavailable,
    LeaseLost,
    SinkRefused,
    SinkUnavailable,
    StoreUnavailable,
)
from bridge.sinks.matrix.answers import TOKEN_CODES
from bridge.sinks.matrix.asked import Asked, News, read_news, sync_filter
from bridge.sinks.matrix.patience import Failures, insist
from bridge.sinks.matrix.sink import MatrixSink
from bridge.view import View

log = logging.getLogger(__name__)

MOST_ANSWERS: Final = 8
MOST_OPEN: Final = 200
SYNC_SECONDS: Final = 30.0
LAST_SECONDS: Final = 10.0
"""So long work that was stopped may take to end, and its answer to say so."""

Answerer = Callable[[Asked], AsyncGenerator[View, None]]
"""Starts the work that answers a question when its views are first asked for, and not before: until then it
isn't known whether another bot does it. Called again for the same question, it goes on with the same task."""


@dataclass(slots=True)
class _Batch:
    """Questions that came together. `since` is the place in the history before them."""

    since: str
    open: int


class Bot:
    """Answers questions in `rooms` (ids or aliases; it joins them), or, without any, wherever its user is."""

    def __init__(
        self,
        sink: MatrixSink,
        answerer: Answerer,
        *,
        rooms: tuple[str, ...] = (),
        mentions_only: bool = False,
        most_answers: int = MOST_ANSWERS,
    ) -> None:
        self._sink = sink
        self._answerer = answerer
        self._rooms = rooms
        self._mentions_only = mentions_only
        self._slots = asyncio.Semaphore(most_answers)
        self._open = asyncio.Semaphore(MOST_OPEN)
        self._batches: deque[_Batch] = deque()
        self._since = ""
        self._note = ""
        self._answering: dict[asyncio.Task[None], bool] = {}
        """Every question that is looked after, and whether this bot's answer to it has begun."""
        self._told: set[str] = set()

    async def run(
        self,
        leave: asyncio.Event,
        stop_work: Callable[[], None],
        leave_seconds: float,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer until `leave` is set. `stop_work` ends the work behind all answers that still grow then.

        `ready` is called when what is asked from then on will be answered.
        Raises `SinkRefused` when the homeserver refuses the user or a room.
        """
        reading = asyncio.create_task(self._read(ready))
        leaving = asyncio.ensure_future(leave.wait())
        try:
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            reading.cancel()
            for task, begun in list(self._answering.items()):
                if not begun:
                    task.cancel()
            await self._wait(leave_seconds)
            stop_work()
            await self._wait(LAST_SECONDS)
        finally:
            tasks: list[asyncio.Future[Any]] = [reading, leaving, *self._answering]
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, seconds: float) -> None:
        if self._answering:
            await asyncio.wait(tuple(self._answering), timeout=seconds)

    # --- reading --------------------------------------------------------------------------------------

    async def _read(self, ready: Callable[[], None]) -> None:
        me = await self._sink.user()
        homeserver = self._sink.homeserver
        rooms = frozenset([await insist(partial(homeserver.join, room)) for room in self._rooms])
        named = "\0".join((homeserver.url, me, *sorted(rooms)))
        self._note = f"matrix-bot:{hashlib.sha256(named.encode()).hexdigest()[:32]}"
        wanted = sync_filter(rooms)

        async def news_since(since: str, seconds: float) -> News:
            answer = await insist(lambda: homeserver.sync(since, wanted, seconds), forever=True)
            return read_news(answer, me, mentions_only=self._mentions_only)

        self._since = await self._noted_place()
        try:
            news = await news_since(self._since, 0.0)
        except SinkRefused as error:
            if not self._since or error.code in TOKEN_CODES:
                raise
            log.warning("the noted place in the history is of no use (%s); beginning with now", error)
            self._since = ""
            news = await news_since("", 0.0)
        # Without a place, what there is was there before anybody listened.
        await self._take(news if self._since else replace(news, asked=(), gaps=(), encrypted=()))
        ready()
        while True:
            await self._take(await news_since(self._since, SYNC_SECONDS))

    async def _noted_place(self) -> str:
        """Where the last bot was in the history; empty where nobody knows any more."""
        failures = Failures(forever=True)
        while True:
            try:
                note = await self._sink.notes.read(self._note)
                return str(json.loads(note)["since"]) if note else ""
            except StoreUnavailable as error:
                await asyncio.sleep(failures.wait(error, time.monotonic()))

    async def _take(self, news: News) -> None:
        """See to what is new, and go on behind it."""
        for room in news.gaps:
            log.warning("some messages in %s came while nobody read, and were too many to be answered", room)
        for room in set(news.encrypted) - self._told:
            self._told.add(room)
            log.warning("%s is encrypted: what is written there can't be read, nor answered", room)
        if news.asked:
            batch = _Batch(self._since, len(news.asked))
            self._batches.append(batch)
            for asked in news.asked:
                await self._open.acquire()
                task = asyncio.create_task(self._look_after(asked, batch))
                self._answering[task] = False
                task.add_done_callback(self._forget)
        self._since = news.since or self._since
        await self._remember()

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._answering[task]
        self._open.release()

    async def _remember(self) -> None:
        """Note the place before the oldest question that isn't answered."""
        while self._batches and not self._batches[0].open:
            self._batches.popleft()
        since = self._batches[0].since if self._batches else self._since
        try:
            await self._sink.notes.write(self._note, dumps({"since": since}))
        except StoreUnavailable as error:
            log.debug("the place in the history couldn't be noted: %s", error)

    # --- answering ------------------------------------------------------------------------------------

    async def _look_after(self, asked: Asked, batch: _Batch) -> None:
        """See to it that a question is answered, here or elsewhere."""
        task = asyncio.current_task()
        assert task is not None
        failures = Failures()
        while True:
            seconds = self._sink.notes.lease_seconds / 3
            try:
                async with self._slots:
                    if await self._sink.show(asked.task_id, asked.place, self._views(asked, task)):
                        break
            except LeaseLost as error:
                log.warning("the answer %s: %s", asked.task_id, error)
            except (GatewayUnavailable, StoreUnavailable, SinkUnavailable) as error:
                try:
                    seconds = failures.wait(error, time.monotonic())
                except BridgeError:
                    log.error("the question %s stays without an answer: %s", asked.event_id, error)
                    break
            except BridgeError as error:
                log.error("the question %s stays without an answer: %s", asked.event_id, error)
                if isinstance(error, SinkRefused) and error.code in TOKEN_CODES:
                    return  # with another token it will be answered
                break
            except Exception:
                log.exception("the question %s stays without an answer", asked.event_id)
                break
            self._answering[task] = False
            await asyncio.sleep(seconds)
        batch.open -= 1
        await self._remember()

    async def _views(self, asked: Asked, task: asyncio.Task[None]) -> AsyncGenerator[View, None]:
        # Only now is it known that nobody else does it.
        self._answering[task] = True
        async with aclosing(self._answerer(asked)) as views:
            async for view in views:
                yield view
