"""Reconnect storm: all streams break off at once and come back with their last id."""

from __future__ import annotations

from benchmarks.measuring import CONNECT_SECONDS, Load, WrongText, begin, check, crowd_and_writer
from benchmarks.processes import cpu_seconds, settle
from benchmarks.results import Outcome, Table, Verdict, at_most
from benchmarks.senders import BRIDGE
from benchmarks.stage import Stage

_FULL, _QUICK = Load(50, 100, 10.0, 80), Load(10, 50, 10.0, 30)
_BEFORE_SECONDS = 1.5
_LIVE_SECONDS = 3.0


def run(stage: Stage) -> Outcome:
    """Once, in the middle of the text."""
    load = _QUICK if stage.quick else _FULL
    stage.clear()
    with (
        BRIDGE.start(stage.redis_url, stage.cores.sender) as sender,
        crowd_and_writer(stage) as (crowd, writer),
    ):
        begin(sender, load, crowd, writer)
        settle(sender.pid)
        writer.tell("write", pace=load.pace, count=load.tokens, texts=str(stage.texts))
        crowd.ask("wait", seconds=_BEFORE_SECONDS)
        cpu = cpu_seconds(sender.pid)
        dropped_at = crowd.ask("drop", patience=CONNECT_SECONDS + 10, seconds=CONNECT_SECONDS)["dropped_at"]
        read = crowd.ask("read", seconds=60)
        cpu = cpu_seconds(sender.pid) - cpu
        writer.hear()
        live = crowd.ask("live", since=dropped_at)
        # Raises where anything is missing, doubled or in another order.
        check(stage, crowd, read)
    if live["never"]:
        raise WrongText(f"{live['never']} viewers got nothing after they came back")
    took = live["micros"] / 1e6
    stage.say(f"  all live after {took:.2f} s")
    rows = [[f"{load.streams:,}", f"{took:.2f} s", "0", f"{cpu:.1f} s"]]
    columns = ["streams", "all live again after", "lost or doubled", "the gateway's CPU until the end"]
    title = f"Reconnect storm: {load.tasks} tasks, {load.viewers} viewers each, {load.pace:g} tokens/s each"
    note = (
        "From the moment at which all connections are closed until the last viewer has something that was"
        " reported after it. Viewers come back at once, at most 2,000 of them wait for their answer, because"
        " the kernel's queue of new connections has an end."
    )
    return Outcome(
        [Table(title, columns, rows, [note])],
        [
            at_most("reconnect storm", "all live again within 3 s", took, _LIVE_SECONDS, " s"),
            Verdict("reconnect storm", "nothing lost", "every viewer has exactly what was reported", True),
        ],
    )
