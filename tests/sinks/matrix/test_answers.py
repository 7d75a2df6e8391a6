from __future__ import annotations

import json

import pytest

from bridge.errors import SinkRefused, SinkUnavailable
from bridge.sinks.matrix.answers import refusal


@pytest.mark.parametrize(
    ("body", "header", "seconds"),
    [
        ({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 4300}, "5", 4.3),
        ({"errcode": "M_LIMIT_EXCEEDED"}, "5", 5.0),
        ({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": "4300"}, "2", 2.0),
        ({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": True}, "2", 2.0),
        ({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": -1}, "", 5.0),
        ({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1e12}, "", 300.0),
        ({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 10**400}, "", 300.0),
        ({}, "9" * 30, 300.0),
        ({}, "Wed, 21 Oct 2026 07:28:00 GMT", 5.0),
        (None, "", 5.0),
    ],
)
def test_too_many_names_a_time(body: object, header: str, seconds: float) -> None:
    """The JSON's milliseconds, else the header's seconds, else five; never more than five minutes."""
    error = refusal(429, header, b"<html>" if body is None else json.dumps(body).encode())
    assert isinstance(error, SinkUnavailable)
    assert (error.limited, error.retry_seconds) == (True, seconds)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 524])
def test_a_server_in_trouble_may_be_asked_again(status: int) -> None:
    """Also where a proxy says it, with a page."""
    error = refusal(status, "3", b"<html>Bad gateway</html>")
    assert isinstance(error, SinkUnavailable)
    assert (error.limited, error.retry_seconds) == (False, 3.0)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Invalid"}, "M_UNKNOWN_TOKEN", "log in anew"),
        (403, {"errcode": "M_FORBIDDEN", "error": "User not in\nroom"}, "M_FORBIDDEN", "User not in room"),
        (413, {"errcode": "M_TOO_LARGE", "error": "event too large"}, "M_TOO_LARGE", "event too large"),
        (413, None, "M_TOO_LARGE", "no reason given"),
        (404, None, "404", "no reason given (404); is that the homeserver's address?"),
        (302, None, "302", "(302); it sends us elsewhere"),
        (400, {"errcode": 7, "error": ["x"]}, "400", "no reason given"),
    ],
)
def test_a_refusal_says_why(status: int, body: object, code: str, said: str) -> None:
    """With the server's words on one line, and what to do."""
    error = refusal(status, "", b"<html>" if body is None else json.dumps(body).encode())
    assert isinstance(error, SinkRefused)
    assert error.code == code
    assert said in str(error)
