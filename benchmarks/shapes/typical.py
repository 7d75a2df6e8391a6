"""Typical: many tasks, each with one viewer."""

from __future__ import annotations

from benchmarks.measuring import Load
from benchmarks.results import Bar, Outcome, at_most, comparison
from benchmarks.senders import BRIDGE, NCHAN
from benchmarks.shapes.wide import compare
from benchmarks.stage import Stage

_FULL = Load(2000, 1, 10.0, 50)
_QUICK = Load(200, 1, 10.0, 20)


def run(stage: Stage) -> Outcome:
    """All senders."""
    load = _QUICK if stage.quick else _FULL
    found = compare(stage, load)
    named = {one.name: one for one in found}
    bridge, nchan = named[BRIDGE.name], named.get(NCHAN.name)
    part = None if nchan is None else bridge.micros_per_event / nchan.micros_per_event
    title = f"Typical: {load.tasks:,} tasks, 1 viewer each, {load.pace:g} tokens/s each"
    merged = (
        "A task's tokens are further apart than the merge, so each should go alone. A worker that can't keep"
        " its pace merges all the same; so the targets are compared with the CPU per event."
    )
    notes = ["Nchan's publishers are HTTP requests that nginx handles; that is part of its CPU.", merged]
    return Outcome(
        [comparison(title, found, shared=stage.cores.shared, notes=notes)],
        [
            at_most("typical", "at most 10 µs per token", bridge.micros_per_event, 10, " µs"),
            at_most("typical", "at most a third of Nchan", part, 1 / 3, ""),
        ],
        [Bar("typical", one.name, one.micros) for one in found],
    )
