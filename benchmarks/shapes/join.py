"""Late join: who comes to a task that has said a lot already."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.helper import Helper
from benchmarks.measuring import Load, check, crowd_and_writer
from benchmarks.results import Outcome, Table, Verdict, at_most
from benchmarks.senders import BRIDGE, Sender
from benchmarks.stage import Stage

_FULL, _QUICK = Load(1, 1000, 2000.0, 10_000), Load(1, 100, 2000.0, 1000)
_ONES = 20
_PATIENCE = 60.0


def run(stage: Stage) -> Outcome:
    """One alone, on a gateway that doesn't have the task and on one that has; then all at once."""
    load = _QUICK if stage.quick else _FULL
    stage.clear()
    with crowd_and_writer(stage) as (crowd, writer):
        writer.ask("start", tasks=load.names, by="hook", redis_url=stage.redis_url, flush_milliseconds=0)
        writer.ask("write", pace=load.pace, count=load.tokens, texts=str(stage.texts))
        with BRIDGE.start(stage.redis_url, stage.cores.sender) as sender:
            first, reads_one = _join(stage, crowd, sender, load, 1)
            warm = [_join(stage, crowd, sender, load, 1)[0]["all"] for _ in range(_ONES)]
        with BRIDGE.start(stage.redis_url, stage.cores.sender) as sender:
            crowded, reads_all = _join(stage, crowd, sender, load, load.viewers)
    each = crowded["each"]
    rows = [
        [
            "one, the task in memory",
            f"{statistics.median(warm):.1f} ms (slowest of {_ONES}: {max(warm):.1f})",
            "0",
        ],
        ["one, the gateway reads the log first", f"{first['all']:.1f} ms", str(reads_one)],
        [
            f"{load.viewers:,} at once, the gateway reads the log first",
            f"all within {crowded['all']:.0f} ms; median {each['median']:.0f}, p99 {each['p99']:.0f}",
            str(reads_all),
        ],
    ]
    title = f"Late join: a running task of {load.tokens:,} tokens reported one by one"
    notes = [f"From before the connection is opened to the last byte of {13 * load.tokens:,} characters."]
    same = Verdict(
        f"late join, {load.viewers:,} at once", "one Redis read for all",
        f"{reads_all} reads, for one alone {reads_one}", reads_all <= reads_one,
    )  # fmt: skip
    return Outcome(
        [Table(title, ["who", "the whole text after", "reads from Redis"], rows, notes)],
        [at_most("late join, one", "under 5 ms to the whole text", statistics.median(warm), 5, " ms"), same],
    )


def _join(
    stage: Stage, crowd: Helper, sender: Sender, load: Load, viewers: int
) -> tuple[dict[str, Any], int]:
    """How long it took, and how often Redis was read meanwhile."""
    before = _reads(stage)
    answer = crowd.ask(
        "join", patience=_PATIENCE + 10, port=sender.port, path=sender.path, task=load.names[0],
        viewers=viewers, seconds=_PATIENCE,
    )  # fmt: skip
    reads = _reads(stage) - before
    check(stage, crowd, answer)
    crowd.ask("leave")
    return answer, reads


def _reads(stage: Stage) -> int:
    """How often the log was read. A long one is read page by page."""
    return stage.commands().get("xrange", 0)
