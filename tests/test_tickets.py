"""Making tickets."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jwt
import pytest

import bridge
from bridge.errors import InvalidInput, InvalidTaskId, SettingsError
from bridge.settings import Settings
from bridge.tickets import AUDIENCE, ticket
from bridge.worker import process
from tests.credentials import OTHER, TICKET_KEY

SETTINGS = Settings(ticket_keys=f"{TICKET_KEY} {OTHER}")


def read(text: str) -> dict[str, Any]:
    """A ticket's claims, verified with the first key."""
    claims: dict[str, Any] = jwt.decode(text, TICKET_KEY, algorithms=["HS256"], audience=AUDIENCE)
    return claims


def test_a_ticket_says_what_it_is_for() -> None:
    """One task, what may be done with it, and until when; signed with the first key."""
    claims = read(ticket("job-42", settings=SETTINGS))
    assert claims["bridge"] == {"tasks": ["job-42"], "actions": ["read"]}
    assert claims["exp"] - claims["iat"] == 300
    assert set(claims) == {"aud", "iat", "exp", "bridge"}


def test_a_ticket_may_cancel_and_name_an_owner() -> None:
    """Both only where one says so; times are whole seconds, so none is shorter than asked for."""
    claims = read(ticket("job-42", ttl=0.2, actions=("cancel", "read"), owner="ann", settings=SETTINGS))
    assert claims["bridge"] == {"tasks": ["job-42"], "actions": ["read", "cancel"], "owner": "ann"}
    assert claims["sub"] == "ann"
    assert claims["exp"] - claims["iat"] == 1


def test_the_key_is_the_process_s_setting() -> None:
    """An app that has configured the bridge need not name it again."""
    try:
        bridge.configure(Settings(), ticket_keys=TICKET_KEY)
        assert read(bridge.ticket("job-42"))["bridge"]["tasks"] == ["job-42"]
    finally:
        process.reset()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"task_id": "a/b"}, InvalidTaskId),
        ({"task_id": "*"}, InvalidTaskId),
        ({"ttl": 0}, InvalidInput),
        ({"ttl": -1}, InvalidInput),
        ({"ttl": float("nan")}, InvalidInput),
        ({"ttl": float("inf")}, InvalidInput),
        ({"ttl": 31 * 86400}, InvalidInput),
        ({"actions": ()}, InvalidInput),
        ({"actions": "read"}, InvalidInput),
        ({"actions": ("read", "write")}, InvalidInput),
        ({"owner": ""}, InvalidInput),
        ({"settings": Settings()}, SettingsError),
    ],
)
def test_what_makes_no_ticket(wrong: dict[str, Any], error: type[Exception]) -> None:
    """A mistake is told to the app, and not to its user later on."""
    with pytest.raises(error) as caught:
        ticket(**{"task_id": "job-42", "settings": SETTINGS, **wrong})
    assert TICKET_KEY not in str(caught.value)


def test_making_a_ticket_needs_no_web_server() -> None:
    """PyJWT is imported with the first ticket; an app needs nothing of a gateway for it."""
    code = (
        "import sys, bridge;"
        f"bridge.ticket('job', settings=bridge.Settings(ticket_keys={TICKET_KEY!r}));"
        "print([name for name in ('starlette', 'httpx', 'uvicorn', 'redis') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
