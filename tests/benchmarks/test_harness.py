"""The benchmarks themselves, in a short form: that they count right, and that wrong text is a failure.

No figure is looked at: this says nothing of how fast anything is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.measuring import Load, WrongText, measure
from benchmarks.results import Outcome
from benchmarks.senders import ALL, ALONE, FLOOR, Contender, app
from benchmarks.shapes import idle, join, status, storm, worker
from benchmarks.stage import Stage, staged

LOAD = Load(tasks=2, viewers=3, pace=50.0, tokens=8)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A stage of this module's own, with a Redis of its own."""
    with staged(quick=True) as one:
        yield one


def by(name: str) -> Contender:
    """One of the apps in `broken.py`."""
    return Contender(name, lambda redis_url, cores: app(f"tests.benchmarks.broken:{name}", redis_url, cores))


@pytest.mark.parametrize(
    "contender", [*(one for one in ALL if one is not ALONE), FLOOR], ids=lambda one: one.name
)
def test_every_viewer_of_every_sender_is_compared(stage: Stage, contender: Contender) -> None:
    """Each sender that is installed delivers each token to each viewer, and how long that took is known."""
    if contender.lacks():
        pytest.skip(contender.lacks())
    one = measure(stage, contender, LOAD, timed=True)
    assert one.name == contender.name
    assert one.micros > 0
    assert one.every is not None
    assert one.first is not None
    assert 0 < one.every.median <= one.every.p99 <= one.every.longest
    assert one.first.longest <= one.every.longest


def test_an_event_per_token_is_counted_as_such(stage: Stage) -> None:
    """A sender that merges nothing has one token per event, whatever else is on the stream."""
    assert measure(stage, by("right"), LOAD).tokens_per_event == 1.0


@pytest.mark.parametrize("name", ["loses", "doubles", "alters"])
def test_wrong_text_is_a_failure(stage: Stage, name: str) -> None:
    """A fast wrong answer is none: one token lost, doubled or altered, and there are no figures at all."""
    with pytest.raises(WrongText, match="6 of 6 viewers have another text"):
        measure(stage, by(name), LOAD)


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        (idle, 20),
        (join, Load(1, 5, 1000.0, 50)),
        (storm, Load(2, 5, 20.0, 20)),
        (worker, Load(5, 1, 100.0, 20)),
    ],
    ids=lambda one: getattr(one, "__name__", "").rpartition(".")[2],
)
def test_shapes_say_what_they_found(
    stage: Stage, shape: object, small: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every shape ends with tables without holes, and with what it says of its targets."""
    monkeypatch.setattr(shape, "_QUICK", small)
    monkeypatch.setattr(storm, "_BEFORE_SECONDS", 0.2)
    complete(shape.run(stage))  # type: ignore[attr-defined]  # a module of benchmarks.shapes


def test_polls_are_counted_and_compared(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge answers polls of a running task without reading Redis, the plain endpoint with one read."""
    monkeypatch.setattr(status, "_QUICK", 0.2)
    outcome = status.run(stage)
    complete(outcome)
    (table,) = outcome.tables
    bridge, with_tags, plain = (float(row[5]) for row in table.rows)
    # A request that isn't answered when the time is over has been read for, but doesn't count.
    assert (bridge, with_tags, plain >= 1) == (0, 0, True)


def complete(outcome: Outcome) -> None:
    """Rows as long as the heads of their tables, and at least one target."""
    assert outcome.verdicts
    assert outcome.tables
    for table in outcome.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
