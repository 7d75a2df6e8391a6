"""Whatever comes, Python's session and JavaScript's make the same view of it, or refuse it both."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge import sse
from bridge.client.session import Session
from bridge.codec import KINDS, dumps
from bridge.entries import Entry
from bridge.errors import ClientError
from bridge.events import Chunk, Reset
from bridge.view import View
from tests.strategies import EPOCH, logs
from tests.tools import JS, require_tool

pytestmark = pytest.mark.needs("node")

Step = tuple[str, bytes]
STREAM = {"content-type": "text/event-stream"}
RELAXED = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Node:
    """A process that folds one case after the other."""

    def __init__(self) -> None:
        command = [str(require_tool("node")), "fold.js"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=JS, text=True, stdin=pipe, stdout=pipe)

    def fold(self, steps: list[Step]) -> dict[str, Any]:
        """What JavaScript makes of it."""
        coded = [
            (way, b64encode(content).decode() if way == "stream" else content.decode())
            for way, content in steps
        ]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"steps": coded}), file=self._process.stdin, flush=True)
        return as_numbers(self._process.stdout.readline())

    def stop(self) -> None:
        """It ends when it is told nothing more."""
        assert self._process.communicate()[0] == ""
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One process for all cases."""
    one = Node()
    yield one
    one.stop()


def as_numbers(text: str) -> dict[str, Any]:
    """JSON as JavaScript reads it, in which all numbers are floats."""
    value: dict[str, Any] = json.loads(text, parse_int=float)
    return value


def fold(steps: list[Step]) -> dict[str, Any]:
    """What Python makes of it."""
    session = Session("job")
    session.next()
    session.answered(200, STREAM)
    try:
        for way, content in steps:
            if way == "stream":
                session.receive(content)
            else:
                session.polled(200, {}, content)
    except ClientError:
        return {"error": "bad_answer"}
    return as_numbers(json.dumps({"view": session.view.as_dict(), "done": session.done}))


def wire(log: list[Entry]) -> bytes:
    """A log as a stream carries it."""
    return b"".join(sse.frame(entry.data, event=entry.event.kind, id=str(entry.position)) for entry in log)


@RELAXED
@given(logs(), st.data())
def test_any_log_gives_the_same_view(node: Node, log: list[Entry], data: st.DataObject) -> None:
    """However it is cut and repeated, a log is folded to the same JSON."""
    stream = wire(log) + wire(log[: data.draw(st.integers(0, len(log)))])
    cut = data.draw(st.integers(0, len(stream)))
    steps = [("stream", stream[:cut]), ("stream", stream[cut:])]
    assert node.fold(steps) == fold(steps)


@RELAXED
@given(logs(), st.data())
def test_a_poll_in_the_midst_gives_the_same_view(node: Node, log: list[Entry], data: st.DataObject) -> None:
    """A part by stream, a part by poll, the rest by stream again: that is the view of the whole log."""
    # A kind that nobody knows moves the log's position, but not a reader's.
    log = [entry for entry in log if entry.event.kind in KINDS]
    first = data.draw(st.integers(0, len(log)))
    second = data.draw(st.integers(first, len(log)))
    steps = [("stream", wire(log[:first]))]
    if second > first:
        steps.append(("poll", answer(log[:first], log[first:second])))
    steps.append(("stream", wire(log[second:])))
    whole = View("job")
    whole.apply_all(log)
    folded = node.fold(steps)
    assert folded == fold(steps)
    assert folded["view"] == as_numbers(json.dumps(whole.as_dict()))


def answer(known: list[Entry], new: list[Entry]) -> bytes:
    """What a gateway answers to a poll of who knows the first part of a log, when there are two."""
    view = View("job")
    view.apply_all([*known, *new])
    reset = any(isinstance(entry.event, Reset) for entry in new)
    since = View("job")
    since.apply_all(new)
    texts = {field: since.text_of(field) for field in ["text", *since.fields]}
    return dumps({**view.as_dict(texts), "reset": bool(known) and reset})


# What some member of some event may be, and what it may not.
TEXTS = ["x", "", "queued", "running", "succeeded", "0-1", "7-1", "8-2", "1970-01-01T00:00:01.000Z"]
NUMBERS = [0, 1, -1, 0.5, 1.5, 2**53 - 1, 2**53, 253_402_300_799_999, 253_402_300_800_000]
OBJECTS = [{}, {"a": 1}, {"a": -1}, {"a": "b"}, {"code": "a", "message": "b"}, {"code": "a"}]
SAMPLES = st.sampled_from([None, True, False, *TEXTS, *NUMBERS, [], ["a"], *OBJECTS])
TASK_MEMBERS = ["state", "attempt", "cancel_requested", "created_at", "started_at", "at", "reason"]
TEXT_MEMBERS = ["text", "field", "progress", "message", "name", "value", "__proto__"]
END_MEMBERS = ["error", "result", "usage", "length", "truncated"]
MEMBERS = st.sampled_from([*TASK_MEMBERS, *TEXT_MEMBERS, *END_MEMBERS])
BLANK = View("job").as_dict()
GOOD: dict[str, dict[str, Any]] = {
    "state": {"state": "running"},
    "chunk": {"text": "a"},
    "progress": {},
    "data": {"name": "a", "value": 1},
    "reset": {"reason": "retry"},
    "end": {"state": "failed"},
}


@RELAXED
@given(st.sampled_from(sorted(KINDS)), st.dictionaries(MEMBERS, SAMPLES, max_size=3))
def test_both_refuse_the_same_events(node: Node, kind: str, members: dict[str, Any]) -> None:
    """What makes no sense to one makes none to the other."""
    data = json.dumps({**GOOD[kind], **members})
    steps = [("stream", sse.frame(data, event=kind, id=f"{EPOCH}-1"))]
    assert node.fold(steps) == fold(steps)


@RELAXED
@given(st.text(st.characters(), max_size=6))
@example("\\ud800 \ud800\\\ud800")
@example("\U0001f642\ud83d")
def test_lone_surrogates_are_replaced_alike(node: Node, text: str) -> None:
    """What JSON can spell and UTF-8 can't becomes U+FFFD in both, and nothing else does."""
    data = json.dumps({"name": text, "value": {text: [text, "\\u"]}})
    steps = [("stream", sse.frame(data, event="data", id=f"{EPOCH}-1"))]
    assert node.fold(steps) == fold(steps)


@pytest.mark.parametrize("data", ["", "1", "[]", "null", "{", '{"text":"a"', "[" * 100_000, '{"text":"a"}x'])
def test_both_refuse_what_is_no_object(node: Node, data: str) -> None:
    """Data that is no JSON object is refused, and a poll's answer likewise."""
    stream = [("stream", sse.frame(data, event="chunk", id=f"{EPOCH}-1"))]
    assert node.fold(stream) == fold(stream) == {"error": "bad_answer"}
    poll = [("poll", data.encode())]
    assert node.fold(poll) == fold(poll) == {"error": "bad_answer"}


@RELAXED
@given(
    st.dictionaries(
        st.sampled_from(sorted(BLANK)), SAMPLES.filter(lambda value: value or value is None), max_size=3
    )
)
def test_both_refuse_the_same_polls(node: Node, members: dict[str, Any]) -> None:
    """A poll's answer is checked as events are: that of an ended task, where everything counts.

    (Not so False, 0 and "" one for the other: to Python they are equal, and what is equal is no news.)
    """
    view = {**BLANK, **members, "state": "failed", "position": "7-3", "reset": False}
    steps = [("stream", wire_one("7-2", Chunk("a"))), ("poll", json.dumps(view).encode())]
    assert node.fold(steps) == fold(steps)


def wire_one(position: str, chunk: Chunk) -> bytes:
    """One event on a stream."""
    return sse.frame(json.dumps({"text": chunk.text}), event="chunk", id=position)
