"""What the shape `typical` makes of its figures."""

from __future__ import annotations

from benchmarks.measuring import Measured
from benchmarks.shapes.typical import verdicts


def measured(name: str, micros: float, tokens_per_event: float) -> Measured:
    """A sender with these costs."""
    return Measured(name, micros, tokens_per_event, 5.0, 0.5, 0.2, 0.5, 0.0, 1.0)


def judged(micros: float, tokens_per_event: float) -> list[bool | None]:
    """Per token: 10 µs, a third of Nchan; then the same per event."""
    found = (measured("bridge", micros, tokens_per_event), measured("Nchan", 30.0, 1.0))
    return [one.met for one in verdicts({one.name: one for one in found})]


def test_a_target_that_only_merging_meets_is_not_met() -> None:
    """What a token cost counts where each went alone; else what an event did. Missed is missed either way."""
    assert judged(8.0, 1.0) == [True, True, True, True]
    assert judged(8.0, 2.0) == [None, None, False, False]
    assert judged(4.0, 2.0) == [None, None, True, True]
    assert judged(12.0, 2.0) == [False, False, False, False]


def test_without_nchan_only_the_figure_is_judged() -> None:
    """What wasn't compared is neither met nor missed."""
    assert [one.met for one in verdicts({"bridge": measured("bridge", 8.0, 1.0)})] == [True, None, True, None]
