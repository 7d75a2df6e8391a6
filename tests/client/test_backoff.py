"""How long to wait: doubling, jittered, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.client.backoff import FIRST_WAIT, LONGEST_WAIT, Backoff


@given(st.floats(0, 1), st.integers(1, 40))
def test_backoff_doubles_within_bounds(jitter: float, failures: int) -> None:
    """Without a wish of the server: half to one second, twice as long each time, never over the cap."""
    backoff = Backoff(lambda: jitter)
    waits = [backoff.failed() for _ in range(failures)]
    for n, wait in enumerate(waits):
        full = min(FIRST_WAIT * 2**n, LONGEST_WAIT)
        assert full / 2 <= wait <= full


@given(st.floats(0, 1), st.floats(0, 300), st.integers(1, 40))
def test_the_servers_wish_is_never_undercut(jitter: float, wish: float, failures: int) -> None:
    """What the server asked for is waited exactly at first, and at least that long each time."""
    backoff = Backoff(lambda: jitter)
    backoff.wish = wish
    waits = [backoff.failed() for _ in range(failures)]
    assert waits[0] == wish
    assert all(wish <= wait <= max(wish, LONGEST_WAIT) for wait in waits)
    backoff.forgive()
    assert backoff.failed() == wish


def test_an_hour_of_failures() -> None:
    """The count may grow without end; the pause doesn't."""
    backoff = Backoff(lambda: 1.0)
    assert [backoff.failed() for _ in range(5000)][-1] == LONGEST_WAIT
