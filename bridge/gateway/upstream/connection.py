"""Connections to the app: one for each request, at most so many at a time, byte for byte.

Rules
-----
1. What is sent is what the caller gives: no header but `Connection` is added, no cookie kept, no redirect
   followed, nothing decoded, and no proxy of the environment's is asked. httpx's client does all of these;
   its transport does none.
2. Each wait has an end: for a connection, for a place among them, for the next bytes.
3. A connection serves one request. What an app that counts wrongly sends after its answer (a body that is
   longer than its length, one after HEAD or 204) would else be taken for the answer to the next, which is
   somebody else's. Nor is a request ever sent into a connection that is just being closed.
4. Errors say whose fault it was (`UpstreamError` and those below it), and never repeat what was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import urlsplit

import httpx

from bridge.errors import UpstreamBusy, UpstreamError, UpstreamTooSlow

Headers = list[tuple[bytes, bytes]]

CONNECT_SECONDS: Final = 5.0
PLACE_SECONDS: Final = 5.0
"""So long a request waits for its turn, where as many as are allowed are under way."""


class App:
    """Where the app is, and the connections to it; `open` is entered as long as it is asked."""

    def __init__(self, url: str, connections: int) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc.encode()
        self._url = httpx.URL(f"{parts.scheme}://{parts.netloc}/")
        self._prefix = parts.path.rstrip("/").encode()
        self._limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
        self._transport: httpx.AsyncHTTPTransport

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Within the block it can be asked."""
        # Certificates are read from disk, which takes a while, and only https needs them.
        async with httpx.AsyncHTTPTransport(
            verify=self._url.scheme == "https", trust_env=False, limits=self._limits
        ) as transport:
            self._transport = transport
            yield

    @asynccontextmanager
    async def request(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | None = None,
        *,
        silence_seconds: float,
    ) -> AsyncIterator[Answer]:
        """Send a request to a path with its query, and give the answer, whose body is read within the block.

        `silence_seconds` may pass between two pieces of it. Raises `UpstreamError`.
        """
        waits = {
            "connect": min(CONNECT_SECONDS, silence_seconds),
            "pool": PLACE_SECONDS,
            "read": silence_seconds,
            "write": silence_seconds,
        }
        request = httpx.Request(
            method,
            self._url,
            headers=[*headers, (b"connection", b"close")],
            stream=_Body(body),
            extensions={"timeout": waits, "target": self._prefix + target},
        )
        with _explained():
            response = await self._transport.handle_async_request(request)
        try:
            yield Answer(response)
        finally:
            await response.stream.aclose()  # type: ignore[union-attr] # an asynchronous transport's is one


class Answer:
    """What the app answers: its status, its headers as they came, and the pieces of its body, not decoded."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Headers = response.headers.raw
        self._response = response

    def header(self, name: str) -> str | None:
        """One header's value; of several joined."""
        value: str | None = self._response.headers.get(name)
        return value

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body. Raises `UpstreamError`."""
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        with _explained():
            async for piece in stream:
                yield piece


class _Body(httpx.AsyncByteStream):
    def __init__(self, pieces: AsyncIterator[bytes] | None) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._pieces is not None:
            async for piece in self._pieces:
                yield piece


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except httpx.PoolTimeout:
        raise UpstreamBusy("too many requests are under way") from None
    except (httpx.TimeoutException, TimeoutError):
        raise UpstreamTooSlow("no answer in time") from None
    except httpx.ConnectError:
        raise UpstreamError("no connection") from None
    except httpx.RemoteProtocolError:
        raise UpstreamError("no HTTP, or broken off") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UpstreamError(f"the connection broke ({type(error).__name__})") from None


async def read_all(answer: Answer, most: int) -> bytes | None:
    """The whole body; None when it is larger. Raises `UpstreamError`."""
    body = bytearray()
    async for piece in answer.pieces():
        body += piece
        if len(body) > most:
            return None
        await asyncio.sleep(0)  # an app that sends quickly must not hold up all streams
    return bytes(body)
