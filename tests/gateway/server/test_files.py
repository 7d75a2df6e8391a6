"""Open files: as many as connections, or no more connections than files."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from bridge.gateway.server.files import within
from bridge.settings import Settings

MAKE_ROOM = """
import resource, sys
from bridge.gateway.server.files import make_room
from bridge.settings import Settings
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
settings = make_room(Settings(max_connections=int(sys.argv[3])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings.max_connections)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (256, 1000, 500, "700 500"),
        (256, 1000, 5000, "1000 800"),
        (256, 1000, 0, "1000 800"),
        (1000, 1000, 500, "1000 500"),
        (150, 300, 500, "300 150"),
    ],
)
def test_a_process_asks_for_as_many_as_it_needs(soft: int, hard: int, wanted: int, expected: str) -> None:
    """Not more; and where it gets fewer, it takes fewer connections instead of failing to take them."""
    command = [sys.executable, "-c", MAKE_ROOM, *map(str, (soft, hard, wanted))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected


def test_one_address_never_has_them_all(caplog: pytest.LogCaptureFixture) -> None:
    """With few files the limit per address shrinks, too; somebody must be able to see what is wrong."""
    with caplog.at_level(logging.INFO):
        settings = within(Settings(), 1000)
    assert (settings.max_connections, settings.max_connections_per_address) == (800, 400)
    assert "1000 files" in caplog.text
    assert within(Settings(max_connections_per_address=0), 1000).max_connections_per_address == 0


def test_enough_files_change_nothing() -> None:
    """The settings are what was set."""
    assert within(Settings(), 1_000_000) == Settings()
