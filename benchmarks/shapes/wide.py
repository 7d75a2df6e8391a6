"""Wide: one task that many watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.measuring import Load, Measured, measure
from benchmarks.results import Bar, Outcome, Table, Verdict, at_least, at_most, comparison, ratio
from benchmarks.senders import ALL, ALONE, BRIDGE, FLOOR, NCHAN, SSE_STARLETTE, Contender
from benchmarks.stage import Stage

PACE = 100.0
_FULL = (Load(1, 1000, PACE, 500), Load(1, 5000, PACE, 300))
_QUICK = (Load(1, 200, PACE, 100),)
_FLOOR = (
    "Bare writes are no sender but the kernel's and uvloop's part of the bridge's: one ready-made frame,"
    " written to everybody. Where they take longer than 3 µs with 1,000 viewers, the machine is slower than"
    " the one for which the targets in µs were set."
)
_QUEUED_DELIVERIES = 250_000
"""Those with a queue per viewer take minutes for what the others do in seconds, so they get no more."""


def run(stage: Stage) -> Outcome:
    """Both sizes, all senders."""
    tables: list[Table] = []
    verdicts: list[Verdict] = []
    bars: list[Bar] = []
    for load in _QUICK if stage.quick else _FULL:
        found = compare(stage, load, (*ALL, FLOOR))
        title = f"Wide: 1 task, {load.viewers:,} viewers, {load.pace:g} tokens/s"
        tables.append(comparison(title, found, shared=stage.cores.shared, notes=[_FLOOR]))
        verdicts += _verdicts(f"wide, {load.viewers:,} viewers", {one.name: one for one in found})
        bars += [Bar(f"wide, {load.viewers:,} viewers", one.name, one.micros) for one in found]
    return Outcome(tables, verdicts, bars)


def compare(
    stage: Stage, load: Load, contenders: Sequence[Contender] = ALL, *, timed: bool = False
) -> list[Measured]:
    """Measure all of them who are there under one load, the bridge first."""
    found = []
    for contender in stage.present(*contenders):
        fewer = max(_QUEUED_DELIVERIES // load.streams, 10)
        own = replace(load, tokens=min(load.tokens, fewer)) if contender.queued else load
        one = measure(stage, contender, own, timed=timed)
        found.append(one)
        stage.say(f"  {one.name}: {one.micros:.2f} µs per token and viewer, the crowd {one.crowd:.0%} busy")
    return found


def _verdicts(what: str, found: dict[str, Measured]) -> list[Verdict]:
    bridge, alone, nchan = found[BRIDGE.name], found[ALONE.name], found.get(NCHAN.name)
    sse = found.get(SSE_STARLETTE.name)
    return [
        at_most(what, "at most 0.7 of Nchan", ratio(bridge, nchan), 0.7, ""),
        at_least(what, "at least 12 times cheaper than sse-starlette", ratio(sse, bridge), 12, " times"),
        at_most(f"{what}, each token alone", "at most 1.2 of Nchan", ratio(alone, nchan), 1.2, ""),
    ]
