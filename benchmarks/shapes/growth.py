"""Growth: whether a token costs the same among ten and among ten thousand."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Load, Measured, measure
from benchmarks.results import Outcome, Table, Verdict, at_most, percent
from benchmarks.senders import ALONE
from benchmarks.stage import Stage

_LIMIT = 1.5
# The pace falls as the crowd grows, so that no size is more than the processor can do.
_FOLLOWERS = (
    Load(1, 10, 500.0, 2000),
    Load(1, 100, 200.0, 800),
    Load(1, 1000, 40.0, 160),
    Load(1, 10_000, 4.0, 20),
)
_TASKS = (Load(10, 1, 400.0, 1600), Load(100, 1, 40.0, 160), Load(1000, 1, 4.0, 20), Load(10_000, 1, 0.4, 3))


def run(stage: Stage) -> Outcome:
    """More and more followers of one task, then more and more tasks with a follower each."""
    tables: list[Table] = []
    verdicts: list[Verdict] = []
    for what, loads in (("followers of 1 task", _FOLLOWERS), ("tasks, 1 follower each", _TASKS)):
        chosen = loads[:2] if stage.quick else loads
        found = []
        for load in chosen:
            one = measure(stage, ALONE, load)
            stage.say(f"  {load.streams:,} {what}: {one.micros:.2f} µs")
            found.append(one)
        tables.append(_table(what, chosen, found, stage.cores.shared))
        growth = max(one.micros for one in found[1:]) / found[0].micros
        sizes = f"from {chosen[0].streams:,} to {chosen[-1].streams:,} {what}"
        verdicts.append(at_most(f"growth {sizes}", "flat within 1.5 times", growth, _LIMIT, " times"))
    return Outcome(tables, verdicts)


def _table(what: str, loads: Sequence[Load], found: Sequence[Measured], shared: bool) -> Table:
    rows = [
        [
            f"{load.streams:,}",
            f"{load.pace:g}",
            f"{one.micros:.2f}",
            f"{one.micros / found[0].micros:.2f}",
            f"{one.tokens_per_event:.1f}",
            percent(one.sender),
            percent(one.crowd),
            one.remark(shared),
        ]
        for load, one in zip(loads, found, strict=True)
    ]
    columns = [
        *(what, "tokens/s each", "CPU µs per token and viewer", "it : the smallest", "tokens per event"),
        *("sender busy", "crowd busy", ""),
    ]
    return Table(f"Growth: {what}, each token alone", columns, rows)
