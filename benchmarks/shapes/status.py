"""`/status` of a running task that changes all the time, against the endpoint that people write."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

import redis

from benchmarks.apps.one_get import KEY
from benchmarks.helper import Helper, helping
from benchmarks.measuring import WrongText
from benchmarks.processes import cpu_seconds
from benchmarks.results import Outcome, Table, Verdict, at_least, percent
from benchmarks.senders import BRIDGE, Contender, Sender, app
from benchmarks.stage import Stage

_PATH: Final = "/tasks/{task}/status"
_FULL, _QUICK = 5.0, 1.0
"""Seconds."""
_CONNECTIONS: Final = 32
_PACE: Final = 10.0
_SAID: Final = 100
"""So many tokens are said before, some 1.3 KB; then it goes on at `_PACE`."""
_PATIENCE_SECONDS: Final = 30.0
_PLAIN: Final = Contender(
    "plain Starlette, one Redis GET",
    lambda redis_url, cores: app("benchmarks.apps.one_get:app", redis_url, cores),
)


@dataclass(frozen=True, slots=True)
class _Polled:
    name: str
    per_second: float
    micros: float
    not_modified: float
    sender: float
    polls: float
    reads: float


def run(stage: Stage) -> Outcome:
    """With and without `If-None-Match`, then the plain endpoint with an answer of the same size."""
    seconds = _QUICK if stage.quick else _FULL
    task = "task-0"
    path = _PATH.format(task=task)
    stage.clear()
    found = []
    with helping("polls", stage.cores.crowd) as polls:
        with (
            helping("writer", stage.cores.rest) as writer,
            BRIDGE.start(stage.redis_url, stage.cores.sender) as sender,
        ):
            writer.ask("start", tasks=[task], **sender.feed)
            writer.ask("write", pace=1000.0, count=_SAID, texts=str(stage.texts))
            body = _whole(sender, path, json.loads(stage.texts.read_text())[task])
            for tags in (False, True):
                name = "bridge, with If-None-Match" if tags else "bridge"
                writer.tell("write", pace=_PACE, count=int(_PACE * (seconds + 0.5)), texts=str(stage.texts))
                one = _poll(stage, name, sender, polls, path, tags=tags, seconds=seconds)
                writer.hear()
                _check(stage, polls, task)
                found.append(one)
        stage.clear()
        with redis.Redis.from_url(stage.redis_url) as client:
            client.set(KEY.format(task=task), body, ex=600)
        with _PLAIN.start(stage.redis_url, stage.cores.sender) as sender:
            found.append(_poll(stage, _PLAIN.name, sender, polls, path, tags=False, seconds=seconds))
    return _outcome(found, len(body))


def _whole(sender: Sender, path: str, text: str) -> bytes:
    """The answer once it holds all that was said: a worker's last words take a moment to get there."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while json.loads(body := _get(sender, path))["text"] != text:
        if time.monotonic() > deadline:
            raise WrongText(f"not all that was said is there after {_PATIENCE_SECONDS:g} s")
        time.sleep(0.02)
    return body


def _get(sender: Sender, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{sender.port}{path}", timeout=10) as answer:
        body: bytes = answer.read()
    return body


def _poll(
    stage: Stage, name: str, sender: Sender, polls: Helper, path: str, *, tags: bool, seconds: float
) -> _Polled:
    cpu, reads = cpu_seconds(sender.pid), _reads(stage)
    answer = polls.ask(
        "run", port=sender.port, path=path, tags=tags, connections=_CONNECTIONS, seconds=seconds
    )
    cpu, reads = cpu_seconds(sender.pid) - cpu, _reads(stage) - reads
    statuses: dict[str, int] = answer["statuses"]
    number = sum(statuses.values())
    if set(statuses) - {"200", "304"} or not number:
        raise WrongText(f"{name} answered {statuses}")
    one = _Polled(
        name,
        number / answer["seconds"],
        cpu / number * 1e6,
        statuses.get("304", 0) / number,
        cpu / answer["seconds"],
        answer["busy"],
        reads / number,
    )
    stage.say(f"  {name}: {one.per_second:,.0f} per second")
    return one


def _reads(stage: Stage) -> int:
    """How often Redis was asked for what a status is made of: a log, or a value."""
    commands = stage.commands()
    return sum(commands.get(name, 0) for name in ("xrange", "get"))


def _check(stage: Stage, polls: Helper, task: str) -> None:
    answer: dict[str, Any] = polls.ask("check", texts=str(stage.texts), task=task)
    if answer["wrong"]:
        raise WrongText(f"{answer['wrong']} of {answer['checked']} polls have text that was not reported")


def _outcome(found: list[_Polled], size: int) -> Outcome:
    *bridge, plain = found
    rows = [
        [
            one.name,
            f"{one.per_second:,.0f}",
            "" if one is plain else f"{one.per_second / plain.per_second:.1f}",
            f"{one.micros:.0f}",
            percent(one.not_modified),
            f"{one.reads:.2f}",
            percent(one.sender),
            percent(one.polls),
        ]
        for one in found
    ]
    columns = [
        *("endpoint", "polls per second", "it : plain", "CPU µs per poll", "answered 304"),
        *("Redis reads per poll", "server busy", "load generator busy"),
    ]
    title = f"`/status` of a task that changes {_PACE:g} times a second, {size:,} bytes"
    notes = [f"{_CONNECTIONS} connections that stay open, each with one request at a time."]
    target = "at least 3 times the plain endpoint"
    verdicts = [
        at_least(f"`/status`, {one.name}", target, one.per_second / plain.per_second, 3, " times")
        for one in bridge
    ]
    reads = max(one.reads for one in bridge)
    verdicts.append(Verdict("`/status`", "no Redis traffic", f"{reads:.3g} reads per poll", reads == 0))
    return Outcome([Table(title, columns, rows, notes)], verdicts)
