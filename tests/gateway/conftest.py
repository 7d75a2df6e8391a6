"""A gateway, and a worker for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.gateway.running import Running, running
from tests.gateway.writer import Writer


@pytest.fixture
def gateway(redis_url: str) -> Iterator[Running]:
    """A gateway with quick settings that hears the test's Redis."""
    with running(redis_url) as one:
        yield one


@pytest.fixture
def writer(redis_url: str) -> Iterator[Writer]:
    """A worker of the task job-1."""
    with Writer(redis_url) as one:
        yield one


@pytest.fixture(autouse=True)
def no_bugs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test of a gateway may leave a traceback or an error in the log, unless it takes it out itself."""
    yield
    bad = [record for record in caplog.records if record.levelno >= logging.ERROR]
    if bad:
        pytest.fail("; ".join(f"{record.name}: {record.getMessage()}" for record in bad), pytrace=False)
