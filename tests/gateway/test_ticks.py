"""Whose turn it is to be told the time."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.gateway import hub
from bridge.gateway.ticks import Ticks
from bridge.settings import Settings
from tests.gateway.readers import Reader

TURN = 0.5
waits = st.sampled_from([0.0, 0.1, TURN, 3.3, 20.0, inf])


class Patient(Reader):
    """A follower whose next tick is due after so many seconds; it remembers when one came and was due."""

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait
        self.due = 0.0
        self.ticks: list[float] = []

    def tick(self, now: float) -> float:
        self.ticks.append(now)
        self.due = now + self.wait
        return self.due


def turn(ticks: Ticks, now: float) -> list[Patient]:
    """What the hub does in a turn; who was ticked."""
    before = {one: len(one.ticks) for one in ticks if isinstance(one, Patient)}
    ticks.tick(ticks.take(now), now)
    return [one for one, number in before.items() if len(one.ticks) > number]


@given(st.lists(waits, max_size=6), st.data())
def test_each_is_ticked_in_the_first_turn_after_it_is_due(due: list[float], data: st.DataObject) -> None:
    """Whoever comes, leaves, or asks to be ticked soon meanwhile."""
    ticks, followers = Ticks(TURN), [Patient(wait) for wait in due]
    soon: set[Patient] = set()
    for number in range(60):
        now = 1000 + number * TURN
        for one in followers:
            what = data.draw(st.sampled_from(["stay"] * 8 + ["come", "leave", "soon"]))
            if what == "come" and one not in set(ticks):
                ticks.add(one)
                soon.add(one)
            elif what == "leave":
                ticks.remove(one)
                soon.discard(one)
            elif what == "soon" and one in set(ticks):
                ticks.soon(one)
                soon.add(one)
        expected = {one: one.due for one in followers if one in set(ticks)}
        ticked = turn(ticks, now)
        for one, at in expected.items():
            assert (one in ticked) == (one in soon or now >= at)
        soon.clear()
        assert len(ticks) == len(expected)
    for one in followers:
        ticks.remove(one)
    assert not ticks._due


@given(st.floats(0, 1e9), st.floats(0, 10), st.sampled_from([0.0125, 0.1, 0.3, 1.0]))
def test_the_turn_that_is_waited_for_is_the_next_one(now: float, later: float, seconds: float) -> None:
    """No turn is left out, however long it took until somebody asks how long to wait."""
    ticks = Ticks(seconds)
    ticks.take(now)
    begins = (now // seconds + 1) * seconds
    assert ticks.wait(now + later) == pytest.approx(max(0.0, begins - now - later), abs=1e-6)


@pytest.mark.parametrize(("followers", "most"), [(20, 1.0), (3 * hub._TICKS_AT_ONCE, 2.0)])
async def test_no_tick_is_later_than_a_turn(
    monkeypatch: pytest.MonkeyPatch, followers: int, most: float
) -> None:
    """Whenever it is due, though the loop itself takes some time, and event loops wake up early or late. Of a
    crowd that is due together some are ticked later in the turn: what is sent doesn't wait for all.
    """
    now, late, sleep, chance = 1000.37, [0.0], asyncio.sleep, Random(1)
    slept = 0

    class Late(Patient):
        def tick(self, now: float) -> float:
            if self.due:
                late.append(now - self.due)
            self.wait = 0.7 + 0.13 * (len(self.ticks) % 7)
            return super().tick(now)

    async def pass_by(seconds: float) -> None:
        nonlocal now, slept
        slept += 1
        now += max(0.0, seconds + chance.uniform(-hub._EARLY_SECONDS, 0.003))
        await sleep(0)

    def clock() -> float:
        nonlocal now
        now += 0.0001
        return now

    one = hub.Hub(Settings(redis_url="redis://127.0.0.1:1/0", heartbeat_seconds=4 * TURN))
    crowd = [Late(0.0) for _ in range(followers)]
    for number, each in enumerate(crowd):
        one.enter(str(number), each)
    monkeypatch.setattr(hub, "monotonic", clock)
    monkeypatch.setattr(asyncio, "sleep", pass_by)
    ticker = asyncio.create_task(one._ticks())
    while now < 1100:
        await sleep(0)
    ticker.cancel()
    await asyncio.wait([ticker])
    assert slept <= (2 * most - 1) * 100 / TURN + 5, "once a turn and part"
    assert min(len(each.ticks) for each in crowd) > 10
    assert min(late) >= 0
    assert max(late) < most * TURN + 0.02
    moments = Counter(tick for each in crowd for tick in each.ticks)
    assert max(moments.values()) <= hub._TICKS_AT_ONCE
    assert min(after - before for before, after in pairwise(sorted(moments))) > TURN / 3 - 0.01


def test_a_tick_that_breaks_keeps_no_other_from_his(caplog: pytest.LogCaptureFixture) -> None:
    """It is told of, and tried again in each turn."""

    class Broken(Patient):
        def tick(self, now: float) -> float:
            super().tick(now)
            raise RuntimeError("a bug")

    ticks, crowd = Ticks(TURN), [Broken(0.0), Patient(0.0), Broken(0.0), Patient(0.0)]
    for one in crowd:
        ticks.add(one)
    for number in range(3):
        turn(ticks, 1000.0 + number * TURN)
    assert [len(one.ticks) for one in crowd] == [3] * 4
    assert len(caplog.records) == 6
    caplog.clear()


def test_a_turn_that_broke_is_made_up_for() -> None:
    """Whose tick was due, but didn't come, is ticked in the next turn."""
    ticks, one = Ticks(TURN), Patient(20.0)
    ticks.add(one)
    assert ticks.take(1000.0) == [one]
    assert turn(ticks, 1000.0 + TURN) == [one]
    assert turn(ticks, 1000.0 + 2 * TURN) == []


def test_who_leaves_in_a_turn_is_not_ticked_any_more() -> None:
    """Though its turn was taken already."""
    ticks, one = Ticks(TURN), Patient(20.0)
    ticks.add(one)
    assert ticks.take(1000.0) == [one]
    ticks.remove(one)
    ticks.tick([one], 1000.0)
    assert one.ticks == []
    assert not ticks._due
