"""One stage for all tests of the assistant, because to build it takes longer than most of them; and browsers.

Each module of tests that need one has its own: beside a browser, the async tests of other modules can't run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.windows import Windows, chromium, watched
from tests.examples.assistant.people import Person
from tests.examples.assistant.screen import Screen
from tests.examples.assistant.stage import Stage, stage
from tests.tools import require_tool


@pytest.fixture(scope="session")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The running assistant, with a Redis of its own. Tests leave it as they found it."""
    require_tool("node")
    require_tool("aimock")
    with stage(tmp_path_factory.mktemp("assistant")) as one:
        yield one


@pytest.fixture
def ann(assistant: Stage) -> Person:
    """A user that no other test knows."""
    return assistant.person()


@pytest.fixture
def bob(assistant: Stage) -> Person:
    """Another one."""
    return assistant.person()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a module."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def windows(browser: Browser, tmp_path: Path) -> Iterator[Windows]:
    """The test's own windows. An error in one that the test didn't expect fails it."""
    with watched(browser, tmp_path) as windows:
        yield windows


@pytest.fixture(scope="module")
def visitor(assistant: Stage) -> Person:
    """A user for all tests of a module, each of which begins a conversation of its own."""
    return assistant.person()


@pytest.fixture
def screen(windows: Windows, visitor: Person) -> Iterator[Screen]:
    """The page in front of the visitor."""
    screen = Screen.open(windows, visitor)
    yield screen
    assert screen.violations == []
