"""What providers say when they refuse, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.llm.errors import MESSAGES, refused

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def code(status: int, body: Any = "") -> str:
    """The code of a refusal."""
    return refused(status, {}, body, NOW).code


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (401, {"message": "Incorrect API key", "type": "invalid_request_error"}, "auth"),
        (403, {"type": "permission_error"}, "auth"),
        (404, {"message": "no such model", "code": "model_not_found"}, "bad_request"),
        (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, "rate_limited"),
        (400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
         "content_filter"),
        (400, {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}, "auth"),
        (400, {"code": 400, "status": "INVALID_ARGUMENT"}, "bad_request"),
        (500, {"type": "invalid_request_error"}, "unavailable"),
        (503, {"message": "loading"}, "overloaded"),
        (529, {"type": "overloaded_error"}, "overloaded"),
        (408, {}, "timeout"),
        (504, None, "timeout"),
    ],
)  # fmt: skip
def test_refusals_have_codes(status: int, error: Any, expected: str) -> None:
    """Unmistakable words come first, then the status, whatever stands around the error."""
    assert code(status, {"error": error}) == expected
    assert code(status, [{"error": error}]) == expected
    assert code(status, {"type": "error", "error": error}) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, "bad_request"), (302, "unavailable"), (502, "unavailable"), (200, "unavailable"), (402, "auth")],
)
def test_the_status_alone_is_enough(status: int, expected: str) -> None:
    """Proxies answer in HTML, and some servers in plain text."""
    assert code(status, "<html>Bad Gateway</html>") == expected
    assert code(status, {"detail": "Not Found"}) == expected


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, "", 60.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, "", 0.0),
        ({}, {"error": {"details": [{"@type": "…RetryInfo", "retryDelay": "17.5s"}]}}, 17.5),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "Wed, 21 Oct 99999999999999 07:28:00 GMT"}, "", None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +999999999999999999"}, "", None),
        ({"retry-after": "-3"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "1e9"}, "", None),
        ({}, "", None),
    ],
)
def test_when_to_come_back(headers: dict[str, str], body: Any, seconds: float | None) -> None:
    """Seconds, milliseconds, a date, or Gemini's detail; what is none of them says nothing."""
    assert refused(429, headers, body, NOW).retry_after == seconds


@given(
    st.integers(100, 599),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["error", "code", "type", "details", "innererror", "retryDelay", "object"]),
                inner,
            )
        ),
    ),
)
def test_no_refusal_makes_us_raise(status: int, headers: dict[str, str], body: Any) -> None:
    """Whatever an answer holds, it is one of our codes, with a message, and one line for the log."""
    failure = refused(status, headers, body, NOW)
    assert failure.error == {"code": failure.code, "message": MESSAGES[failure.code]}
    assert failure.detail.isprintable()
    assert failure.retry_after is None or failure.retry_after >= 0


def test_messages_are_for_people() -> None:
    """They are sentences, and hold nothing of what a provider said."""
    assert all(message.endswith(".") and message[0].isupper() for message in MESSAGES.values())
    failure = refused(500, {}, {"error": {"message": "db-7.internal exploded"}}, NOW)
    assert "db-7" in failure.detail
    assert "db-7" not in str(failure.error)
