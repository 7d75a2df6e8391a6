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
from starlette.types import ASGIApp

from bridge.gateway.answers import NOSNIFF
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
