"""What the poller asks the app: how a task is, and to stop it. With credentials of its own, never a client's.

Rules
-----
1. A question has `upstream_answer_seconds` in all, and an answer has `upstream_answer_bytes` at most. What is
   larger or later is `Trouble`, and so is everything that is no answer.
2. No more than `max_upstream_questions` are under way at once; the others wait for their turn, in order.
3. It asks for an answer that isn't compressed, because a small one can become a huge one; what comes
   compressed all the same is not read.
4. An app that is in trouble is told of once in the log, and once that it is well again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bridge import __version__, checks
from bridge.errors import UpstreamError, UpstreamTooSlow
from bridge.gateway.upstream.connection import App, Headers, read_all
from bridge.settings import Settings
from bridge.sources.mapping import StatusMapping
from bridge.sources.pace import retry_after
from bridge.sources.paths import fill
from bridge.sources.polling import Absent, Snapshot, Trouble, read_answer

log = logging.getLogger("bridge.gateway")

_MAX_DOUBTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Unchanged:
    """304: nothing has changed since the answer with that ETag."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the app said of a task, the ETag of that, and how long it wants to be left alone (seconds)."""

    what: Snapshot | Absent | Unchanged | Trouble
    etag: bytes | None = None
    retry_after: float = 0.0


class Questions:
    """Asks one app, as its mapping says."""

    def __init__(self, settings: Settings, mapping: StatusMapping) -> None:
        self._at_once = settings.max_upstream_questions
        self._app = App(settings.upstream, self._at_once)
        self._mapping = mapping
        self._status = settings.upstream_status or mapping.status
        self._seconds = settings.upstream_answer_seconds
        self._bytes = min(settings.upstream_answer_bytes, settings.max_task_bytes)
        own = [*mapping.headers, *checks.headers(settings.upstream_headers)]
        self._headers = self._as_sent(own)
        self._url = settings.upstream
        self._well = True
        self._doubts: set[str] = set()
        self._turns: asyncio.Semaphore

    @property
    def can_cancel(self) -> bool:
        """Whether the mapping names what stops a task."""
        return self._mapping.cancel is not None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold connections to the app."""
        self._turns = asyncio.Semaphore(self._at_once)
        async with self._app.open():
            yield

    async def status(self, task_id: str, etag: bytes | None) -> Said:
        """How the task is. `etag` is that of the last answer, if the app may say that nothing has changed."""
        target = fill(self._status, task_id)
        if target is None:
            return Said(Absent())
        async with self._turns:
            try:
                async with asyncio.timeout(self._seconds):
                    said = await self._ask(target, etag)
            except (UpstreamError, TimeoutError) as error:
                slow = isinstance(error, UpstreamTooSlow | TimeoutError)
                said = Said(Trouble(f"no answer within {self._seconds:g} s" if slow else str(error)))
        self._tell(said.what)
        return said

    async def cancel(self, task_id: str) -> int:
        """Ask the app to stop the task; the status of its answer, 404 when it has no such task.

        Raises `UpstreamError`.
        """
        assert self._mapping.cancel is not None
        target = fill(self._mapping.cancel.path, task_id)
        if target is None:
            return 404
        headers = [*self._headers, (b"content-length", b"0")]
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                async with self._app.request(
                    self._mapping.cancel.method, target.encode(), headers, silence_seconds=self._seconds
                ) as answer:
                    await read_all(answer, self._bytes)
                    return answer.status
        except TimeoutError:
            raise UpstreamTooSlow("no answer in time") from None

    async def _ask(self, target: str, etag: bytes | None) -> Said:
        headers = [*self._headers, *([(b"if-none-match", etag)] if etag else [])]
        async with self._app.request(
            "GET", target.encode(), headers, silence_seconds=self._seconds
        ) as answer:
            pause = retry_after(answer.header("retry-after"), time.time())
            if answer.status == 304:
                return Said(
                    Unchanged() if etag else Trouble("status 304, though nothing was known"), etag, pause
                )
            coding = (answer.header("content-encoding") or "identity").strip().lower()
            if coding != "identity":
                return Said(
                    Trouble(f"compressed ({coding[:20]}), though that was not asked for"), None, pause
                )
            body = await read_all(answer, self._bytes)
        if body is None:
            return Said(Trouble(f"an answer of more than {self._bytes} bytes"), None, pause)
        return Said(read_answer(self._mapping, answer.status, body), _etag(answer.headers), pause)

    def _as_sent(self, own: list[tuple[str, str]]) -> Headers:
        """All that is sent with each question. What the operator says goes before what we would say."""
        usual = {
            "host": self._app.host.decode(),
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"bridge/{__version__}",
        }
        named = {name.lower() for name, _ in own}
        both = [*((name, value) for name, value in usual.items() if name not in named), *own]
        return [(name.encode(), value.encode()) for name, value in both]

    def _tell(self, what: Snapshot | Absent | Unchanged | Trouble) -> None:
        """Rule 4, and once for each thing in the answers that can't be used."""
        well = not isinstance(what, Trouble)
        if well != self._well:
            self._well = well
            words = (
                "answers again" if well else f"does not answer as it should: {getattr(what, 'reason', '')}"
            )
            log.warning("the app at %s %s", self._url, words)
        for doubt in what.doubts if isinstance(what, Snapshot) else ():
            if doubt not in self._doubts and len(self._doubts) < _MAX_DOUBTS:
                self._doubts.add(doubt)
                log.warning("the mapping does not fit the answers of %s: %s", self._url, doubt)


def _etag(headers: Headers) -> bytes | None:
    return next((value for name, value in headers if name.lower() == b"etag"), None)
