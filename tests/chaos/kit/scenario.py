"""Scenarios by name, and how one is played."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import scenarios
from tests.chaos.kit.tally import Tally
from tests.chaos.kit.world import World, world

Play = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault and how it is survived. short: whether `make test` plays its short form. needs: programs."""

    name: str
    number: int
    fault: str
    short: bool
    needs: tuple[str, ...]
    play: Play


_SCENARIOS: dict[str, Scenario] = {}


def scenario(
    number: int, fault: str, *, short: bool = True, needs: tuple[str, ...] = ()
) -> Callable[[Play], Play]:
    """Register a function as a scenario. `fault` is its name in the table."""

    def register(play: Play) -> Play:
        name: str = play.__name__
        assert name not in _SCENARIOS, f"two scenarios are named {name}"
        _SCENARIOS[name] = Scenario(name, number, fault, short, needs, play)
        return play

    return register


def all_scenarios() -> list[Scenario]:
    """Those of all modules in `tests/chaos/scenarios`, by number."""
    for module in pkgutil.iter_modules(scenarios.__path__):
        importlib.import_module(f"{scenarios.__name__}.{module.name}")
    return sorted(_SCENARIOS.values(), key=lambda one: one.number)


async def play(one: Scenario, tally: Tally, *, long: bool, seed: int, folder: Path) -> None:
    """Play a scenario in a world of its own. Raises AssertionError when a promise was broken."""
    async with world(long=long, seed=seed, tally=tally, folder=folder) as here:
        await one.play(here)
