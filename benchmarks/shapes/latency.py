"""Latency: from the worker's call to the byte at the client, at half load."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Load, Measured
from benchmarks.results import Outcome, Table, Verdict, at_most, percent
from benchmarks.senders import ALONE, BRIDGE, NCHAN
from benchmarks.shapes.wide import PACE, compare
from benchmarks.stage import Stage

_MERGE_MS = 20.0
_BEYOND_MS = 5.0
# Half of what worker, Redis and crowd can do on one processor: beyond, their own queues would be measured.
_FULL = {"tasks": Load(500, 1, 10.0, 50), "viewers": Load(1, 500, PACE, 300)}
_QUICK = {"tasks": Load(100, 1, 10.0, 20), "viewers": Load(1, 100, PACE, 100)}


def run(stage: Stage) -> Outcome:
    """Many tasks and many viewers, all senders."""
    tables: list[Table] = []
    verdicts: list[Verdict] = []
    for name, load in (_QUICK if stage.quick else _FULL).items():
        found = compare(stage, load, timed=True)
        title = (
            f"Latency, many {name}: {load.tasks:,} tasks, {load.viewers:,} viewers each,"
            f" {load.pace:g} tokens/s each"
        )
        tables.append(_table(title, found, stage.cores.shared))
        verdicts += _verdicts(f"latency, many {name}", {one.name: one for one in found})
    return Outcome(tables, verdicts)


def _table(title: str, found: Sequence[Measured], shared: bool) -> Table:
    rows = [
        [
            one.name,
            str(one.every),
            str(one.first),
            percent(one.sender),
            percent(one.crowd),
            percent(one.beside),
            one.remark(shared),
        ]
        for one in found
    ]
    columns = [
        *("sender", "all tokens, ms: median / p99 / longest", "first tokens"),
        *("sender busy", "crowd busy", "Redis and worker", ""),
    ]
    notes = [
        "Worker, Redis and crowd wait for each other's turn on their processor, and that is in these times.",
        "By itself the bridge merges text for 20 ms; only the first text goes out at once.",
    ]
    return Table(title, columns, rows, notes)


def _verdicts(what: str, found: dict[str, Measured]) -> list[Verdict]:
    bridge, alone, nchan = found[BRIDGE.name], found[ALONE.name], found.get(NCHAN.name)
    assert bridge.every is not None
    assert bridge.first is not None
    assert alone.every is not None
    beyond = bridge.every.p99 - _MERGE_MS
    verdicts = [
        at_most(what, "p99 under 5 ms beyond the merge", beyond, _BEYOND_MS, " ms"),
        at_most(
            f"{what}, first text", "p99 under 5 ms, without the merge", bridge.first.p99, _BEYOND_MS, " ms"
        ),
    ]
    if nchan is None or nchan.every is None:
        return [*verdicts, Verdict(what, "no worse than Nchan's", "not measured", None)]
    said = f"each token alone {alone.every.p99:.1f} ms, Nchan {nchan.every.p99:.1f} ms (p99)"
    return [*verdicts, Verdict(what, "no worse than Nchan's", said, alone.every.p99 <= nchan.every.p99)]
