"""What a status, a header and a body mean."""

from __future__ import annotations

import pytest

from bridge.client.answers import is_passing, json_object, refusal, retry_after
from bridge.client.backoff import LONGEST_RETRY
from bridge.errors import ClientError, GatewayUnavailable, RequestRefused, TaskNotFound


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRefused),
        (401, RequestRefused),
        (307, RequestRefused),
        (404, TaskNotFound),
        (408, GatewayUnavailable),
        (429, GatewayUnavailable),
        (500, GatewayUnavailable),
        (503, GatewayUnavailable),
    ],
)
def test_statuses(status: int, error: type[ClientError]) -> None:
    """A status says whether trying again can help, and the gateway's own words are passed on."""
    told = refusal(status, b'{"error":{"code":"x","message":"because\\n of this"}}')
    assert type(told) is error
    assert "because of this" in str(told)
    for body in (b"", b"<html>", b"[]", b'{"error":7}', b'{"error":{"message":7}}', b"[" * 100_000):
        assert type(refusal(status, body)) is error


def test_who_has_no_ticket_is_told_where_to_put_one() -> None:
    """A 401 says what to do next, in Python and on the command line; other refusals don't."""
    assert "BRIDGE_TICKET" in str(refusal(401, b""))
    assert "BRIDGE_TICKET" not in str(refusal(403, b""))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("", 0.0),
        ("soon", 0.0),
        ("\u0667", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("9" * 50, LONGEST_RETRY),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    """`Retry-After` counts in whole seconds, up to a limit; anything else counts as none."""
    assert retry_after(header) == seconds


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object(body: bytes) -> None:
    """A body that isn't a JSON object is from no gateway."""
    with pytest.raises(ClientError, match="is this a gateway"):
        json_object(body)


@pytest.mark.parametrize(
    ("status", "body", "passing"),
    [
        (503, b'{"error":{"code":"redis_away","message":"m"}}', True),
        (503, b'{"error":{"code":"draining","message":"m"}}', True),
        (503, b'{"error":{"code":"auth_unavailable","message":"m"}}', True),
        (502, b'{"error":{"code":"redis_away","message":"m"}}', False),
        (503, b'{"error":{"code":"other","message":"m"}}', False),
        (503, b'{"error":{"code":["redis_away"],"message":"m"}}', False),
        (503, b'{"error":"redis_away"}', False),
        (503, b"<html>", False),
        (503, b"", False),
    ],
)
def test_whose_trouble(status: int, body: bytes, passing: bool) -> None:
    """A gateway that says that it can't serve now is there; a proxy that says so of it is not the gateway."""
    assert is_passing(status, body) is passing
