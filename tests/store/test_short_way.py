"""The short way of `append` does what the long way does, for less."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.codec import encode
from bridge.events import Chunk, Data, Event, Progress
from bridge.store.scripts import SCRIPTS, Answer, Call, Script, run_pipeline, wire
from tests.store.bench import LIMIT, Bench

_GROUND = "-- The ground that every script stands on"
LONG_AGO, NEVER = 1, 10**13
TIMES = ("epoch", "created", "started", "lease", "chunk_at", "server", "ended")


def long_way() -> Script:
    """`append` without what stands in front of the ground."""
    source = SCRIPTS["append"].source
    assert source.count(_GROUND) == 1
    source = source[source.index(_GROUND) :]
    return Script("append", source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


LONG = long_way()


class LongWay(Bench):
    """A bench whose appends all take the long way."""

    def run(self, call: Call) -> Answer:
        return super().run(replace(call, script=LONG) if call.script.name == "append" else call)


@pytest.fixture
def both(redis_url: str) -> Iterator[tuple[Bench, Bench]]:
    """Two tasks on one server, one of which never takes the short way."""
    with Bench(redis_url, "short") as short, LongWay(redis_url, "long") as long:
        long.client.script_load(LONG.source)
        yield short, long


events = st.one_of(
    st.builds(Chunk, st.text(max_size=20), st.sampled_from(["text", "reasoning"])),
    st.builds(Progress, st.floats(0, 1), st.none() | st.text(max_size=5)),
    st.builds(Data, st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=5)),
)
steps = st.one_of(
    st.tuples(
        st.sampled_from(["append", "append", "append much", "append after a second"]),
        st.lists(events, max_size=4),
        st.sampled_from([1, 1, 1, 1, 1, 0, 2]),
    ),
    st.tuples(st.just("append by another"), st.lists(events, max_size=2), st.just(1)),
    st.tuples(st.just("append too much"), st.lists(events, min_size=1, max_size=2), st.just(1)),
    st.tuples(st.sampled_from(["open", "cancel", "expire", "no log", "no task"]), st.none(), st.none()),
)


def do(bench: Bench, batch: int, what: str, content: list[Event], ahead: int) -> Answer | None:
    """One step; an append is of the batch so many after the last one."""
    if what.startswith("append") and bench.hash().get("chunk_at", "0") != "0":
        # When the last chunk came that tells its time, if there is one: not left to how fast this runs.
        bench.set_field("chunk_at", LONG_AGO if "second" in what else NEVER)
    match what:
        case "append" | "append after a second":
            return bench.append("t1", batch + ahead, *content, length=b'{"text":%d}' % batch)
        case "append much":
            return bench.append("t1", batch + ahead, *content, Chunk("x" * 70_000))
        case "append by another":
            return bench.append("t0", batch + ahead, *content)
        case "append too much":
            room = int(bench.hash().get("bytes", 0)) + sum(len(encode(event)) for event in content)
            return bench.append("t1", batch + ahead, *content, limit=room - 1)
        case "open":
            return bench.open("t1")
        case "cancel":
            return bench.cancel()
        case "expire":
            if bench.hash().get("state") == "running":
                bench.let_lease_end()
            return bench.expire()
    bench.lose(what.removeprefix("no "))
    return None


def seen(bench: Bench, answer: Answer | None) -> tuple[Any, ...]:
    """All that is to be seen of a task, but for what only the clock says."""
    said = answer and answer._replace(position=answer.position._replace(epoch=0), now=0, created_at=0)
    entries = [(e.position.seq, e.event.kind, e.event.at is not None) for e in bench.log()]
    hash_ = {name: bool(value) if name in TIMES else value for name, value in bench.hash().items()}
    hours = [round(bench.client.pttl(bench._key(name)) / 3_600_000) for name in ("task", "log")]
    return said, bench.events(), entries, hash_, hours


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(script=[("cancel", None, None), ("append", [Chunk("x")], 1)])
@example(script=[("expire", None, None), ("append", [Chunk("x")], 1)])
@example(script=[("no log", None, None), ("append", [Chunk("x")], 1)])
@example(script=[("append", [Chunk("x"), Progress(0.5)], 1)])
@given(script=st.lists(steps, max_size=8))
def test_both_ways_do_the_same(both: tuple[Bench, Bench], script: list[tuple[str, Any, Any]]) -> None:
    """Whatever is appended to whatever task: same answers, same log, same hash, same message."""
    for bench in both:
        bench.client.delete(*(bench._key(name) for name in ("task", "log")))
        bench.epoch = 0
        bench.open("t1")
    batches = [0, 0]
    for what, content, ahead in script:
        answers = [do(bench, batches[i], what, content, ahead) for i, bench in enumerate(both)]
        assert seen(both[0], answers[0]) == seen(both[1], answers[1])
        for i, answer in enumerate(answers):
            if answer is not None:
                batches[i] = answer.batch


def test_an_ordinary_append_is_seven_commands(redis_url: str, redis_client: redis.Redis) -> None:
    """A guard: what Redis has to do for a token, and that the ground isn't laid for it."""
    with Bench(redis_url) as bench:
        bench.open("t1")
        call = bench.calls.append(
            bench.task_id, token="t1", batch=1, length=b"{}", limit=LIMIT, events=wire([Chunk("x")])
        )
        redis_client.config_resetstat()
        run_pipeline(bench.client, [call])
        stats: dict[str, dict[str, int]] = redis_client.info("commandstats")
        counted = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    inside = ("hmget", "time", "xadd", "hset", "pexpireat", "publish")
    assert {name: counted[name] for name in inside} == {name: 1 + (name == "pexpireat") for name in inside}
    assert "exists" not in counted  # the ground looks for the log so
