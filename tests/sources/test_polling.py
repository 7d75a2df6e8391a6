"""The polling source: from an app's answers to a task's events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import decode, encode
from bridge.events import MAIN_FIELD, Chunk, Data, End, Event, Position, Progress, Reset, State
from bridge.merge import compact
from bridge.sources.mapping_file import load_mapping
from bridge.sources.polling import Absent, Snapshot, Trouble, diff, read_answer
from bridge.view import View
from tests.strategies import as_log, json_values

NOW = 1_763_650_000_000


def said(body: Any, mapping: str = "plain", status: int = 200) -> Snapshot:
    """What a JSON answer says of a task."""
    read = read_answer(load_mapping(mapping), status, json.dumps(body).encode())
    assert isinstance(read, Snapshot), read
    return read


def opened() -> View:
    """The view of a task whose log has just been opened."""
    view = View("job-1")
    view.apply(Position(1, 1), State("running", 1, False, NOW, NOW, NOW))
    return view


def told(view: View, events: Iterable[Event]) -> View:
    """The view after these events, which went over the wire."""
    for seq, event in enumerate(events, view.position.seq + 1):
        view.apply(Position(1, seq), decode(event.kind, encode(event)))
    return view


# --- answers ------------------------------------------------------------------------------------------------


def test_a_plain_answer() -> None:
    """State, text, progress and message under their usual names."""
    assert said({"status": "running", "progress": 0.4, "text": "Hel", "message": "reading"}) == Snapshot(
        "running", {"text": "Hel"}, 0.4, "reading"
    )
    assert said({"state": "DONE", "result": "Hello", "usage": {"n": 1}}) == Snapshot(
        "succeeded", {"text": "Hello"}, result="Hello", usage={"n": 1}
    )
    failed = said({"state": "error", "error": {"code": "no_model", "message": "No model."}})
    assert failed.error == {"code": "no_model", "message": "No model."}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"task_id": "1", "task_status": "PENDING", "task_result": None}, Snapshot("queued")),
        ({"task_id": "1", "task_status": "STARTED", "task_result": None}, Snapshot("running")),
        (
            {
                "task_id": "1",
                "task_status": "PROGRESS",
                "task_result": {"current": 1, "total": 4, "text": "He"},
            },
            Snapshot("running", {"text": "He"}, 0.25),
        ),
        (
            {"task_status": "SUCCESS", "task_result": "Hello"},
            Snapshot("succeeded", {"text": "Hello"}, result="Hello"),
        ),
        (
            {"task_status": "FAILURE", "task_result": "boom"},
            Snapshot("failed", error={"code": "failed", "message": "boom"}),
        ),
        ({"task_status": "REVOKED", "task_result": None}, Snapshot("cancelled")),
        (
            {"state": "PENDING", "current": 0, "total": 1, "status": "Pending..."},
            Snapshot("queued", progress=0.0, message="Pending..."),
        ),
        (
            {"state": "ANALYZING", "current": 3, "total": 4, "status": "three of four"},
            Snapshot("running", progress=0.75, message="three of four"),
        ),
        (
            {"state": "SUCCESS", "current": 100, "total": 100, "status": "done", "result": {"n": 42}},
            Snapshot("succeeded", {}, 1.0, "done", result={"n": 42}),
        ),
        (
            {"state": "FAILURE", "current": 1, "total": 1, "status": "boom"},
            Snapshot("failed", progress=1.0, message="boom", error={"code": "failed", "message": "boom"}),
        ),
        ({"task_id": "1", "status": "STARTED", "result": None}, Snapshot("running")),
        (
            {"task_id": "1", "status": "SUCCESS", "result": "Hi"},
            Snapshot("succeeded", {"text": "Hi"}, result="Hi"),
        ),
        (
            {"task_id": "1", "status": "FAILURE", "result": "boom"},
            Snapshot("failed", error={"code": "failed", "message": "boom"}),
        ),
    ],
)
def test_celery(body: Any, wanted: Snapshot) -> None:
    """The three shapes that endpoints around AsyncResult usually have."""
    read = said(body, "celery")
    assert Snapshot(*(getattr(read, name) for name in Snapshot.__slots__[:-1])) == wanted


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (417, {"task_status": 1, "slow_pickup": False}, Snapshot("queued")),
        (417, {"task_status": 2, "task_output": None}, Snapshot("running")),
        (
            417,
            {"task_status": 2, "task_output": {"output": "Hel", "reasoning": "so", "sources": ["a"]}},
            Snapshot("running", {"text": "Hel", "reasoning": "so"}, data={"sources": ["a"]}),
        ),
        (417, {"task_status": 3}, Snapshot("running")),
        (
            400,
            {"error": "task_failed_or_canceled", "task_status": 4, "userFacingErrorMessage": "Too long."},
            Snapshot("failed", error={"code": "failed", "message": "Too long."}),
        ),
        (400, {"error": "task_failed_or_canceled", "task_status": 5}, Snapshot("cancelled")),
        (404, {"error": "task_not_found"}, Absent()),
        (400, {"error": "task_query_failed"}, Trouble("status 400, but its body names no state")),
        (401, {"error": "User not logged in"}, Trouble("status 401")),
        (
            200,
            {
                "ocs": {
                    "data": {
                        "task": {"status": "STATUS_RUNNING", "output": {"output": "Hel"}, "progress": 0.5}
                    }
                }
            },
            Snapshot("running", {"text": "Hel"}, 0.5),
        ),
        (
            200,
            {"ocs": {"data": {"task": {"status": "STATUS_SCHEDULED", "output": None, "progress": None}}}},
            Snapshot("queued"),
        ),
        (
            200,
            {"ocs": {"data": {"task": {"status": "STATUS_SUCCESSFUL", "output": {"output": "Hello"}}}}},
            Snapshot("succeeded", {"text": "Hello"}, result={"output": "Hello"}),
        ),
    ],
)
def test_nextcloud(status: int, body: Any, wanted: Any) -> None:
    """417 while there is no message, and the tasks of its OCS API."""
    assert read_answer(load_mapping("nextcloud"), status, json.dumps(body).encode()) == wanted


def test_nextcloud_s_message_is_the_end() -> None:
    """The row of the assistant's message comes when all is done, and has the whole text."""
    row = {"id": 7, "role": "assistant", "content": "Hello", "sources": "[]"}
    read = said(row, "nextcloud")
    assert (read.state, read.texts, read.result) == ("succeeded", {"text": "Hello"}, row)


def test_replicate() -> None:
    """The output of a language model is a list of pieces."""
    read = said(
        {"status": "processing", "output": ["Hel", "lo"], "logs": "step 1\n", "error": None}, "replicate"
    )
    assert read == Snapshot("running", {"text": "Hello", "logs": "step 1\n"})
    read = said({"status": "succeeded", "output": "Hello", "metrics": {"predict_time": 1}}, "replicate")
    assert (read.state, read.usage, read.result) == ("succeeded", {"predict_time": 1}, "Hello")
    read = said({"status": "canceled", "output": None, "error": None}, "replicate")
    assert read.state == "cancelled"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b'{"status":"running"}', "status 500"),
        (302, b"", "status 302"),
        (200, b"<html>", "not JSON"),
        (200, b"\xff\xfe", "not JSON"),
        (200, b"[" * 100_000, "not JSON"),
        (200, b'{"status":"running","progress":NaN}', "not JSON"),
        (200, b'{"status":"running","progress":1e999}', "not JSON"),
        (200, b"", "not JSON"),
        (200, b"{}", "names no state"),
        (200, b"[1]", "names no state"),
        (200, b'{"status":{"a":1}}', "names no state"),
        (200, b'{"status":"odd"}', "the state 'odd' is not in the mapping"),
        (200, b'{"status":"done","result":' + b"[" * 200 + b"]" * 200 + b"}", "can't be told"),
    ],
)
def test_what_can_not_be_understood_is_trouble(status: int, body: bytes, reason: str) -> None:
    """And never a change of the task."""
    read = read_answer(load_mapping("plain"), status, body)
    assert isinstance(read, Trouble)
    assert reason in read.reason


@pytest.mark.parametrize(
    ("body", "doubt"),
    [
        ({"text": 42}, "text: what stands at text is a number"),
        ({"text": {"a": 1}}, "text: what stands at text is an object"),
        ({"progress": 42}, "progress: 42 at progress is no fraction"),
        ({"progress": -0.1}, "progress: -0.1 at progress is no fraction"),
    ],
)
def test_a_value_of_the_wrong_type_says_nothing(body: Any, doubt: str) -> None:
    """The rest counts; the doubt is for the log."""
    read = said({"status": "running", "message": "m", **body})
    assert (read.texts, read.progress, read.message) == ({}, None, "m")
    assert len(read.doubts) == 1
    assert doubt in read.doubts[0]


@pytest.mark.parametrize(
    ("body", "progress"),
    [({"progress": 1.0000001}, 1.0), ({"progress": True}, None), ({"progress": "0.5"}, None),
     ({"percent": 40}, 0.4), ({"current": 5, "total": 4}, 1.0), ({"current": 1, "total": 0}, None),
     ({"current": 10**400}, None)],
)  # fmt: skip
def test_fractions(body: Any, progress: float | None) -> None:
    """Of 1, of 100, or of a total; what is none says nothing."""
    assert said({"status": "running", **body}).progress == progress


def test_half_a_character_is_waited_for() -> None:
    """An app that cuts its text between two surrogates doesn't make everything be told anew each time."""
    body = b'{"status":"running","text":"a\\ud83d"}'
    first = read_answer(load_mapping("plain"), 200, body)
    assert isinstance(first, Snapshot)
    assert first.texts == {"text": "a"}
    then = said({"status": "running", "text": "a😀"})
    view = told(opened(), diff(opened(), first, NOW))
    assert diff(view, then, NOW) == [Chunk("😀")]
    whole = read_answer(load_mapping("plain"), 200, b'{"status":"running","text":"\\udc00b"}')
    assert isinstance(whole, Snapshot)
    assert whole.texts == {"text": "�b"}


def test_errors_have_a_code_and_a_message() -> None:
    """Whatever the app says; codes that have a meaning of their own are not for apps to use."""
    assert said({"status": "failed"}).error == {
        "code": "failed",
        "message": "The app says that this task has failed.",
    }
    assert said({"status": "failed", "error": {"a": 1}}).error == {"code": "failed", "message": '{"a":1}'}
    assert said({"status": "failed", "code": "worker_lost", "error": "x"}).error == {
        "code": "failed",
        "message": "x",
    }
    long = said({"status": "failed", "error": "x" * 5000}).error
    assert long is not None
    assert len(long["message"]) == 1000


# --- events -------------------------------------------------------------------------------------------------


def test_only_what_is_new_is_told() -> None:
    """Text that goes on, a progress that moves, data that changes; nothing for what stays."""
    view = opened()
    first = Snapshot("running", {"text": "Hel", "reasoning": "so"}, 0.1, "reading", {"a": 1})
    assert diff(view, first, NOW) == [
        Chunk("Hel"),
        Chunk("so", "reasoning"),
        Data("a", 1),
        Progress(0.1, "reading"),
    ]
    told(view, diff(view, first, NOW))
    assert diff(view, first, NOW) == []
    then = Snapshot("running", {"text": "Hello", "reasoning": "so"}, 0.2, None, {"a": True})
    assert diff(view, then, NOW) == [Chunk("lo"), Data("a", True), Progress(0.2, "reading")]


def test_text_that_changed_otherwise_is_told_anew() -> None:
    """With all that is known besides; shorter text as well."""
    view = told(opened(), [Chunk("Hello"), Chunk("so", "reasoning"), Data("a", 1), Progress(0.1, "m")])
    events = diff(view, Snapshot("running", {"text": "Help"}), NOW)
    assert events == [
        Reset("rewritten", 1),
        State("running", 1, False, NOW, NOW),
        Chunk("Help"),
        Chunk("so", "reasoning"),
        Data("a", 1),
        Progress(0.1, "m"),
    ]
    assert diff(view, Snapshot("running", {"text": "Hell"}), NOW)[0] == Reset("rewritten", 1)


def test_a_task_that_waits_is_queued() -> None:
    """And then runs from the moment that it was seen to."""
    view = told(opened(), diff(opened(), Snapshot("queued"), NOW))
    assert (view.state, view.started_at) == ("queued", None)
    assert diff(view, Snapshot("running"), NOW + 5) == [State("running", 1, False, NOW, NOW + 5)]


def test_the_end_carries_everything() -> None:
    """In one go with the last text, and with the length of all fields, so that readers can check."""
    view = told(opened(), [Chunk("Hé"), Chunk("so", "reasoning")])
    events = diff(view, Snapshot("succeeded", {"text": "Héllo"}, result={"n": 1}, usage={"t": 2}), NOW)
    assert events == [Chunk("llo"), End("succeeded", None, {"n": 1}, {"t": 2}, {"text": 6, "reasoning": 2})]
    assert diff(told(view, events), Snapshot("running", {"text": "other"}), NOW) == []


def test_what_is_not_said_stays() -> None:
    """A failure without a text keeps the text that was there."""
    view = told(opened(), [Chunk("Hel")])
    (end,) = diff(view, Snapshot("failed", error={"code": "failed", "message": "boom"}), NOW)
    assert end == End("failed", {"code": "failed", "message": "boom"}, length={"text": 3})
    assert told(view, [end]).text == "Hel"


texts = st.text(alphabet="ab😀", max_size=6)
# Most apps let their text grow; some rewrite it.
snapshots = st.builds(
    Snapshot,
    st.sampled_from([None, "queued", "running"]),
    st.dictionaries(st.sampled_from([MAIN_FIELD, "reasoning"]), texts),
    st.none() | st.floats(0, 1),
    st.none() | st.text(max_size=3),
    st.dictionaries(
        st.sampled_from(["a", "b"]), json_values.filter(lambda value: value is not None), max_size=2
    ),
)
lasts = st.builds(
    Snapshot, st.sampled_from(["succeeded", "failed", "cancelled"]), st.just({}) | st.builds(dict)
)


@given(st.lists(snapshots, max_size=8), st.none() | lasts)
def test_any_sequence_of_snapshots_folds_to_the_last(polls: list[Snapshot], last: Snapshot | None) -> None:
    """Each thing is what it was last said to be, also after merging as readers get it."""
    view, log = opened(), list[Event]()
    texts: dict[str, str] = {}
    data: dict[str, Any] = {}
    progress: float | None = None
    message: str | None = None
    state = "running"
    for poll in [*polls, *([last] if last else [])]:
        events = diff(view, poll, NOW)
        log += events
        told(view, events)
        again = diff(view, poll, NOW)
        assert again == [], "what was told is told again"
        texts |= poll.texts
        data |= json.loads(json.dumps(poll.data).encode())
        progress = progress if poll.progress is None else poll.progress
        message = message if poll.message is None else poll.message
        state = poll.state or state
    for fold in (view, told(opened(), [entry.event for entry in compact(as_log(log))])):
        assert {MAIN_FIELD: fold.text, **fold.fields} == {
            MAIN_FIELD: "",
            **{k: v for k, v in texts.items() if v or k == MAIN_FIELD},
        }
        assert (fold.state, fold.progress, fold.message) == (state, progress, message)
        assert json.dumps(fold.data, sort_keys=True) == json.dumps(data, sort_keys=True)
