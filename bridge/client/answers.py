"""What a gateway's answer means: its status, its `Retry-After`, its JSON. Pure."""

from __future__ import annotations

import json
from typing import Any

from bridge.client.backoff import LONGEST_RETRY
from bridge.errors import ClientError, GatewayUnavailable, RequestRefused, TaskNotFound


def refusal(status: int, body: bytes) -> ClientError:
    """The error that a response with this status means. Quotes the gateway's JSON error if there is one."""
    said = _said(body)
    if status in (408, 425, 429) or status >= 500:
        return GatewayUnavailable(f"the gateway can't serve now: {said or 'no reason given'} ({status})")
    if status == 404:
        return TaskNotFound(f"{said or 'no such task, or no gateway at this address'} (404)")
    return RequestRefused(f"the gateway refused: {said or 'no reason given'} ({status})")


def _said(body: bytes) -> str:
    """The message of a JSON error, on one line and not too long; empty for anything else."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return " ".join(message.split())[:300] if isinstance(message, str) else ""


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
