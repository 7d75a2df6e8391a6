"""Answers that are not streams: JSON, and errors in one shape, `{"error":{"code","message"}}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bridge.codec import dumps
from bridge.errors import (
    AccessError,
    InvalidInput,
    InvalidPosition,
    InvalidTaskId,
    StoreError,
    StoreUnavailable,
    TooMany,
    Unauthenticated,
    UpstreamBusy,
    UpstreamError,
    UpstreamTooSlow,
)

_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    500: "internal",
    501: "not_implemented",
    503: "unavailable",
    508: "loop",
}
RETRY_AFTER_SECONDS: Final = 2

NOSNIFF: Final = {"x-content-type-options": "nosniff"}
"""On every answer: a browser must not take it for something else than its type says. A task's text is JSON or
an event stream, and stays that, whatever it looks like.
"""


Headers = list[tuple[bytes, bytes]]
"""As ASGI has them."""


def lines(headers: Headers) -> bytes:
    """Headers as they stand in a head of HTTP/1.1 (RFC 9112, 5)."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON."""
    return json_bytes(dumps(value), status, headers)


def json_bytes(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is already encoded. Never to be kept by a cache between us and the client."""
    all_headers = {"cache-control": "no-store", **NOSNIFF, **(headers or {})}
    return Response(body, status, all_headers, media_type="application/json")


def error_answer(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error; 503 tells when to come back."""
    all_headers = dict(headers or {})
    if status == 503:
        all_headers.setdefault("retry-after", str(RETRY_AFTER_SECONDS))
    return json_bytes(error_body(message, code or _CODES.get(status, "error")), status, all_headers)


def error_body(message: str, code: str) -> bytes:
    """The one shape of an error."""
    return dumps({"error": {"code": code, "message": message}})


def invalid_input(error: Exception) -> Response:
    """The client sent something that can never be accepted."""
    codes: dict[type[Exception], str] = {InvalidTaskId: "bad_task_id", InvalidPosition: "bad_position"}
    return error_answer(400, str(error), codes.get(type(error)))


def access_error(error: Exception) -> Response:
    """Nobody is let in without credentials, nor while nobody can tell whether they are right."""
    if isinstance(error, Unauthenticated):
        # RFC 9110, 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field".
        return error_answer(401, str(error), "unauthenticated", {"www-authenticate": "Bearer"})
    return error_answer(503, str(error), "auth_unavailable")


def upstream_error(error: Exception) -> Response:
    """The app that a request is handed to. What went wrong exactly is for the log."""
    if isinstance(error, UpstreamTooSlow):
        return error_answer(504, "The app behind this gateway does not answer.", "upstream_timeout")
    if isinstance(error, UpstreamBusy):
        return error_answer(503, "Too many requests wait for the app behind this gateway.", "upstream_busy")
    return error_answer(502, "The app behind this gateway can't be reached.", "upstream_unreachable")


def too_many(error: Exception) -> Response:
    """Over a limit; the client isn't told which, only when to come back."""
    assert isinstance(error, TooMany)
    return error_answer(429, str(error), "too_many", {"retry-after": str(error.retry_seconds)})


def store_error(error: Exception) -> Response:
    """Redis is away, or refuses. What it said exactly is for the log, not for clients."""
    if isinstance(error, StoreUnavailable):
        return error_answer(503, "The gateway can't reach Redis. Try again shortly.", "redis_away")
    return error_answer(500, "The gateway can't read this task.", "store_error")


def http_error(error: Exception) -> Response:
    """Unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    return error_answer(error.status_code, str(error.detail), headers=error.headers)


def bug(_: Exception) -> Response:
    """A bug of ours; the traceback goes to the log."""
    return error_answer(500, "The gateway made a mistake; its log says more.")


_ANSWERS: Final[dict[type[Exception], Callable[[Exception], Response]]] = {
    InvalidInput: invalid_input,
    AccessError: access_error,
    UpstreamError: upstream_error,
    TooMany: too_many,
    StoreError: store_error,
    HTTPException: http_error,
    Exception: bug,
}


def answer_to(error: Exception) -> Response:
    """The answer to who asked for what failed so."""
    return next(_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)(error)


def _handler(make: Callable[[Exception], Response]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(_: Request, error: Exception) -> Response:
        return make(error)

    return handle


HANDLERS: Final[dict[Any, Any]] = {kind: _handler(make) for kind, make in _ANSWERS.items()}
"""As Starlette wants them; plain functions would each be called in a thread."""
