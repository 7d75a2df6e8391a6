"""An app, and gateways in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.gateway.running import Running, running
from tests.gateway.upstream.legacy import Legacy, legacy

QUICK: dict[str, Any] = {
    "upstream_status": "/api/jobs/{task_id}",
    "upstream_shortest_seconds": 0.05,
    "upstream_longest_seconds": 0.2,
    "lease_seconds": 1.0,
}

Behind = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def app() -> Iterator[Legacy]:
    """An app that knows no task yet."""
    with legacy() as one:
        yield one


@pytest.fixture
def in_front(redis_url: str, app: Legacy) -> Behind:
    """A gateway in front of the app, that asks quickly; more settings go before these."""

    def start(**settings: Any) -> AbstractContextManager[Running]:
        url = settings.pop("redis_url", redis_url)
        return running(url, **{"upstream": app.url, **QUICK, **settings})

    return start
