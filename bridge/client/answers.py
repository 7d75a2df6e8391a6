"""What a gateway's answer means: its status, its `Retry-After`, its JSON. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from bridge.client.backoff import LONGEST_RETRY
from bridge.errors import ClientError, GatewayUnavailable, RequestRefused, TaskNotFound

_PASSING: Final = frozenset({"redis_away", "draining", "auth_unavailable"})
"""What a gateway that is there says of itself with a 503, while it can't serve."""


def is_passing(status: int, body: bytes) -> bool:
    """Whether a gateway itself says that it can't serve now. A proxy says 503 too, of one that is away."""
    return status == 503 and _said(body)[0] in _PASSING


def refusal(status: int, body: bytes) -> ClientError:
    """The error that a response with this status means. Quotes the gateway's JSON error if there is one."""
    _, said = _said(body)
    if status in (408, 425, 429) or status >= 500:
        return GatewayUnavailable(f"the gateway can't serve now: {said or 'no reason given'} ({status})")
    if status == 404:
        return TaskNotFound(f"{said or 'no such task, or no gateway at this address'} (404)")
    hint = "; ticket=… or BRIDGE_TICKET says what lets you in" if status == 401 else ""
    return RequestRefused(f"the gateway refused: {said or 'no reason given'} ({status}){hint}")


def _said(body: bytes) -> tuple[str, str]:
    """The code of a JSON error, and its message on one line and not too long; empty for anything else."""
    try:
        error = json.loads(body)["error"]
        code, message = error.get("code"), error["message"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    if not isinstance(message, str):
        return "", ""
    return code if isinstance(code, str) else "", " ".join(message.split())[:300]


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises `ClientError` for anything else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ClientError("the answer is not a JSON object: is this a gateway?")
    return answer


def retry_after(header: str) -> float:
    """A `Retry-After` in seconds; the form with a date is for caches and counts as none, which is 0."""
    if not (header.isascii() and header.isdigit()):
        return 0.0
    return LONGEST_RETRY if len(header) > 6 else min(float(header), LONGEST_RETRY)
