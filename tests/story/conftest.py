"""What the story takes for granted: a Redis, a gateway, and workers that know both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

import bridge
from bridge.client import Client
from bridge.worker import process
from tests.gateway.running import running
from tests.processes import environ

LEASE_SECONDS = 3.0
"""So soon a worker that gives no sign is lost. By default that takes half a minute."""


@pytest.fixture(autouse=True)
def worker(redis_url: str) -> Iterator[None]:
    """This process is a worker: `bridge.task` and `report_progress` write to the test's Redis."""
    bridge.configure(
        bridge.Settings(redis_url=redis_url, cancel_check_seconds=0.05, create_timeout_seconds=8)
    )
    yield
    process.reset()


@pytest.fixture
def gateway(redis_url: str) -> Iterator[str]:
    """The URL of a gateway, as `bridge serve` would print it."""
    with running(redis_url, lease_seconds=LEASE_SECONDS) as one:
        yield one.url


@pytest.fixture
def client(gateway: str) -> Iterator[Client]:
    """A Python client of that gateway. A browser's EventSource reads the same streams."""
    with Client(gateway) as client:
        yield client


@pytest.fixture
def start_worker(redis_url: str) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a worker that is a process of its own, from its source."""
    with ExitStack() as stack:

        def start(source: str) -> subprocess.Popen[bytes]:
            env = environ(BRIDGE_REDIS_URL=redis_url, BRIDGE_LEASE_SECONDS=str(LEASE_SECONDS))
            worker = stack.enter_context(subprocess.Popen([sys.executable, "-c", source], env=env))
            stack.callback(worker.kill)
            return worker

        yield start


@pytest.fixture
def reads_of_the_log(redis_client: redis.Redis) -> Callable[[], int]:
    """Counts how often anybody has read a log in Redis since the test began."""
    redis_client.config_resetstat()

    def count() -> int:
        commands: Any = redis_client.info("commandstats")
        return int(commands.get("cmdstat_xrange", {"calls": 0})["calls"])

    return count
