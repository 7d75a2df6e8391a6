"""Fixtures that all tests share: servers, and the tools a machine may not have."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from bridge import current_task
from bridge.store.embedded import EmbeddedServer, find_binary
from tests.servers import fake_redis, keys_without_ttl
from tests.sinks.matrix.synapse import Synapse
from tests.tools import require_tool

# A shell that starts us in the background makes us ignore SIGINT, and every program that a test starts would
# inherit that. What has a handler here begins there with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A proxy through which this machine gets its packages doesn't know the servers that tests start here.
_elsewhere = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
_here = ",".join(filter(None, [_elsewhere, "127.0.0.1", "127.0.0.2", "localhost"]))
os.environ.update(no_proxy=_here, NO_PROXY=_here)

# By default an example that takes 200 ms fails. On a busy machine that says nothing about what is tested.
hypothesis.settings.register_profile("bridge", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("bridge")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the tools before any fixture starts something."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            require_tool(name)


@pytest.fixture(autouse=True)
def _nothing_stays_bound() -> Iterator[None]:
    """A task that a test leaves bound would get what later tests report outside of any."""
    before = current_task()
    yield
    assert current_task() is before, "this test left a task bound: finish it, or start it with bind=False"


@pytest.fixture(scope="session")
def redis_binary() -> Path:
    """The server program of this run; BRIDGE_TEST_SERVER names another one than the embedded."""
    chosen = os.environ.get("BRIDGE_TEST_SERVER")
    return require_tool(chosen) if chosen else find_binary()


@pytest.fixture(scope="session")
def redis_server(redis_binary: Path) -> Iterator[EmbeddedServer]:
    """One real server for the whole run. A test that disturbs its server takes a `RedisProcess`."""
    server = EmbeddedServer(binary=redis_binary, options=["--enable-debug-command", "local"])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: EmbeddedServer) -> Iterator[str]:
    """The URL of an empty database. A key left in it without a TTL fails the test."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        # So that every test goes the way of a server that doesn't know our scripts yet.
        client.script_flush()
    yield redis_server.url
    leaked = keys_without_ttl(redis_server.url)
    if leaked:
        pytest.fail(f"keys without a TTL: {', '.join(leaked)}", pytrace=False)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the test's database, for looking inside."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def fake_redis_url() -> Iterator[str]:
    """The URL of a fakeredis server of the test's own, with the same check as `redis_url`."""
    with fake_redis() as url:
        yield url
        leaked = keys_without_ttl(url)
    if leaked:
        pytest.fail(f"keys without a TTL: {', '.join(leaked)}", pytrace=False)


@pytest.fixture(scope="session")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    """A Matrix homeserver. Tests have rooms of their own in it."""
    with Synapse(tmp_path_factory.mktemp("synapse")) as one:
        yield one
