"""Typical: many tasks, each with one viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.measuring import Load, Measured
from benchmarks.results import Bar, Outcome, Verdict, at_most, comparison
from benchmarks.senders import BRIDGE, NCHAN
from benchmarks.shapes.wide import compare
from benchmarks.stage import Stage

_FULL = Load(2000, 1, 10.0, 50)
_QUICK = Load(200, 1, 10.0, 20)
_ALONE = 1.05
"""With up to so many tokens per event nearly every token went alone."""
_PUBLISHERS = "Nchan's publishers are HTTP requests that nginx handles; that is part of its CPU."
_BOTH = (
    "The targets are per token reported and viewer. A task's tokens are further apart than the merge, so each"
    " should be an event. A worker that can't keep its pace merges all the same, and that makes a token cheap"
    " by no merit of the sender's: then what is met per token counts for nothing, and the rows per event"
    " decide."
)


def run(stage: Stage) -> Outcome:
    """All senders."""
    load = _QUICK if stage.quick else _FULL
    found = compare(stage, load)
    title = f"Typical: {load.tasks:,} tasks, 1 viewer each, {load.pace:g} tokens/s each"
    return Outcome(
        [comparison(title, found, shared=stage.cores.shared, notes=[_PUBLISHERS, _BOTH])],
        verdicts({one.name: one for one in found}),
        [Bar("typical", one.name, one.micros) for one in found],
    )


def verdicts(found: dict[str, Measured]) -> list[Verdict]:
    """Both targets, per token reported and viewer, and per event."""
    bridge, nchan = found[BRIDGE.name], found.get(NCHAN.name)
    per_token = _judge("typical, per token and viewer", bridge.micros, nchan.micros if nchan else None)
    if bridge.tokens_per_event > _ALONE:
        merged = f", {bridge.tokens_per_event:.1f} tokens per event"
        per_token = [
            replace(one, measured=one.measured + merged, met=None) if one.met else one for one in per_token
        ]
    per_event = _judge(
        "typical, per event", bridge.micros_per_event, nchan.micros_per_event if nchan else None
    )
    return [*per_token, *per_event]


def _judge(what: str, micros: float, nchan: float | None) -> Sequence[Verdict]:
    part = None if nchan is None else micros / nchan
    return [
        at_most(what, "at most 10 µs", micros, 10, " µs"),
        at_most(what, "at most a third of Nchan", part, 1 / 3, ""),
    ]
