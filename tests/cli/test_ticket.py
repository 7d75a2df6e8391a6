"""`bridge ticket`."""

from __future__ import annotations

import jwt
import pytest
from click.testing import CliRunner

from bridge.cli import main
from bridge.tickets import AUDIENCE
from tests.credentials import TICKET_KEY


def test_it_prints_a_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else, so that a script can put it into a URL."""
    monkeypatch.setenv("BRIDGE_TICKET_KEYS", TICKET_KEY)
    result = CliRunner().invoke(main, ["ticket", "job-42", "--ttl", "60", "--cancel", "--owner", "ann"])
    assert result.exit_code == 0
    text = result.stdout.removesuffix("\n")
    claims = jwt.decode(text, TICKET_KEY, algorithms=["HS256"], audience=AUDIENCE)
    assert claims["bridge"] == {"tasks": ["job-42"], "actions": ["read", "cancel"], "owner": "ann"}
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["job-42"], "tickets need BRIDGE_TICKET_KEYS"),
        (["a/b"], "task id"),
        (["job-42", "--ttl", "0"], "ttl must be more than 0"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """Exit code 2, and nothing on stdout that could be taken for a ticket."""
    monkeypatch.delenv("BRIDGE_TICKET_KEYS", raising=False)
    result = CliRunner().invoke(main, ["ticket", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
