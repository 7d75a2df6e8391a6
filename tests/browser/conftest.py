"""A browser, and the places that it goes to.

The browser and the demonstration live as long as this folder's tests: while Playwright's driver runs, its
event loop counts as the thread's running one, and the async tests of other folders could not run theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import bridge
from bridge.gateway import wire
from bridge.worker import process
from tests.browser.places import Demo, demonstration, empty_site
from tests.browser.windows import Windows, chromium, watched


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def windows(browser: Browser, tmp_path: Path) -> Iterator[Windows]:
    """The test's own windows. An error in one that the test didn't expect fails it."""
    with watched(browser, tmp_path) as windows:
        yield windows


@pytest.fixture
def worker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process writes to the test's Redis; its gateways ask whoever was cut off to come back soon."""
    bridge.configure(bridge.Settings(redis_url=redis_url))
    monkeypatch.setattr(wire, "RETRY_MS", (100, 300))
    yield
    process.reset()


@pytest.fixture(scope="package")
def running_demo() -> Iterator[Demo]:
    """One demonstration for all: it takes seconds to start."""
    with demonstration() as demo:
        yield demo


@pytest.fixture
def demo(running_demo: Demo) -> Iterator[Demo]:
    """A demonstration in which this process is a worker, too; afterwards its tasks are stopped."""
    bridge.configure(bridge.Settings(redis_url=running_demo.redis_url))
    yield running_demo
    process.reset()
    running_demo.stop_all()


@pytest.fixture(scope="package")
def site() -> Iterator[str]:
    """The origin of somebody else's web site, whose pages are empty."""
    with empty_site() as origin:
        yield origin
