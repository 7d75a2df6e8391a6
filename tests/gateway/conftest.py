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


@pytest.fixture
def expected_errors() -> list[str]:
    """Put into it what stands in the error messages that the test provokes."""
    return []


@pytest.fixture(autouse=True)
def no_bugs(caplog: pytest.LogCaptureFixture, expected_errors: list[str]) -> Iterator[None]:
    """A test of a gateway that leaves an error or a traceback in the log fails."""
    yield
    messages = [
        f"{record.name}: {record.getMessage()}"
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR or record.exc_info
    ]
    unexpected = [text for text in messages if not any(known in text for known in expected_errors)]
    if unexpected:
        pytest.fail("; ".join(unexpected), pytrace=False)
