"""Fixtures of the worker's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import bridge
from bridge.settings import Settings
from bridge.worker import process
from tests.servers import RedisProcess


@pytest.fixture(autouse=True)
def _no_pump_stays() -> Iterator[None]:
    """Each test has a process state of its own, and leaves no thread behind."""
    process.reset()
    yield
    process.reset()
    assert not [thread for thread in threading.enumerate() if thread.name == "bridge-pump"]


def brisk(url: str) -> Settings:
    """Settings under which nothing takes long, but an answer may: a third of the lease."""
    return Settings(
        redis_url=url,
        lease_seconds=15,
        cancel_check_seconds=0.05,
        close_timeout_seconds=8,
        create_timeout_seconds=8,
    )


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """The process's settings: the shared server."""
    return bridge.configure(brisk(redis_url))


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    """A server of the test's own, which it may disturb; the process's settings lead to it."""
    with RedisProcess() as server:
        bridge.configure(brisk(server.url))
        yield server
        process.reset()
