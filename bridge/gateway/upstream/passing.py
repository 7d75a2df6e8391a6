"""Pass-through: a client's request goes to the app as it came, and the app's answer back as it is.

Rules
-----
1. Method, path, query and body are the client's, byte for byte; of the headers see `headers.py`. The answer's
   status, headers and body are the app's, in the coding that they have; redirects are the client's to follow.
2. Who may do what is for the app to judge: it gets the client's own credentials, and nobody else gets them.
3. Bodies are streamed in both directions. Each waits for the slower side, so neither costs memory; who takes
   or gives nothing for too long is given up, and a client that leaves takes its request to the app along.
4. An answer that breaks off, breaks off for the client, too: it must not look whole.
5. What can't be handed on is refused in the shape of our errors: a path that leads astray, a request to
   upgrade (to a WebSocket), one that has come through here before, and an app that doesn't answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from bridge.errors import UpstreamBusy, UpstreamError
from bridge.gateway.addresses import PEER
from bridge.gateway.auth import QUERY
from bridge.gateway.connection import PLAIN, connection_of, leave_bare
from bridge.gateway.disconnect import cut_off
from bridge.gateway.upstream.connection import Answer, App, Headers
from bridge.gateway.upstream.headers import end_to_end, has_been_here, to_app
from bridge.settings import Settings
from bridge.sources.paths import leads_astray

log = logging.getLogger("bridge.gateway")

_NO_BODY: Final = (204, 304)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class _Gone(Exception):
    """The client has left in the midst of its request."""


class Passing:
    """Hands requests to the app; raw ASGI. `open` is entered as long as there may be any."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = App(settings.upstream, settings.max_upstream_connections)
        self._via = b"bridge-" + secrets.token_hex(4).encode()
        self._well = True
        self.open = self._app.open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `UpstreamError` and HTTPException, but not after the answer has begun."""
        _refuse(scope, self._via)
        client = _Client(scope, receive, send, self._settings.stall_timeout_seconds)
        passing = asyncio.create_task(self._pass(scope, client), name="bridge pass-through")
        watch = asyncio.create_task(client.watch(), name="bridge disconnect watch")
        try:
            await asyncio.wait((passing, watch), return_when=asyncio.FIRST_COMPLETED)
            if passing.done() and client.broken:
                await client.cut()
        finally:
            passing.cancel()
            watch.cancel()
            await asyncio.wait((passing, watch))
        if not passing.cancelled() and (error := passing.exception()) is not None:
            raise error

    async def _pass(self, scope: Scope, client: _Client) -> None:
        try:
            async with self._app.request(
                scope["method"],
                target_of(scope),
                self._headers(scope),
                client.body(),
                silence_seconds=self._settings.upstream_pass_seconds,
            ) as answer:
                await client.begin(answer)
                async for piece in answer.pieces():
                    await client.send(piece)
                await client.send(b"", more=False)
        except _Gone:
            return
        except UpstreamError as error:
            self._tell(error)
            if not client.begun:
                raise
            client.broken = True
        except TimeoutError:
            client.broken = True
        else:
            self._tell(None)

    def _headers(self, scope: Scope) -> Headers:
        client = scope.get("client") or ("", 0)
        return to_app(
            scope["headers"],
            host=self._app.host,
            peer=str(scope.get(PEER, client[0])).encode(),
            trusted=PEER in scope,
            scheme=scope["scheme"].encode(),
            via=self._via,
        )

    def _tell(self, error: UpstreamError | None) -> None:
        """Say it once when the app can't be reached, and once when it can be again."""
        if isinstance(error, UpstreamBusy):
            return
        if self._well != (error is None):
            self._well = error is None
            words = "answers again" if error is None else f"can't be handed requests: {error}"
            log.warning("the app at %s %s", self._settings.upstream, words)


class _Client:
    """The client's side of one exchange: what it sends, what it gets, and whether it is still there."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._patience = patience
        self._connection = connection_of(scope)
        self._gone = asyncio.Event()
        self._all_read = asyncio.Event()
        self.begun = False
        self.broken = False
        """Whether the answer has begun, but can't be brought to its end."""
        if not any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]):
            self._all_read.set()

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body, as it comes. Raises `_Gone`."""
        while not self._all_read.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            if not message.get("more_body", False):
                self._all_read.set()
            if message.get("body"):
                yield message["body"]

    async def watch(self) -> None:
        """Wait until the client has left. Under other servers than ours only `receive` tells, and only one
        can call it at a time: until the body is read, that is `body`.
        """
        if self._connection.when_gone(self._gone.set):
            await self._gone.wait()
            return
        await self._all_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def begin(self, answer: Answer) -> None:
        """The answer's first line and headers. Raises `UpstreamError` for what can't be said in HTTP."""
        if not 200 <= answer.status < 600:
            raise UpstreamError(f"status {answer.status}")
        headers = end_to_end(answer.headers)
        if any(_CONTROL.search(value) for _, value in headers):
            raise UpstreamError("control characters in a header")
        if answer.status in _NO_BODY:
            # It would be that of a body which isn't there, and servers take it for one that is.
            headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
        if not leave_bare(self._scope):
            headers = [(name, value) for name, value in headers if name.lower() != b"date"]
        self.begun = True
        await self._tell({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def send(self, piece: bytes, *, more: bool = True) -> None:
        """A piece of the answer's body. Raises TimeoutError when the client takes nothing."""
        await self._tell({"type": "http.response.body", "body": piece, "more_body": more})

    async def _tell(self, message: Message) -> None:
        async with asyncio.timeout(self._patience):
            await self._send(message)

    async def cut(self) -> None:
        """Break the connection off (rule 4). Raises `UpstreamError` where the server must do that itself."""
        if self._connection is PLAIN:
            raise UpstreamError("the answer broke off")
        await cut_off(self._connection)


def raw_path_of(scope: Scope) -> bytes:
    """The path below the gateway's own, as the client sent it."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.removeprefix(scope.get("root_path", "").encode()) or b"/"


def target_of(scope: Scope) -> bytes:
    """Path and query, as the client sent them; also a parameter that could be a ticket may be the app's."""
    query: bytes = scope.get(QUERY, scope.get("query_string", b""))
    return raw_path_of(scope) + (b"?" + query if query else b"")


def _refuse(scope: Scope, via: bytes) -> None:
    """Rule 5. Raises HTTPException."""
    if leads_astray(raw_path_of(scope)):
        raise HTTPException(400, "This path may lead elsewhere than it says.")
    if has_been_here(scope["headers"], via):
        raise HTTPException(
            508, "This request goes in a circle: the app behind this gateway leads back to it."
        )
    if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"]):
        raise HTTPException(501, "WebSockets are not passed through.")
