"""The worker: what the hook costs its caller, and how much one process can report."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass

from benchmarks.helper import helping
from benchmarks.measuring import Load, WrongText
from benchmarks.processes import cpu_seconds
from benchmarks.results import Outcome, Table, Verdict, at_most, percent
from benchmarks.senders import BRIDGE
from benchmarks.stage import Stage

_CALLS = 100_000
_FULL, _QUICK = Load(200, 1, 500.0, 2500), Load(200, 1, 500.0, 250)
_PACE_IN_FULL = 0.99
_BEHIND_SECONDS = 0.25
"""A worker that is further behind than this, or whose ends take longer, doesn't sustain its pace."""


@dataclass(frozen=True, slots=True)
class _Sustained:
    per_second: float
    late: float
    worker: float
    redis: float
    redis_micros: float
    confirm: float

    def at(self, pace: float) -> bool:
        """Whether that pace was kept, to the last token's way to Redis."""
        return self.per_second >= pace * _PACE_IN_FULL and max(self.late, self.confirm) <= _BEHIND_SECONDS


def run(stage: Stage) -> Outcome:
    """Both. No gateway runs; the worker has the sender's processor."""
    stage.clear()
    with helping("writer", stage.cores.sender) as writer:
        hook = writer.ask("tight", redis_url=stage.redis_url, calls=_CALLS)
    stage.say(f"  hook: {hook['wall']:.2f} µs")
    load = _QUICK if stage.quick else _FULL
    one = _sustain(stage, load)
    stage.say(f"  {one.per_second:,.0f} tokens per second, Redis {one.redis_micros:.2f} µs each")
    calls = Table(
        f"`report_progress(token)` in a tight loop of {_CALLS:,} calls",
        ["the caller's clock", "the caller's thread alone"],
        [[f"{hook['wall']:.2f} µs", f"{hook['cpu']:.2f} µs"]],
        ["The first holds the waiting for the interpreter's lock while the pump sends what is reported."],
    )
    pace = load.pace * load.tasks
    return Outcome(
        [calls, _table(load, one)],
        [
            at_most("worker, one call", "under 2 µs in the caller", hook["wall"], 2, " µs"),
            Verdict(
                f"worker, {load.tasks} tasks",
                f"sustains {pace:,.0f} tokens/s",
                f"{one.per_second:,.0f} tokens/s",
                one.at(pace),
            ),
            at_most("worker, Redis CPU per token", "under 2 µs", one.redis_micros, 2, " µs"),
        ],
    )


def _table(load: Load, one: _Sustained) -> Table:
    columns = [
        *("tokens per second", "longest behind its pace", "worker busy"),
        *("Redis busy", "Redis CPU µs per token", "all ends confirmed after"),
    ]
    row = [
        f"{one.per_second:,.0f}",
        f"{one.late * 1000:.0f} ms",
        percent(one.worker),
        percent(one.redis),
        f"{one.redis_micros:.2f}",
        f"{one.confirm:.2f} s",
    ]
    title = f"One worker process, {load.tasks} tasks, {load.pace * load.tasks:,.0f} tokens/s"
    note = "CPU up to the last end in Redis. Then each task's `/status` is compared with what was reported."
    return Table(title, columns, [row], [note])


def _sustain(stage: Stage, load: Load) -> _Sustained:
    stage.clear()
    with helping("writer", stage.cores.sender) as writer:
        writer.ask("start", tasks=load.names, by="hook", redis_url=stage.redis_url, flush_milliseconds=20)
        redis_cpu, worker_cpu = cpu_seconds(stage.redis_pid), cpu_seconds(writer.pid)
        written = writer.ask("write", pace=load.pace, count=load.tokens, texts=str(stage.texts))
        ended = writer.ask("finish")
        redis_cpu, worker_cpu = cpu_seconds(stage.redis_pid) - redis_cpu, cpu_seconds(writer.pid) - worker_cpu
    if ended["confirmed"] < load.tasks:
        raise WrongText(f"only {ended['confirmed']} of {load.tasks} ends were confirmed")
    _check(stage, load)
    seconds, tokens = written["seconds"] + ended["seconds"], load.tasks * load.tokens
    return _Sustained(
        tokens / written["seconds"],
        written["late"],
        worker_cpu / seconds,
        redis_cpu / seconds,
        redis_cpu / tokens * 1e6,
        ended["seconds"],
    )


def _check(stage: Stage, load: Load) -> None:
    """What a gateway says of every task is what was reported."""
    wanted = json.loads(stage.texts.read_text())
    with BRIDGE.start(stage.redis_url, stage.cores.sender) as sender:
        for task in load.names:
            url = f"http://127.0.0.1:{sender.port}/tasks/{task}/status"
            with urllib.request.urlopen(url, timeout=10) as answer:
                view = json.load(answer)
            if view["text"] != wanted[task] or view["state"] != "succeeded":
                raise WrongText(f"{task}: `/status` has another text than was reported")
