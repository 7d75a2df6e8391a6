"""The scenarios' short forms. `make chaos` plays the long ones."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from tests.chaos.kit.scenario import Scenario, all_scenarios, play
from tests.chaos.kit.tally import Tally
from tests.tools import require_tool

SHORT = [one for one in all_scenarios() if one.short]


@pytest.mark.parametrize("scenario", SHORT, ids=lambda one: one.name)
async def test_nothing_is_lost(scenario: Scenario, tmp_path: Path) -> None:
    """Whatever is broken meanwhile, all readers end with what the worker wrote, and nothing is left over."""
    for name in scenario.needs:
        require_tool(name)
    tally = Tally(scenario.fault)
    await play(scenario, tally, long=False, seed=zlib.crc32(scenario.name.encode()), folder=tmp_path)
    assert tally.injected
    assert tally.written
    assert not tally.failed
