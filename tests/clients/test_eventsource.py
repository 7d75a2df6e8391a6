"""The npm package `eventsource`, an EventSource as browsers have it, reads our streams."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

import bridge
from bridge.events import Position
from tests.gateway.running import running
from tests.servers import free_port
from tests.tools import JS, require_tool

pytestmark = pytest.mark.needs("node", "eventsource")

Facts = Iterator[dict[str, Any]]


@contextmanager
def watch(url: str) -> Iterator[Facts]:
    """A page that watches a stream; what happens in it, one after the other, until nothing more can happen.

    Leaving the block checks that it ended by itself.
    """
    command = [str(require_tool("node")), "watch.js", url]
    with subprocess.Popen(command, cwd=JS, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield (json.loads(line) for line in process.stdout)
            assert process.wait() == 0
        finally:
            if process.poll() is None:
                process.kill()


def until(facts: Facts, **wanted: object) -> list[dict[str, Any]]:
    """All facts up to the first that has these members."""
    passed = []
    for fact in facts:
        passed.append(fact)
        if wanted.items() <= fact.items():
            return passed
    raise AssertionError(f"{wanted} didn't happen, but only {passed}")


def of(facts: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Those facts that are events of a kind, or with another type."""
    return [fact for fact in facts if kind in (fact["type"], fact.get("kind"))]


def text(facts: list[dict[str, Any]]) -> str:
    """The main text that they bring."""
    return "".join(json.loads(fact["data"])["text"] for fact in of(facts, "chunk"))


def check_ids(facts: list[dict[str, Any]]) -> None:
    """Every event has an id, and they strictly increase."""
    ids = [Position.parse(fact["id"]) for fact in of(facts, "event")]
    assert all(before < after for before, after in pairwise(ids))


def test_named_events_and_the_end(redis_url: str) -> None:
    """Events arrive under their names and not as messages, comments as nothing; after the `end` it comes back
    once, is told 204, and stops for good.
    """
    with (
        running(redis_url, heartbeat_seconds=0.05) as gateway,
        watch(f"{gateway.url}/tasks/job-1/events") as page,
    ):
        facts = until(page, type="comment", text="")
        with bridge.task("job-1") as task:
            task.report_progress(0.5, message="writing")
            task.report_progress(name="sources", value=["a", "b"])
            task.report_progress("Grüße,\n\u2028「世界」 🙂")
            facts += until(page, kind="chunk")
            # Now that it has an id to remember, comments must still be nothing.
            for _ in range(3):
                facts += until(page, type="comment", text="")
        facts += list(page)

    assert [fact["kind"] for fact in of(facts, "event")] == ["state", "progress", "data", "chunk", "end"]
    assert of(facts, "message") == []
    assert text(facts) == "Grüße,\n\u2028「世界」 🙂"
    check_ids(facts)
    (end,) = of(facts, "end")
    assert of(facts, "request") == [
        {"type": "request", "after": None, "status": 200},
        {"type": "request", "after": end["id"], "status": 204},
    ]
    assert facts[-1] == {"type": "error", "code": 204, "closed": True}


def test_the_gateway_is_restarted(redis_url: str) -> None:
    """When the gateway goes away in the midst of a task it comes back to the next one, and goes on where it
    was: what was written meanwhile is there, and nothing comes twice.
    """
    port = free_port()
    task = bridge.task("job-1").start()
    with watch(f"http://127.0.0.1:{port}/tasks/job-1/events") as page:
        with running(redis_url, port=port):
            task.report_progress("one ")
            facts = until(page, kind="chunk")
            task.report_progress("two ")
            facts += until(page, kind="chunk")
        last_seen = facts[-1]["id"]
        task.report_progress("three ")
        with running(redis_url, port=port):
            facts += until(page, type="request", status=200)
            task.report_progress("four")
            task.finish()
            facts += list(page)

    assert text(facts) == "one two three four"
    assert of(facts, "reset") == []
    check_ids(facts)
    (end,) = of(facts, "end")
    requests = of(facts, "request")
    assert [(one["after"], one["status"]) for one in requests] == [
        (None, 200), (last_seen, 200), (end["id"], 204)
    ]  # fmt: skip
