from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bridge.sinks.matrix.pace import LONGEST, MOST_EDITS, Pace


def test_the_first_request_goes_at_once() -> None:
    """Nobody waits for a first message."""
    assert Pace(0.5).due() == -math.inf


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, MOST_EDITS))
def test_never_quicker_than_the_interval(born: float, age: float, edits: int) -> None:
    """Nothing goes sooner than half a second after what went before."""
    pace = Pace(0.5)
    pace.sent(born + age)
    assert pace.due() == born + age + 0.5
    assert pace.live_due(born, edits) >= pace.due()


def test_a_message_that_ages_is_edited_more_rarely() -> None:
    """After a minute every three seconds, after an hour once a minute; so an hour has some 150 edits."""
    now, edits = 0.0, 0
    pace = Pace(0.5)
    pace.sent(now)
    waits = {}
    while now < 3600:
        due = pace.live_due(0.0, edits)
        waits[now] = due - now
        now, edits = due, edits + 1
        pace.sent(now)
    assert waits[0.0] == 0.5
    assert max(waits.values()) == LONGEST
    assert 100 < edits < 200
    assert list(waits.values()) == sorted(waits.values())


def test_too_many_is_believed() -> None:
    """Nothing goes before the named time; from then on edits keep that distance, then twice and so on."""
    pace = Pace(0.5)
    pace.sent(10.0)
    pace.limited(10.5, 4.0)
    assert pace.due() == pace.live_due(10.0, 0) == 14.5
    pace.sent(14.5)
    assert pace.live_due(10.0, 0) == 18.5
    assert pace.due() == 15.0
    pace.limited(18.5, 1.0)
    pace.sent(19.5)
    assert pace.live_due(10.0, 0) == 27.5
    for _ in range(9):
        pace.limited(30.0, 1.0)
    pace.sent(31.0)
    assert pace.live_due(10.0, 0) == 31.0 + LONGEST


def test_live_edits_end_and_the_last_one_goes() -> None:
    """After so many a message is edited no more while it grows, but still completed."""
    pace = Pace(0.5)
    pace.sent(1.0)
    assert pace.live_due(0.0, MOST_EDITS) == math.inf
    assert pace.due() == 1.5


def test_a_failure_only_waits() -> None:
    """The distance stays as it was."""
    pace = Pace(0.5)
    pace.sent(1.0)
    pace.failed(1.5, 8.0)
    assert pace.due() == 9.5
    pace.sent(9.5)
    assert pace.live_due(9.5, 0) == 10.0
