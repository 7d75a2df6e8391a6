from __future__ import annotations

import pytest

from bridge.errors import SinkUnavailable
from bridge.sinks.matrix.patience import FIRST_WAIT, LONGEST_WAIT, PATIENCE_SECONDS, Failures

AWAY = SinkUnavailable("away")


def test_each_failure_in_a_row_waits_longer(caplog: pytest.LogCaptureFixture) -> None:
    """Up to half a minute, jittered. The first is logged, and that it works again; then all is forgiven."""
    failures = Failures()
    waits = [failures.wait(AWAY, 1000.0) for _ in range(12)]
    assert FIRST_WAIT / 2 <= waits[0] <= FIRST_WAIT
    assert 1.5 * waits[0] < waits[3]
    assert all(LONGEST_WAIT / 2 <= one <= LONGEST_WAIT for one in waits[-3:])
    failures.forgive()
    assert failures.wait(AWAY, 1000.0 + 2 * PATIENCE_SECONDS) <= FIRST_WAIT
    assert caplog.messages == ["away; trying again", "it works again", "away; trying again"]


def test_who_names_a_time_is_not_asked_sooner() -> None:
    """Whatever the number of failures."""
    assert Failures().wait(SinkUnavailable("busy", 120.0), 0.0) == 120.0


def test_patience_ends() -> None:
    """Some time after the first failure of a row, with that error."""
    failures = Failures()
    failures.wait(AWAY, 0.0)
    failures.wait(AWAY, PATIENCE_SECONDS)
    with pytest.raises(SinkUnavailable, match="away"):
        failures.wait(AWAY, PATIENCE_SECONDS + 1)


def test_patience_begins_when_it_has_an_end() -> None:
    """However long it failed while there was any amount of time: what comes then has all of it."""
    failures = Failures()
    failures.wait(AWAY, 0.0, forever=True)
    failures.bear(AWAY, 5 * PATIENCE_SECONDS, forever=True)
    failures.bear(AWAY, 6 * PATIENCE_SECONDS)
    with pytest.raises(SinkUnavailable, match="away"):
        failures.bear(AWAY, 6 * PATIENCE_SECONDS + 1)


def test_patience_may_have_no_end() -> None:
    """For those who have nothing better to do."""
    failures = Failures(forever=True)
    failures.wait(AWAY, 0.0)
    failures.wait(AWAY, 100 * PATIENCE_SECONDS)
