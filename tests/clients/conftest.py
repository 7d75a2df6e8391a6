"""A worker for the clients to read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import bridge
from bridge.worker import process


@pytest.fixture(autouse=True)
def worker(redis_url: str) -> Iterator[None]:
    """This process writes to the test's Redis."""
    bridge.configure(bridge.Settings(redis_url=redis_url))
    yield
    process.reset()
