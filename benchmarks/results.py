"""What shapes hand in: tables, what was promised and whether it is so, and bars for the plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.measuring import Measured


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its heading, and sentences that stand below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was measured. `met` is None where nothing could be compared."""

    what: str
    target: str
    measured: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the plot."""

    group: str
    name: str
    micros: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a shape says."""

    tables: Sequence[Table] = ()
    verdicts: Sequence[Verdict] = ()
    bars: Sequence[Bar] = field(default=())


def comparison(title: str, found: Sequence[Measured], *, shared: bool, notes: Sequence[str] = ()) -> Table:
    """Senders below each other, with the bridge's cost (the first one's) as part of theirs."""
    first = found[0]
    rows = [
        [
            one.name,
            f"{one.micros:.2f}",
            "" if one is first else f"{first.micros / one.micros:.2f}",
            f"{one.tokens_per_event:.1f}",
            f"{one.micros_per_event:.2f}",
            percent(one.sender),
            percent(one.crowd),
            percent(one.beside),
            one.remark(shared),
        ]
        for one in found
    ]
    columns = [
        *("sender", "CPU µs per token and viewer", f"{first.name} : it", "tokens per event"),
        "µs per event",
        *("sender busy", "crowd busy", "Redis and worker", ""),
    ]
    return Table(title, columns, rows, notes)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{share * 100:.0f} %"


def at_most(what: str, target: str, value: float | None, limit: float, unit: str) -> Verdict:
    """A target that is met below a limit; None was not measured."""
    if value is None:
        return Verdict(what, target, "not measured", None)
    return Verdict(what, target, f"{value:.3g}{unit}", value <= limit)


def at_least(what: str, target: str, value: float | None, limit: float, unit: str) -> Verdict:
    """A target that is met above a limit; None was not measured."""
    if value is None:
        return Verdict(what, target, "not measured", None)
    return Verdict(what, target, f"{value:.3g}{unit}", value >= limit)


def ratio(above: Measured | None, below: Measured | None) -> float | None:
    """How the costs of two compare; None where one of them wasn't measured."""
    return None if above is None or below is None else above.micros / below.micros
