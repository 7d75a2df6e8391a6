"""CORS: which web pages of other origins may read what the gateway answers.

- Without `cors_origins` there are no such headers at all: a gateway behind the app's own origin needs none.
- Origins that are listed may send credentials; `*` never comes with them, nor is an origin echoed that isn't
  in the list.
- It stands around everything, also around Starlette's handler of bugs. Inside of it, where Starlette puts
  middlewares, a 500 would lack the headers, and a page would see a broken network instead.

- What a stream sends passes through it, but for live events under our own server. Nothing is copied.

What isn't HTTP, or has too large a head, is refused before there is a request, without these headers.
CORS says who may read an answer, not who may ask: `cancel` protects itself.
"""

from __future__ import annotations

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.gateway.answers import NOSNIFF, Headers, lines
from bridge.gateway.at_once import at_once
from bridge.settings import Settings

_METHODS: Final = ("GET", "HEAD", "POST")
_SENT: Final = ("Authorization", "Cache-Control", "Content-Type", "If-None-Match", "Last-Event-ID")
_READ: Final = ("ETag", "Retry-After")


def with_cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application with CORS as the settings want it; without any, the application itself."""
    origins = settings.origins
    if not origins:
        return app
    middleware = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_SENT,
        allow_credentials="*" not in origins,
        expose_headers=_READ,
    )
    # It answers preflights itself.
    middleware.preflight_headers |= NOSNIFF
    return middleware


class Added:
    """What CORS adds to the head of an answer, for who writes heads without an application around. The
    middleware itself is asked, once for each origin that is allowed.
    """

    def __init__(self, settings: Settings) -> None:
        self._origins = [origin.encode() for origin in settings.origins]
        self._lines = {origin: lines(_added(settings, origin)) for origin in (None, *self._origins)}

    def to(self, origin: bytes | None) -> bytes | None:
        """The lines for a request with this `Origin`. None: it isn't listed; let the middleware see it."""
        if not self._origins:
            return b""
        return self._lines.get(b"*" if origin is not None and b"*" in self._origins else origin)


def _added(settings: Settings, origin: bytes | None) -> Headers:
    found: Headers = []

    async def empty(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def keep(message: Message) -> None:
        found.extend(message["headers"])

    async def ask() -> None:
        headers = [] if origin is None else [(b"origin", origin)]
        scope = {"type": "http", "method": "GET", "headers": headers}
        await with_cors(empty, settings)(scope, nothing, keep)

    at_once(ask())
    return found
