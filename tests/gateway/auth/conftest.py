"""Gateways that ask for credentials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.credentials import SECRET, TICKET_KEY
from tests.gateway.running import Running, running


@pytest.fixture
def guarded(redis_url: str) -> Iterator[Running]:
    """A gateway with `auth jwt`, that knows tickets and tokens of an app."""
    with running(redis_url, auth="jwt", jwt_keys=SECRET, ticket_keys=TICKET_KEY, jwt_cookie="s") as one:
        yield one
