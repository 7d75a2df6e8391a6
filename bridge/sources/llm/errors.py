"""What can go wrong with a provider: eight codes, each with a sentence that anybody may read. Pure.

A failure is a value, not an exception: it has to travel with the text that came before it. The provider's own
words (`detail`) are for the log alone, and not before it is cleaned of keys. They can name internal hosts,
quote the prompt, or hold a piece of the key.

Which code it is: words of the provider's that are unmistakable come first, then the HTTP status, then its
vaguer words. Many providers write `invalid_request_error` also where the key is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from bridge.codec import dumps
from bridge.errors import InvalidEvent

AUTH: Final = "auth"
RATE_LIMITED: Final = "rate_limited"
OVERLOADED: Final = "overloaded"
BAD_REQUEST: Final = "bad_request"
TIMEOUT: Final = "timeout"
UNAVAILABLE: Final = "unavailable"
CONTENT_FILTER: Final = "content_filter"
INTERRUPTED: Final = "interrupted"

MESSAGES: Final[Mapping[str, str]] = {
    AUTH: "The language model can't be used: its provider doesn't accept this application's credentials.",
    RATE_LIMITED: "The language model has too much to do at the moment. Please try again later.",
    OVERLOADED: "The language model is overloaded. Please try again later.",
    BAD_REQUEST: "The language model can't work with this request.",
    TIMEOUT: "The language model took too long to answer.",
    UNAVAILABLE: "The language model can't be reached at the moment.",
    CONTENT_FILTER: "The provider's content filter held the answer back.",
    INTERRUPTED: "The answer broke off before its end.",
}

_WORDS: Final = {
    word: code
    for code, words in {
        CONTENT_FILTER: "content_filter content_policy_violation responsibleaipolicyviolation",
        AUTH: "authentication_error permission_error billing_error invalid_api_key api_key_invalid"
        " invalid_authentication_error unauthenticated unauthorized permission_denied",
        RATE_LIMITED: "rate_limit_error rate_limit_exceeded rate_limited insufficient_quota"
        " resource_exhausted too_many_requests",
        OVERLOADED: "overloaded_error overloaded engine_overloaded service_unavailable unavailable",
        TIMEOUT: "timeout_error timeout request_timeout deadline_exceeded",
    }.items()
    for word in words.split()
}
_VAGUE_WORDS: Final = {
    word: code
    for code, words in {
        BAD_REQUEST: "invalid_request_error not_found_error request_too_large context_length_exceeded"
        " model_not_found invalid_argument not_found failed_precondition badrequesterror",
        UNAVAILABLE: "api_error server_error internal internal_server_error",
    }.items()
    for word in words.split()
}
_STATUSES: Final[Mapping[int, str]] = {
    401: AUTH,
    402: AUTH,
    403: AUTH,
    408: TIMEOUT,
    425: RATE_LIMITED,
    429: RATE_LIMITED,
    503: OVERLOADED,
    504: TIMEOUT,
    529: OVERLOADED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer, or no whole one. `retry_after` is what the provider asked for, in seconds."""

    code: str
    detail: str
    retry_after: float | None = None

    @property
    def error(self) -> dict[str, str]:
        """The `error` of an end: for whoever watches."""
        return {"code": self.code, "message": MESSAGES[self.code]}


def refused(status: int, headers: Mapping[str, str], body: Any, now: datetime) -> Failure:
    """An HTTP answer other than 200. `body` is its JSON, or its text where it has none."""
    error = error_in(body)
    return Failure(
        _code(error if error is not None else body, status) or _of_status(status),
        f"HTTP {status}: {_brief(body)}",
        _retry_after(headers, body, now),
    )


def told(error: Any) -> Failure:
    """An error that stood inside an answer, under HTTP 200."""
    return Failure(_code(error, None) or INTERRUPTED, _brief(error), _retry_delay(error))


def error_in(body: Any) -> Any:
    """The error that a JSON value tells of, in whatever form, or None if it is none."""
    if isinstance(body, list) and body:
        body = body[0]  # Gemini, when it wasn't asked for an event stream
    if not isinstance(body, dict):
        return None
    if body.get("error"):
        return body["error"]
    if "error" in (body.get("object"), body.get("type")):
        return body
    return None


def _code(error: Any, status: int | None) -> str | None:
    words = _words(error)
    for word in words:
        if word in _WORDS:
            return _WORDS[word]
    if status is None:
        status = next((int(word) for word in words if word.isdecimal() and len(word) == 3), None)
    if status is not None:
        return _of_status(status)
    return next((_VAGUE_WORDS[word] for word in words if word in _VAGUE_WORDS), None)


def _of_status(status: int) -> str:
    return _STATUSES.get(status) or (BAD_REQUEST if 400 <= status < 500 else UNAVAILABLE)


def _words(error: Any) -> list[str]:
    """The words that programs are meant to read, in lower case."""
    if not isinstance(error, dict):
        return []
    found = [error.get(name) for name in ("code", "type", "status", "reason")]
    for inner in (error.get("innererror"), *_details(error)):
        if isinstance(inner, dict):
            found += [inner.get("code"), inner.get("reason")]
    return [str(word).lower() for word in found if isinstance(word, str | int)]


def _details(error: Any) -> list[Any]:
    details = error.get("details") if isinstance(error, dict) else None
    return details if isinstance(details, list) else []


def _retry_after(headers: Mapping[str, str], body: Any, now: datetime) -> float | None:
    """RFC 9110, 10.2.3: seconds or a date. Some send milliseconds beside it; Gemini says it in the body."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is None and value:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # the second for a year or a zone of many digits
            return None
        # A date without a zone is one in UTC that nobody could say of.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = max((date - now).total_seconds(), 0.0)
    return seconds if seconds is not None else _retry_delay(error_in(body))


def _retry_delay(error: Any) -> float | None:
    for detail in _details(error):
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            return _number(delay.removesuffix("s"))
    return None


def _number(text: str) -> float | None:
    """Digits, with a fraction or without. Not what `float` takes beside these: signs, nan, 1e9."""
    digits = text.strip().replace(".", "", 1)
    return float(text) if digits.isdecimal() and digits.isascii() and len(digits) < 15 else None


def _brief(value: Any) -> str:
    """One line for the log, that no terminal takes for a command."""
    if not isinstance(value, str):
        try:
            value = dumps(value).decode()
        except InvalidEvent:
            value = repr(value)
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())
