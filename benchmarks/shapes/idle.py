"""Idle: what an open stream takes of memory while nothing happens."""

from __future__ import annotations

from benchmarks.measuring import Load, begin, crowd_and_writer
from benchmarks.processes import memory_bytes, settle
from benchmarks.results import Outcome, Table, at_most
from benchmarks.senders import BRIDGE, Contender, app
from benchmarks.stage import Stage

_FULL, _QUICK = 10_000, 1000
_BARE = Contender(
    "bare ASGI app under uvicorn", lambda redis_url, cores: app("benchmarks.apps.bare:app", redis_url, cores)
)


def run(stage: Stage) -> Outcome:
    """The bridge's streams of one task and of as many tasks, and an app that does nothing."""
    streams = _QUICK if stage.quick else _FULL
    shapes = [
        ("bridge, all of one task", BRIDGE, Load(1, streams, 1, 1)),
        ("bridge, each of its own task", BRIDGE, Load(streams, 1, 1, 1)),
        (_BARE.name, _BARE, Load(1, streams, 1, 1)),
    ]
    rows, found = [], {}
    for name, contender, load in shapes:
        empty, per_stream, seconds = _measure(stage, contender, load)
        found[name] = per_stream
        stage.say(f"  {name}: {per_stream / 1024:.1f} KB per stream")
        rows.append([name, f"{empty / 2**20:.0f} MB", f"{per_stream / 1024:.1f} KB", f"{seconds:.1f} s"])
    columns = ["streams", "empty process", "per stream", "all opened within"]
    notes = ["Proportional set size (PSS) of the process; what the kernel holds for sockets isn't in it."]
    return Outcome(
        [Table(f"Memory per idle stream, {streams:,} in one process", columns, rows, notes)],
        [at_most("memory per idle stream", "at most 12 KB", found[shapes[0][0]] / 1024, 12, " KB")],
    )


def _measure(stage: Stage, contender: Contender, load: Load) -> tuple[int, float, float]:
    """The memory of the process without streams, what each adds, and how long it took to open them."""
    stage.clear()
    with contender.start(stage.redis_url, stage.cores.sender) as sender, crowd_and_writer(stage) as helpers:
        settle(sender.pid)
        empty = memory_bytes(sender.pid)
        seconds = begin(sender, load, *helpers)
        settle(sender.pid)
        return empty, (memory_bytes(sender.pid) - empty) / load.streams, seconds
