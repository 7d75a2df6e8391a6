"""What a homeserver's answer means: its status, its `errcode`, how long to wait. Pure.

Source: the client-server API, "Standard error response" and "Rate limiting".
"""

from __future__ import annotations

import json
from typing import Any, Final

from bridge.errors import SinkError, SinkRefused, SinkUnavailable

LONGEST_RETRY: Final = 300.0
"""Seconds that a server may ask for; more means this."""
_WITHOUT_A_TIME: Final = 5.0
"""Seconds to wait where a server says "too many" and no time."""

TOKEN_CODES: Final = frozenset({"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED"})
"""Whoever logs in anew may go on."""

_ADVICE: Final = {
    "M_UNKNOWN_TOKEN": "the access token is not valid, or not any more: log in anew",
    "M_MISSING_TOKEN": "the access token is missing",
    "M_USER_DEACTIVATED": "the user is deactivated",
    "M_FORBIDDEN": "the user may not do that; is it in the room, and may it write there?",
    "M_NOT_FOUND": "there is no such thing; is that the room's id, and the homeserver's address?",
}


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None for anything else, such as a proxy's page."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def refusal(status: int, retry_after: str, body: bytes) -> SinkError:
    """The error that a status which isn't 200 means. `retry_after` is the header, or empty."""
    said = json_object(body) or {}
    code = said["errcode"] if isinstance(said.get("errcode"), str) else ""
    reason = _one_line(said.get("error")) or "no reason given"
    if status == 429:
        seconds = _seconds(said.get("retry_after_ms"), retry_after)
        return SinkUnavailable(
            f"the homeserver says that these are too many requests: {reason}",
            _WITHOUT_A_TIME if seconds is None else seconds,
            limited=True,
        )
    if status in (408, 425) or status >= 500:
        return SinkUnavailable(
            f"the homeserver can't serve now: {reason} ({status})", _seconds(None, retry_after) or 0.0
        )
    if status == 413:
        return SinkRefused(f"the homeserver finds it too large: {reason}", "M_TOO_LARGE")
    advice = f"; {_ADVICE[code]}" if code in _ADVICE else _about_the_address(status, code)
    return SinkRefused(f"the homeserver refused: {reason} ({code or status}){advice}", code or str(status))


def _about_the_address(status: int, code: str) -> str:
    """What to look at where it wasn't a homeserver that answered."""
    if 300 <= status < 400:
        return "; it sends us elsewhere: give that address as the homeserver's"
    return "" if code else "; is that the homeserver's address?"


def _seconds(milliseconds: object, header: str) -> float | None:
    """How long to wait. The header may hold a date; that is for caches, and counts as none."""
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool) and milliseconds >= 0:
        return min(milliseconds, LONGEST_RETRY * 1000) / 1000  # in this order: JSON has numbers of any size
    if header.isascii() and header.isdigit():
        return min(float(header), LONGEST_RETRY) if len(header) <= 6 else LONGEST_RETRY
    return None


def _one_line(text: object) -> str:
    return " ".join(text.split())[:300] if isinstance(text, str) else ""
