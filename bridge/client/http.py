"""The client over httpx, for threads and for asyncio. What to do is decided in `session`; this only does it.

Bodies are read with `iter_bytes`, never `iter_lines`, which splits at U+2028 and U+0085 inside JSON. Every
request has explicit timeouts: httpx's own five seconds between two reads are too short for a model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx

from bridge.client.session import Batch, Session, refusal
from bridge.errors import ClientError, GatewayUnavailable, InvalidInput
from bridge.events import Event, Position, check_task_id
from bridge.view import View

ANSWER_SECONDS: Final = 10.0
"""How long a connect, a write or a plain answer may take."""

# A follower holds its connection for as long as its task runs, so httpx's limit of 100 would be a deadlock.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)

OnDrop = Callable[[str, float], None]
"""Told why a stream dropped and in how many seconds the next connection is tried."""


@dataclass(frozen=True, slots=True)
class _Wire:
    """What both clients share: addresses, headers, timeouts, and what errors mean."""

    base_url: str
    headers: Mapping[str, str]
    silence_seconds: float
    patience_seconds: float
    on_drop: OnDrop = field(default=lambda reason, seconds: None)

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise InvalidInput(f"a gateway's address begins with http:// or https:// (got {self.base_url!r})")

    def task(self, task_id: str, what: str) -> str:
        return f"{self.base_url.rstrip('/')}/tasks/{check_task_id(task_id)}/{what}"

    def session(self, task_id: str, after: Position | str | None) -> Session:
        position = Position.parse(after) if isinstance(after, str) else after
        return Session(task_id, after=position, patience_seconds=self.patience_seconds)

    def stream_options(self, session: Session) -> dict[str, Any]:
        return {
            "headers": {**self.headers, **session.connect()},
            # The gateway's heartbeats arrive well within this time: silence means that the line is dead.
            "timeout": httpx.Timeout(ANSWER_SECONDS, read=self.silence_seconds),
        }

    def plain_options(self) -> dict[str, Any]:
        return {"headers": {**self.headers, "Accept": "application/json"}, "timeout": ANSWER_SECONDS}

    def object_of(self, response: httpx.Response) -> dict[str, Any]:
        """A plain answer's JSON object, or the error that it is."""
        if not response.is_success:
            raise refusal(response.status_code, response.content)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ClientError(f"the answer from {self.base_url} is not a JSON object: is this a gateway?")
        return answer

    def error_of(self, error: httpx.HTTPError | httpx.InvalidURL) -> ClientError:
        """The bridge's name for an error of httpx."""
        if isinstance(error, httpx.InvalidURL | httpx.TooManyRedirects | httpx.UnsupportedProtocol):
            return ClientError(f"{self.base_url} can't be a gateway's address: {error}")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            why = "" if "refused" in str(error) or not str(error) else f": {error}"
            return GatewayUnavailable(f"no gateway at {self.base_url}{why} (start one with: bridge serve)")
        if isinstance(error, httpx.TimeoutException):
            return GatewayUnavailable(f"the gateway at {self.base_url} gave no sign in time")
        return GatewayUnavailable(
            f"the connection to {self.base_url} broke: {str(error) or type(error).__name__}"
        )

    def dropped(self, session: Session, trouble: ClientError | None) -> float:
        """Seconds to wait before the next connection; raises when there should be none."""
        if trouble is None:
            trouble = GatewayUnavailable(f"{self.base_url} closed the stream before the task's end")
        if not isinstance(trouble, GatewayUnavailable):
            raise trouble
        seconds = session.dropped(trouble)
        self.on_drop(str(trouble), seconds)
        return seconds


class Client:
    """A gateway, as seen from a thread. Close it, or use it in a `with` block.

    `base_url` includes the gateway's base path. `http` brings an httpx client of your own (its proxies,
    certificates, cookies); it is not closed. A stream that is silent for `silence_seconds` is reconnected;
    a gateway that is away for `patience_seconds` ends the following. Raises `InvalidInput` for an address
    that isn't one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: httpx.Client | None = None,
        silence_seconds: float = 45.0,
        patience_seconds: float = 60.0,
        on_drop: OnDrop = lambda reason, seconds: None,
    ) -> None:
        self._wire = _Wire(base_url, dict(headers or {}), silence_seconds, patience_seconds, on_drop)
        self._owned = http is None
        self._http = http or httpx.Client(limits=_LIMITS, follow_redirects=True)

    def status(self, task_id: str) -> dict[str, Any]:
        """The view of a task, as JSON. Raises `ClientError`, by kind."""
        return self._ask("GET", self._wire.task(task_id, "status"))

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Ask a task to stop; asking again changes nothing. Raises `ClientError`, by kind."""
        return self._ask("POST", self._wire.task(task_id, "cancel"))

    def events(
        self, task_id: str, *, after: Position | str | None = None
    ) -> Generator[tuple[Position, Event]]:
        """Each new event with its position, to the task's end, over any number of connections.

        A position counts once: text comes twice only after a `reset` took it back. Raises `ClientError`.
        """
        with closing(self._batches(self._wire.session(task_id, after))) as batches:
            for batch in batches:
                yield from batch

    def follow(self, task_id: str, *, after: Position | str | None = None) -> Generator[View]:
        """The task's view, each time it has changed, to the task's end. It is one object, which grows.

        With `after`, its text holds only what came after that position. Raises `ClientError`.
        """
        session = self._wire.session(task_id, after)
        with closing(self._batches(session)) as batches:
            for _ in batches:
                yield session.view

    def _ask(self, method: str, url: str) -> dict[str, Any]:
        try:
            return self._wire.object_of(self._http.request(method, url, **self._wire.plain_options()))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._wire.error_of(error) from error

    def _batches(self, session: Session) -> Generator[Batch]:
        url = self._wire.task(session.view.task_id, "events")
        while not session.done:
            trouble: ClientError | None = None
            try:
                with self._http.stream("GET", url, **self._wire.stream_options(session)) as response:
                    body = b"" if response.status_code == 200 else response.read()
                    session.answered(response.status_code, response.headers, body)
                    for data in response.iter_bytes():
                        if batch := session.receive(data):
                            yield batch
                        if session.done:
                            return
            except ClientError as error:
                trouble = error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                trouble = self._wire.error_of(error)
            if not session.done:
                time.sleep(self._wire.dropped(session, trouble))

    def close(self) -> None:
        """Close the connections, unless they are those of a client you brought."""
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """A gateway, as seen from asyncio. Like `Client` in everything else.

    Leaving an `async for` early keeps its connection until the generator is closed: use
    `contextlib.aclosing` where that matters.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: httpx.AsyncClient | None = None,
        silence_seconds: float = 45.0,
        patience_seconds: float = 60.0,
        on_drop: OnDrop = lambda reason, seconds: None,
    ) -> None:
        self._wire = _Wire(base_url, dict(headers or {}), silence_seconds, patience_seconds, on_drop)
        self._owned = http is None
        self._http = http or httpx.AsyncClient(limits=_LIMITS, follow_redirects=True)

    async def status(self, task_id: str) -> dict[str, Any]:
        """See `Client.status`."""
        return await self._ask("GET", self._wire.task(task_id, "status"))

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """See `Client.cancel`."""
        return await self._ask("POST", self._wire.task(task_id, "cancel"))

    async def events(
        self, task_id: str, *, after: Position | str | None = None
    ) -> AsyncGenerator[tuple[Position, Event]]:
        """See `Client.events`."""
        async with aclosing(self._batches(self._wire.session(task_id, after))) as batches:
            async for batch in batches:
                for one in batch:
                    yield one

    async def follow(self, task_id: str, *, after: Position | str | None = None) -> AsyncGenerator[View]:
        """See `Client.follow`."""
        session = self._wire.session(task_id, after)
        async with aclosing(self._batches(session)) as batches:
            async for _ in batches:
                yield session.view

    async def _ask(self, method: str, url: str) -> dict[str, Any]:
        try:
            return self._wire.object_of(await self._http.request(method, url, **self._wire.plain_options()))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._wire.error_of(error) from error

    async def _batches(self, session: Session) -> AsyncGenerator[Batch]:
        url = self._wire.task(session.view.task_id, "events")
        while not session.done:
            trouble: ClientError | None = None
            try:
                async with self._http.stream("GET", url, **self._wire.stream_options(session)) as response:
                    body = b"" if response.status_code == 200 else await response.aread()
                    session.answered(response.status_code, response.headers, body)
                    async for data in response.aiter_bytes():
                        if batch := session.receive(data):
                            yield batch
                        if session.done:
                            return
            except ClientError as error:
                trouble = error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                trouble = self._wire.error_of(error)
            if not session.done:
                await asyncio.sleep(self._wire.dropped(session, trouble))

    async def close(self) -> None:
        """See `Client.close`."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
