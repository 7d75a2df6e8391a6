"""How often the app is asked."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.pace import (
    FIRST_BACKOFF,
    LONGEST_ASKED_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Pace,
    retry_after,
)

NOW = 1_763_650_000.0


def pace(shortest: float = 0.3, longest: float = 5.0) -> Pace:
    """One that doesn't vary."""
    return Pace(shortest, longest, lambda: 0.0)


def test_a_task_that_changes_is_asked_about_often() -> None:
    """Slower and slower while nothing changes, up to the longest pause; at once quick after a change."""
    one = pace()
    pauses = [one.answered(changed=False) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[0] > 0.3
    assert pauses[-1] == 5.0
    assert one.answered(changed=True) == 0.3


def test_an_app_in_trouble_is_left_alone() -> None:
    """For longer each time, and no longer than is bearable; an answer ends that."""
    one = pace()
    pauses = [one.failed() for _ in range(20)]
    first = FIRST_BACKOFF * 0.3
    assert pauses[:3] == [first, 2 * first, 4 * first]
    assert pauses[-1] == LONGEST_BACKOFF_SECONDS
    assert one.failures == 20
    assert one.answered(changed=True) == 0.3
    assert one.failures == 0


@pytest.mark.parametrize(("asked", "pause"), [(0.1, 0.3), (7, 7), (10**9, LONGEST_ASKED_SECONDS)])
def test_what_the_app_asks_for_is_the_least(asked: float, pause: float) -> None:
    """After answers and after failures; a mistake in it doesn't stop the task for a day."""
    assert pace().answered(changed=True, retry_after=asked) == pause
    assert pace().failed(asked) == max(pause, FIRST_BACKOFF * 0.3)


@given(st.floats(0, 1), st.floats(0.01, 10), st.floats(0.01, 10))
def test_pauses_vary_and_stay_in_their_bounds(random: float, shortest: float, longest: float) -> None:
    """Never shorter than is allowed, and a little longer than the longest at most."""
    one = Pace(shortest, longest, lambda: random)
    for changed in (True, False, False, False, True):
        assert shortest <= one.answered(changed=changed) <= 1.2 * max(shortest, longest) + 1e-9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0), ("7", 7), (" 120 ", 120), ("0", 0), ("", 0), ("-1", 0), ("1.5", 0), ("soon", 0), ("٣", 0),
        (formatdate(NOW + 90, usegmt=True), 90), (formatdate(NOW - 90, usegmt=True), 0),
        ("Fri, 32 Nov 2026 00:00:00 GMT", 0), ("9" * 400, 999_999_999),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float) -> None:
    """Both forms of RFC 9110; anything else asks for nothing."""
    assert retry_after(text, NOW) == seconds
