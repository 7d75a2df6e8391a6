"""Which job is due when."""

from __future__ import annotations

import math
from typing import cast

import hypothesis.strategies as st
from hypothesis import given

from bridge.worker.agenda import Agenda
from bridge.worker.job import Job

NAMES = "abc"
steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([-math.inf, 0, 1, 2, 5, 9, math.inf]))
    | st.tuples(st.just("take"), st.integers(0, 4)),
    max_size=60,
)


def job(name: str) -> Job:
    """The agenda asks nothing of a job but that it is itself."""
    return cast("Job", name)


@given(steps)
def test_each_job_is_taken_when_it_is_due(steps: list[tuple[str, float]]) -> None:
    """Never before the time it was put to last, and always from then on; and `next` is never too late."""
    agenda, wanted, now = Agenda(), dict[str, float](), 0.0
    for what, number in steps:
        if what == "take":
            now += number
            taken = agenda.take(now)
            due = {job(name) for name, when in wanted.items() if when <= now}
            assert (taken in due) if due else (taken is None)
            wanted.pop(cast("str", taken), None)
        else:
            wanted[what] = number if number in (-math.inf, math.inf) else now + number
            agenda.put(job(what), wanted[what], now)
        assert agenda.next() <= min(wanted.values(), default=math.inf)


def test_what_is_due_is_taken_in_order() -> None:
    """First put, first taken; to put it again while it is due changes nothing."""
    agenda = Agenda()
    for name in "bacb":
        agenda.put(job(name), 0, 1)
    assert [agenda.take(1) for _ in range(4)] == [job("b"), job("a"), job("c"), None]


def test_a_busy_job_leaves_no_timers_behind() -> None:
    """A guard: timers per job, however often it is put to now, to soon, and to later."""
    agenda = Agenda()
    for now in range(1000):
        agenda.put(job("a"), now + 10, now)
        agenda.put(job("a"), now + 0.5, now)
        assert agenda.take(now + 0.5) == job("a")
        agenda.put(job("a"), now, now + 0.5)
        assert agenda.take(now + 0.5) == job("a")
        agenda.put(job("a"), now + 10.5, now + 0.5)
        assert len(agenda._timers) <= 3
    agenda.put(job("a"), math.inf, 1000)
    assert agenda.take(2000) is None
    assert (agenda.next(), agenda._timed, agenda._later) == (math.inf, {}, {})
