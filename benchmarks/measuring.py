"""One measurement: a sender, a worker that reports at a pace, a crowd that reads and compares.

The sender's CPU is counted from just before the first token is reported until the last viewer has the last
one, and divided by tokens and viewers. What it costs to begin streams isn't in it, what it costs to take the
tokens in is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.crowd import TOO_BUSY
from benchmarks.helper import Helper, helping
from benchmarks.processes import cpu_seconds, settle
from benchmarks.senders import Contender, Sender
from benchmarks.stage import Stage
from benchmarks.streams import Spread

CONNECT_SECONDS: Final = 120.0
DELIVER_SECONDS: Final = 180.0
_LATE_SECONDS: Final = 0.25
"""A worker that was behind its pace for longer than this is mentioned."""


class WrongText(Exception):
    """A viewer didn't get what was reported."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is sent: `tokens` of each task at `pace` per second, to `viewers` of each."""

    tasks: int
    viewers: int
    pace: float
    tokens: int

    @property
    def names(self) -> list[str]:
        """The tasks' ids."""
        return [f"task-{number}" for number in range(self.tasks)]

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self.tasks * self.viewers

    @property
    def deliveries(self) -> int:
        """Tokens times viewers."""
        return self.streams * self.tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out."""

    name: str
    micros: float
    """The sender's CPU per token and viewer."""
    tokens_per_event: float
    seconds: float
    """Of the clock, from the first piece that a viewer read to the last."""
    sender: float
    """Shares of a processor."""
    crowd: float
    beside: float
    """Redis and the worker together."""
    late: float
    connect_seconds: float
    every: Spread | None = None
    first: Spread | None = None

    @property
    def micros_per_event(self) -> float:
        """The sender's CPU per event that carries text, merged or not."""
        return self.micros * self.tokens_per_event

    def remark(self, shared: bool) -> str:
        """What makes the figures doubtful; `shared` when crowd, Redis and worker have one processor."""
        remarks = []
        if self.crowd > TOO_BUSY:
            remarks.append("**the crowd was the bottleneck**")
        elif shared and self.crowd + self.beside > TOO_BUSY:
            remarks.append("the crowd's processor was full")
        if self.sender > TOO_BUSY:
            remarks.append("the sender was saturated")
        if self.late > _LATE_SECONDS:
            remarks.append(f"the worker was up to {self.late:.1f} s behind")
        return "; ".join(remarks)


def measure(stage: Stage, contender: Contender, load: Load, *, timed: bool = False) -> Measured:
    """Measure one sender. `timed` also asks how long tokens took. Raises `WrongText`."""
    stage.clear()
    with contender.start(stage.redis_url, stage.cores.sender) as sender, crowd_and_writer(stage) as helpers:
        return measure_running(stage, contender.name, sender, load, *helpers, timed=timed)


@contextmanager
def crowd_and_writer(stage: Stage) -> Iterator[tuple[Helper, Helper]]:
    """The two processes around a sender."""
    with helping("crowd", stage.cores.crowd) as crowd, helping("writer", stage.cores.rest) as writer:
        yield crowd, writer


def measure_running(
    stage: Stage, name: str, sender: Sender, load: Load, crowd: Helper, writer: Helper, *, timed: bool
) -> Measured:
    """The same with everything running already."""
    connected = begin(sender, load, crowd, writer)
    settle(sender.pid)
    pids = {"sender": sender.pid, "beside": writer.pid, "redis": stage.redis_pid}
    crowd.tell("read", seconds=DELIVER_SECONDS)
    before = {each: cpu_seconds(pid) for each, pid in pids.items()}
    writer.tell("write", pace=load.pace, count=load.tokens, texts=str(stage.texts))
    read = crowd.hear(DELIVER_SECONDS + 30)
    used = {each: cpu_seconds(pid) - before[each] for each, pid in pids.items()}
    written = writer.hear()
    judged = check(stage, crowd, read)
    delays = crowd.ask("delays") if timed else {"all": None, "first": None}
    crowd.ask("leave")
    seconds = read["seconds"]
    return Measured(
        name=name,
        micros=used["sender"] / load.deliveries * 1e6,
        tokens_per_event=load.deliveries / judged["chunks"],
        seconds=seconds,
        sender=used["sender"] / seconds,
        crowd=read["busy"],
        beside=(used["beside"] + used["redis"]) / seconds,
        late=written["late"],
        connect_seconds=connected,
        every=_spread(delays["all"]),
        first=_spread(delays["first"]),
    )


def begin(sender: Sender, load: Load, crowd: Helper, writer: Helper) -> float:
    """Begin the tasks, then all streams. How many seconds the streams took."""
    writer.ask("start", tasks=load.names, **sender.feed)
    answer = crowd.ask(
        "connect",
        patience=CONNECT_SECONDS + 10,
        port=sender.port,
        path=sender.path,
        tasks=load.names,
        each=load.viewers,
        seconds=CONNECT_SECONDS,
    )
    return float(answer["seconds"])


def check(stage: Stage, crowd: Helper, read: dict[str, Any]) -> dict[str, Any]:
    """What the crowd says of the text. Raises `WrongText`: a fast wrong answer is a failure."""
    judged = crowd.ask("check", texts=str(stage.texts), patience=120)
    if judged["wrong"] or read["missing"]:
        raise WrongText(
            f"{judged['wrong']} of {judged['viewers']} viewers have another text than was reported, and"
            f" {read['missing']} lack its end: {'; '.join(judged['examples'])}"
        )
    return judged


def _spread(answer: dict[str, float] | None) -> Spread | None:
    return None if answer is None else Spread(**answer)
