"""Whose turn it is to be told the time."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from bridge.gateway.ticks import Ticks
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
    for follower in ticks.take(now):
        ticks.tick(follower, now)
    return [one for one, number in before.items() if len(one.ticks) > number]


@given(st.lists(waits, max_size=6), st.data())
def test_nobody_is_ticked_before_time_or_more_than_a_turn_late(due: list[float], data: st.DataObject) -> None:
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
            if one in soon or now >= at + TURN:
                assert one in ticked
            elif now < at:
                assert one not in ticked
        soon.clear()
        assert len(ticks) == len(expected)
    for one in followers:
        ticks.remove(one)
    assert not ticks._due


def test_a_turn_that_broke_is_made_up_for() -> None:
    """Whose tick was due, but didn't come because another's broke, is ticked in the next turn."""
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
    ticks.tick(one, 1000.0)
    assert one.ticks == []
    assert not ticks._due
