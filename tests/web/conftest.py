"""A worker for the module to follow, and the module in node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import bridge
from bridge.worker import process


@pytest.fixture
def worker(redis_url: str) -> Iterator[str]:
    """This process writes to the test's Redis; the value is its URL."""
    bridge.configure(bridge.Settings(redis_url=redis_url))
    yield redis_url
    process.reset()
