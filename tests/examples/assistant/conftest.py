"""One stage for all tests of the assistant: to build it takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.assistant.people import Person
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
