"""What both clients over httpx share: addresses, headers, timeouts, and what httpx's errors mean.

Bodies are read with `iter_bytes`, never `iter_lines`, which splits at U+2028 and U+0085 inside JSON. Every
request has explicit timeouts: httpx's own five seconds between two reads are too short for a model.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import httpx

from bridge.checks import wrong_ticket
from bridge.client.answers import json_object, refusal
from bridge.client.session import ANSWER_SECONDS, OPEN_SECONDS, SILENCE_SECONDS, Request, Session
from bridge.client.ways import Trouble
from bridge.errors import ClientError, GatewayUnavailable, InvalidInput
from bridge.events import Position, check_task_id
from bridge.urls import shown

# A follower holds its connection for as long as its task runs, so httpx's limit of 100 would be a deadlock.
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)

OnDrop = Callable[[str, float], None]
"""Told why a request failed or a stream dropped, and in how many seconds the next is tried."""

Ticket = str | Callable[[], str | Awaitable[str]]
"""A ticket or token, or what gives one: asked before each request, because they run out. Only an
`AsyncClient` can wait for one.
"""

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


@dataclass(slots=True)
class Attempt:
    """One request of a session. `heard`: whether any byte of a body has come."""

    request: Request
    url: str
    options: dict[str, Any]
    heard: bool = False

    def head_came(self, response: httpx.Response) -> None:
        """From here on, a read may take as long as a stream may be silent."""
        # httpx hands this very mapping down, where it is looked at once for the head and once for the body.
        response.request.extensions["timeout"]["read"] = self.request.silence_seconds


class Wire(Generic[Http]):
    """The part of a client that sends nothing."""

    def __init__(
        self,
        base_url: str,
        *,
        ticket: Ticket | None = None,
        headers: Mapping[str, str] | None = None,
        http: Http | None = None,
        open_seconds: float = OPEN_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        patience_seconds: float = 60.0,
        on_drop: OnDrop = lambda reason, seconds: None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"a gateway's address begins with http:// or https:// (got {shown(base_url)!r})"
            )
        self._base_url = base_url.rstrip("/")
        self._shown_url = shown(self._base_url)
        self._headers = dict(headers or {})
        if ticket and any(name.lower() == "authorization" for name in self._headers):
            raise InvalidInput("a ticket is sent as Authorization: give either, not both")
        self._ticket = ticket
        self._owned = http is None
        self._http: Http = self._new_http() if http is None else http
        self._new_session = partial(
            Session,
            open_seconds=open_seconds,
            silence_seconds=silence_seconds,
            patience_seconds=patience_seconds,
        )
        self._on_drop = on_drop

    def _new_http(self) -> Http:
        raise NotImplementedError

    def _url(self, task_id: str, what: str) -> str:
        return f"{self._base_url}/tasks/{check_task_id(task_id)}/{what}"

    def _session(self, task_id: str, after: Position | str | None, *, look_first: bool = False) -> Session:
        position = Position.parse(after) if isinstance(after, str) else after
        return self._new_session(task_id, after=position, look_first=look_first)

    def _brought(self) -> str | Awaitable[str] | None:
        """The ticket for the next request, or what it is still to come from."""
        return self._ticket() if callable(self._ticket) else self._ticket

    def _credentials(self, ticket: Any) -> dict[str, str]:
        """The header that carries a ticket. Raises `InvalidInput`, which doesn't repeat it, for none."""
        if not ticket:
            return {}
        if not isinstance(ticket, str) or (wrong := wrong_ticket(ticket)):
            raise InvalidInput(f"a ticket must {wrong if isinstance(ticket, str) else 'be a string'}")
        return {"Authorization": f"Bearer {ticket}"}

    def _plain(self, ticket: Any) -> dict[str, Any]:
        """Options of a request that no session makes."""
        headers = {**self._headers, **self._credentials(ticket), "Accept": "application/json"}
        return {"headers": headers, "timeout": ANSWER_SECONDS}

    def _attempt(self, session: Session, ticket: Any) -> Attempt:
        """The session's next request."""
        request = session.next()
        options = {
            "headers": {**self._headers, **self._credentials(ticket), **request.headers},
            "timeout": httpx.Timeout(ANSWER_SECONDS, read=request.answer_seconds),
        }
        if request.query:
            options["params"] = dict(request.query)
        return Attempt(request, self._url(session.view.task_id, request.what), options)

    def _object_of(self, response: httpx.Response) -> dict[str, Any]:
        """A plain answer's JSON object, or the error that it is."""
        if not response.is_success:
            raise refusal(response.status_code, response.content)
        return json_object(response.content)

    def _pause(self, session: Session, attempt: Attempt, error: Exception | None) -> float:
        """Seconds to wait before the session's next request; raises when there should be none."""
        if error is None and attempt.request.way != "stream":
            return session.pause()
        if error is None:
            error = GatewayUnavailable(f"{self._shown_url} closed the stream before the task's end")
        trouble: Trouble = "broken"
        if isinstance(error, httpx.ReadTimeout):
            trouble = "silent" if attempt.heard else "mute"
        named = error if isinstance(error, ClientError) else self._named(error)
        if trouble == "mute" and attempt.request.way == "stream":
            named = GatewayUnavailable(f"no stream gets through from {self._shown_url}; polling instead")
        seconds = session.failed(named, trouble)
        self._on_drop(str(named), seconds)
        return seconds

    def _named(self, error: Exception) -> ClientError:
        """The bridge's name for an error of httpx."""
        if isinstance(error, httpx.InvalidURL | httpx.TooManyRedirects | httpx.UnsupportedProtocol):
            return ClientError(f"{self._shown_url} can't be a gateway's address: {error}")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            why = "" if "refused" in str(error) or not str(error) else f": {error}"
            return GatewayUnavailable(f"no gateway at {self._shown_url}{why} (start one with: bridge serve)")
        if isinstance(error, httpx.TimeoutException):
            return GatewayUnavailable(f"the gateway at {self._shown_url} gave no sign in time")
        return GatewayUnavailable(
            f"the connection to {self._shown_url} broke: {str(error) or type(error).__name__}"
        )


@contextmanager
def first_byte_within(seconds: float, response: httpx.Response) -> Generator[threading.Timer]:
    """A limit of time for a thread that reads a body: until the timer is cancelled. Raises ReadTimeout.

    httpx knows one limit for all reads of a body, but the first byte must come sooner than any later one.
    A read can't be interrupted from outside, so the connection under it is shut down: the thread then
    reads its end. Only HTTP/1 has a connection of its own for each request; with others this does nothing.
    """
    expired = threading.Event()

    def shut_down() -> None:
        stream = response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if response.http_version.startswith("HTTP/1") and isinstance(connection, socket.socket):
            expired.set()
            try:
                # Not the method of an SSLSocket: that would take the TLS away from under the reading thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass  # closed already

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield timer
    except httpx.TransportError as error:
        if expired.is_set():
            raise httpx.ReadTimeout("no byte of the body came in time") from error
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise httpx.ReadTimeout("no byte of the body came in time")
