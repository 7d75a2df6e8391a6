"""The clients over httpx, for threads and for asyncio. What to do is decided in `session`, and done here."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from types import TracebackType
from typing import Any, Self

import httpx

from bridge.client.session import Batch, Session
from bridge.client.wire import LIMITS, Attempt, Wire, first_byte_within
from bridge.errors import ClientError
from bridge.events import Event, Position
from bridge.view import View


class Client(Wire[httpx.Client]):
    """A gateway, as seen from a thread. Close it, or use it in a `with` block.

    `base_url` includes the gateway's base path. `ticket` lets in where the gateway asks for that: what
    `bridge.ticket` made, another token that the gateway knows, or a function that gives one, called before
    each request since tickets run out; what it raises ends the following. It goes into the header
    Authorization, never into a URL. `http` brings an httpx client of your own (its proxies,
    certificates, cookies); it is not closed. A stream that brings nothing in `open_seconds` is given up for
    polls, one that is silent for `silence_seconds` is reconnected; a gateway that is away for
    `patience_seconds`, counted from the first failure, ends the following. `on_drop` is told why a request
    failed, and in how many seconds comes the next. Raises `InvalidInput` for an address that isn't one.
    """

    def _new_http(self) -> httpx.Client:
        return httpx.Client(limits=LIMITS, follow_redirects=True)

    def status(self, task_id: str) -> dict[str, Any]:
        """The view of a task, as JSON. Raises `ClientError`, by kind."""
        return self._ask("GET", self._url(task_id, "status"))

    def cancel(self, task_id: str) -> dict[str, Any]:
        """Ask a task to stop; asking again changes nothing. Raises `ClientError`, by kind."""
        return self._ask("POST", self._url(task_id, "cancel"))

    def events(
        self, task_id: str, *, after: Position | str | None = None
    ) -> Generator[tuple[Position, Event]]:
        """Each new event with its position, to the task's end, over any number of requests.

        A position counts once: text comes twice only after a `reset` took it back. Where streams don't get
        through, several events may have one position: resume from it only when all of them were taken.
        With `after` these are exactly the events that came after that position. Raises `ClientError`.
        """
        with closing(self._batches(self._session(task_id, after))) as batches:
            for batch in batches:
                yield from batch

    def follow(self, task_id: str, *, after: Position | str | None = None) -> Generator[View]:
        """The task's view, each time it has changed, to the task's end. It is one object, which grows.

        With `after`, its texts hold only what came after that position; everything else is whole, as one
        poll before the stream shows it. Raises `ClientError`.
        """
        session = self._session(task_id, after, look_first=True)
        with closing(self._batches(session)) as batches:
            for _ in batches:
                yield session.view

    def _ask(self, method: str, url: str) -> dict[str, Any]:
        options = self._plain(self._brought())
        try:
            return self._object_of(self._http.request(method, url, **options))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._named(error) from error

    def _batches(self, session: Session) -> Generator[Batch]:
        while not session.done:
            attempt = self._attempt(session, self._brought())
            error: Exception | None = None
            try:
                if attempt.request.way == "stream":
                    yield from self._stream(session, attempt)
                elif batch := self._poll(session, attempt):
                    yield batch
            except (ClientError, httpx.HTTPError, httpx.InvalidURL) as caught:
                error = caught
            if not session.done:
                time.sleep(self._pause(session, attempt, error))

    def _poll(self, session: Session, attempt: Attempt) -> Batch:
        response = self._http.get(attempt.url, **attempt.options)
        return session.polled(response.status_code, response.headers, response.content)

    def _stream(self, session: Session, attempt: Attempt) -> Generator[Batch]:
        with self._http.stream("GET", attempt.url, **attempt.options) as response:
            body = b"" if response.status_code == 200 else response.read()
            session.answered(response.status_code, response.headers, body)
            attempt.head_came(response)
            with first_byte_within(attempt.request.answer_seconds, response) as timer:
                for data in response.iter_bytes():
                    timer.cancel()
                    attempt.heard = True
                    if batch := session.receive(data):
                        yield batch
                    if session.done:
                        return

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


class AsyncClient(Wire[httpx.AsyncClient]):
    """A gateway, as seen from asyncio. Like `Client` in everything else; a function that gives tickets may
    be a coroutine's.

    Leaving an `async for` early keeps its connection until the generator is closed: use
    `contextlib.aclosing` where that matters.
    """

    def _new_http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(limits=LIMITS, follow_redirects=True)

    async def status(self, task_id: str) -> dict[str, Any]:
        """See `Client.status`."""
        return await self._ask("GET", self._url(task_id, "status"))

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """See `Client.cancel`."""
        return await self._ask("POST", self._url(task_id, "cancel"))

    async def events(
        self, task_id: str, *, after: Position | str | None = None
    ) -> AsyncGenerator[tuple[Position, Event]]:
        """See `Client.events`."""
        async with aclosing(self._batches(self._session(task_id, after))) as batches:
            async for batch in batches:
                for one in batch:
                    yield one

    async def follow(self, task_id: str, *, after: Position | str | None = None) -> AsyncGenerator[View]:
        """See `Client.follow`."""
        session = self._session(task_id, after, look_first=True)
        async with aclosing(self._batches(session)) as batches:
            async for _ in batches:
                yield session.view

    async def _awaited(self) -> Any:
        brought = self._brought()
        return await brought if inspect.isawaitable(brought) else brought

    async def _ask(self, method: str, url: str) -> dict[str, Any]:
        options = self._plain(await self._awaited())
        try:
            return self._object_of(await self._http.request(method, url, **options))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._named(error) from error

    async def _batches(self, session: Session) -> AsyncGenerator[Batch]:
        while not session.done:
            attempt = self._attempt(session, await self._awaited())
            error: Exception | None = None
            try:
                if attempt.request.way == "stream":
                    async with aclosing(self._stream(session, attempt)) as batches:
                        async for batch in batches:
                            yield batch
                elif batch := await self._poll(session, attempt):
                    yield batch
            except (ClientError, httpx.HTTPError, httpx.InvalidURL) as caught:
                error = caught
            if not session.done:
                await asyncio.sleep(self._pause(session, attempt, error))

    async def _poll(self, session: Session, attempt: Attempt) -> Batch:
        response = await self._http.get(attempt.url, **attempt.options)
        return session.polled(response.status_code, response.headers, response.content)

    async def _stream(self, session: Session, attempt: Attempt) -> AsyncGenerator[Batch]:
        async with self._http.stream("GET", attempt.url, **attempt.options) as response:
            body = b"" if response.status_code == 200 else await response.aread()
            session.answered(response.status_code, response.headers, body)
            attempt.head_came(response)
            pieces = response.aiter_bytes()
            try:
                async with asyncio.timeout(attempt.request.answer_seconds):
                    data = await anext(pieces, None)
            except TimeoutError:
                raise httpx.ReadTimeout("no byte of the body came in time") from None
            while data is not None:
                attempt.heard = True
                if batch := session.receive(data):
                    yield batch
                if session.done:
                    return
                data = await anext(pieces, None)

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
