"""One request to a provider over httpx: sends it, reads the answer, keeps the time.

Rules
-----
1. Nothing that goes wrong out there raises: it becomes the answer's failure. What comes out is events.
2. **Time.** There are limits: to connect, until the first sign of an answer, between two signs, and for all
   of it. Heartbeats, empty pieces and single bytes are no signs. Only the time counts in which we wait for
   the provider; however long whoever reads us takes, the provider isn't blamed for it.
3. **Leaving.** However the reading ends, cancelled or closed or done, the connection is closed with it, at
   once: that is how a provider learns that no more tokens are wanted. Only a body that was read to its end
   gives its connection back; where somebody else's client could use it again, an answer that is whole has
   `LAST_SECONDS` for that.
4. **Size.** A line or event, an answer in one piece, and an error's body have each their most; the text of an
   answer has it in `answer`.
5. An answer that is whole stays so, whatever the connection does after it. For what may follow (the usage, an
   end marker) there are `TAIL_SECONDS`.
6. `Content-Type: application/json`, also where a stream was asked for, is the answer in one piece.
7. Redirects are not followed: they would take the key along.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import httpx

from bridge.errors import InvalidInput
from bridge.events import Event
from bridge.sources.llm.answer import Answer, Parser
from bridge.sources.llm.errors import INTERRUPTED, TIMEOUT, UNAVAILABLE, refused

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Of an answer that comes in one piece."""
MAX_ERROR_BYTES: Final = 64 * 1024
ERROR_SECONDS: Final = 10.0
"""For the body of an error, which is only for the log and for what it says of waiting."""
TAIL_SECONDS: Final = 5.0
LAST_SECONDS: Final = 0.1
"""For what stands after the end marker, of which nothing counts."""
MAX_LAST_BYTES: Final = 64 * 1024
WRITE_SECONDS: Final = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an answer may take, in seconds.

    Models that think without showing it need more for the first token. A provider that was told not to stream
    has `total_seconds` for its one piece. Raises `InvalidInput`.
    """

    connect_seconds: float = 10.0
    first_token_seconds: float = 120.0
    between_tokens_seconds: float = 60.0
    total_seconds: float = 900.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:  # not true for NaN, either
                raise InvalidInput(f"{limit.name} must be above 0")


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent. `stream`: whether a stream was asked for."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    stream: bool = True


class Clock:
    """How long one answer may still be waited for."""

    def __init__(self, limits: Limits, answer: Answer, *, stream: bool) -> None:
        self._limits = limits
        self._answer = answer
        self._seen = (answer.pieces, answer.whole)
        self._left = limits.first_token_seconds if stream else limits.total_seconds
        self._left_in_all = limits.total_seconds

    async def wait(self, awaited: Awaitable[T]) -> T:
        """The result, in time. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(min(self._left, self._left_in_all)):
                return await awaited
        finally:
            waited = loop.time() - began
            self._left -= waited
            self._left_in_all -= waited

    def look(self) -> None:
        """The answer has been given all that came: does it show a sign?"""
        seen = (self._answer.pieces, self._answer.whole)
        if seen != self._seen:
            self._seen = seen
            self._left = TAIL_SECONDS if self._answer.whole else self._limits.between_tokens_seconds

    def hurry(self, seconds: float) -> None:
        """From here on only so long."""
        self._left = min(self._left, seconds)


async def exchange(
    post: Post, parser: Parser, limits: Limits, http: httpx.AsyncClient | None = None
) -> AsyncGenerator[Event, None]:
    """Send, and yield the events of the answer as they come. How it ended stands in `parser.answer` then.

    Without `http` the connection is this call's own.
    """
    async with _client(http) as client:
        one = _Exchange(post, parser.answer, limits, client)
        try:
            if not await one.open():
                return
            if one.in_one_piece:
                body = await one.read_all(MAX_ANSWER_BYTES)
                for event in parser.whole(body) if body is not None else ():
                    yield event
                return
            while not parser.answer.over and (data := await one.read()) is not None:
                events = parser.feed(data)
                one.clock.look()
                for event in events:
                    yield event
            for event in parser.close():
                yield event
            if http is not None and parser.answer.whole:
                await one.finish()
        finally:
            await one.close()


class _Exchange:
    """The request and its answer's bytes. Whatever fails is told to the answer."""

    def __init__(self, post: Post, answer: Answer, limits: Limits, client: httpx.AsyncClient) -> None:
        self.clock = Clock(limits, answer, stream=post.stream)
        self._post = post
        self._answer = answer
        self._limits = limits
        self._client = client
        self._response: httpx.Response | None = None
        self._half_open: Any = None
        """A connection within its TLS handshake. If that is cancelled, httpcore forgets it unclosed."""
        self._pieces: AsyncIterator[bytes]

    async def open(self) -> bool:
        """Send the request and read the answer's head; whether an answer follows."""
        try:
            self._response = response = await self.clock.wait(self._send())
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self._fail(error, UNAVAILABLE)
            return False
        self._pieces = response.aiter_bytes()
        if response.status_code == httpx.codes.OK:
            return True
        self.clock.hurry(ERROR_SECONDS)
        body, _ = await self._gather(MAX_ERROR_BYTES)
        self._answer.failure = refused(
            response.status_code, response.headers, _readable(body), datetime.now(UTC)
        )
        return False

    async def _send(self) -> httpx.Response:
        limits = self._limits
        request = self._client.build_request(
            "POST",
            self._post.url,
            # Compressed, a stream may wait in somebody's buffer.
            headers={"accept-encoding": "identity", **self._post.headers},
            content=self._post.body,
            # Reading has limits of ours: httpx's own starts anew with every byte.
            timeout=httpx.Timeout(None, connect=limits.connect_seconds, write=WRITE_SECONDS),
            extensions={"trace": self._trace},
        )
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """What httpcore tells of its steps: its documentation, "Request extensions", "trace"."""
        if name == "connection.connect_tcp.complete":
            self._half_open = info["return_value"]
        elif name == "connection.start_tls.complete" or not name.startswith("connection."):
            self._half_open = None

    @property
    def in_one_piece(self) -> bool:
        """Whether the answer is one JSON value."""
        assert self._response is not None
        kind = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return not self._post.stream or kind == "application/json"

    async def read(self) -> bytes | None:
        """The next bytes, or None when there are no more, for whatever reason."""
        try:
            return await self.clock.wait(anext(self._pieces, None))
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            if not self._answer.whole:
                self._fail(error, INTERRUPTED)
            return None

    async def read_all(self, most: int) -> bytes | None:
        """All bytes, if there are not more than `most`."""
        body, error = await self._gather(most)
        if error is not None:
            self._fail(error, INTERRUPTED)
            return None
        if len(body) > most:
            self._answer.fail(UNAVAILABLE, f"the answer is larger than {most} bytes")
            return None
        return body

    async def _gather(self, most: int) -> tuple[bytes, Exception | None]:
        """What comes, until it is more than `most`; and what ended it, if it didn't end by itself."""
        gathered = bytearray()
        try:
            while len(gathered) <= most and (data := await self.clock.wait(anext(self._pieces, None))):
                gathered += data
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            return bytes(gathered), error
        return bytes(gathered), None

    async def finish(self) -> None:
        """Read a body of which nothing counts any more to its end, if that is near."""
        self.clock.hurry(LAST_SECONDS)
        await self._gather(MAX_LAST_BYTES)

    async def close(self) -> None:
        """Let go of the connection; if the body wasn't read to its end, the other side sees it close."""
        if self._response is not None:
            await self._response.aclose()
        if self._half_open is not None:
            await self._half_open.aclose()

    def _fail(self, error: Exception, code: str) -> None:
        late = isinstance(error, TimeoutError | httpx.TimeoutException)
        said = str(error) or "no answer in time"
        self._answer.fail(TIMEOUT if late else code, f"{type(error).__name__}: {said}")


def _readable(body: bytes) -> Any:
    """The body's JSON, or its text."""
    text = body[:MAX_ERROR_BYTES].decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@asynccontextmanager
async def _client(http: httpx.AsyncClient | None) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client to send with; one's own is closed afterwards, somebody else's isn't."""
    if http is not None:
        yield http
        return
    async with httpx.AsyncClient(verify=_trust()) as client:
        yield client


@functools.cache
def _trust() -> ssl.SSLContext:
    """To read all certificates takes longer than to send a request."""
    return httpx.create_ssl_context()
