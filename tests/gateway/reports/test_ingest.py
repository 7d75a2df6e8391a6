"""Workers that report over HTTP: what they may send, what becomes of it, and what they are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.events import Chunk
from tests.gateway.reports.reporter import ALLOWED, KEY, LINES, TEXT, Reporter
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.waiting import eventually


@pytest.fixture
def gateway(redis_url: str) -> Iterator[Running]:
    """A gateway that takes reports."""
    with running(redis_url, report_keys=KEY) as one:
        yield one


@pytest.fixture
def worker(gateway: Running) -> Reporter:
    """A worker that names its attempt."""
    return Reporter(gateway, attempt="a1")


def view(gateway: Running, task_id: str = "job-1") -> dict[str, Any]:
    """The task as polls see it."""
    value: dict[str, Any] = gateway.get(f"/tasks/{task_id}/status").json()
    return value


def text(gateway: Running) -> str:
    """Its main text; none of a task that isn't known yet."""
    return str(view(gateway).get("text", ""))


# What is sent


def test_text_is_appended(gateway: Running) -> None:
    """A plain POST of plain text opens the task and appends to its answer; an empty end is a success."""
    anybody = Reporter(gateway)
    assert anybody.events("Hello ")["status"] == 200
    assert anybody.events("wörld 😀")["attempt"] == 1
    assert view(gateway)["state"] == "running"
    answer = anybody.end()
    assert (answer["status"], answer["state"]) == (200, "succeeded")
    assert (text(gateway), view(gateway)["state"]) == ("Hello wörld 😀", "succeeded")


def test_answer_says_what_a_worker_needs(worker: Reporter) -> None:
    """Position, attempt, the last number, and whether to stop."""
    answer = worker.events("Hello", batch=1)
    assert answer.pop("position").endswith("-2")
    assert answer == {
        "id": "job-1", "state": "running", "attempt": 1, "batch": 1, "part": 0, "cancel_requested": False,
        "truncated": False, "status": 200,
    }  # fmt: skip


EVENTS = [
    {"kind": "chunk", "text": "Hel"},
    {"kind": "chunk", "text": "lo"},
    {"kind": "chunk", "text": "hm", "field": "reasoning"},
    {"kind": "progress", "progress": 0.1},
    {"kind": "progress", "progress": 0.5, "message": "reading"},
    {"kind": "data", "name": "sources", "value": ["a", None]},
    {"kind": "chunk", "text": "!"},
    {"kind": "data", "name": "sources", "value": {"n": 1}},
]


@pytest.mark.parametrize("way", ["one by one", "array", "lines", "lines without the last end"])
def test_events_are_json(gateway: Running, worker: Reporter, way: str) -> None:
    """One event, an array of them, and lines of them say the same."""
    lines = "\n".join(json.dumps(event) for event in EVENTS)
    if way == "one by one":
        for event in EVENTS:
            assert worker.events(event)["status"] == 200
    elif way == "array":
        worker.events(EVENTS)
    else:
        worker.events(lines + ("\n\n" if way == "lines" else ""), LINES)
    seen = view(gateway)
    assert (seen["text"], seen["fields"]) == ("Hello!", {"reasoning": "hm"})
    assert (seen["progress"], seen["message"]) == (0.5, "reading")
    assert seen["data"] == {"sources": {"n": 1}}


def test_text_may_be_another_fields(gateway: Running, worker: Reporter) -> None:
    """Plain text goes to the field that the URL names."""
    worker.events("hm", field="reasoning")
    assert view(gateway)["fields"] == {"reasoning": "hm"}


def test_end_says_how(gateway: Running, worker: Reporter) -> None:
    """State, result and usage are the worker's; lengths are counted for it."""
    with watch(gateway) as viewer:
        worker.events("é")
        worker.end({"state": "succeeded", "result": {"pages": 3}, "usage": {"tokens": 9}})
        last = viewer.to_end().frames[-1]
    assert json.loads(last.data)["length"] == {"text": 2}
    seen = view(gateway)
    assert (seen["result"], seen["usage"], seen["error"]) == ({"pages": 3}, {"tokens": 9}, None)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"code": "no_model", "message": "none"}, {"code": "no_model", "message": "none"}),
        (None, {"code": "failed", "message": "The worker reported a failure."}),
    ],
)
def test_failure_says_why(gateway: Running, worker: Reporter, said: Any, error: Any) -> None:
    """A failed task has a code and a message, also where the worker gave none; its text is kept."""
    worker.events("part")
    worker.end({"state": "failed", "error": said})
    assert (view(gateway)["state"], view(gateway)["error"], text(gateway)) == ("failed", error, "part")


def test_task_is_announced(gateway: Running) -> None:
    """An app in any language makes a task queued, and whose it is; announced twice it is the same task."""
    answer = gateway.post("/tasks/job-1", headers=ALLOWED, json={"owner": "ann"})
    assert (answer.status_code, answer.json()["state"], answer.json()["attempt"]) == (200, "queued", 0)
    assert gateway.post("/tasks/job-1", headers=ALLOWED).json()["position"] == answer.json()["position"]
    assert Reporter(gateway).events("Hi")["attempt"] == 1
    assert text(gateway) == "Hi"


def test_announcement_by_name_is_made_once(gateway: Running) -> None:
    """One that is repeated after the end, because its answer got lost, wipes nothing."""
    headers = {**ALLOWED, "Idempotency-Key": "order 17"}
    gateway.post("/tasks/job-1", headers=headers)
    Reporter(gateway).events("Hi")
    Reporter(gateway).end()
    assert gateway.post("/tasks/job-1", headers=headers).json()["state"] == "succeeded"
    assert text(gateway) == "Hi"


# While it is produced


@pytest.mark.parametrize("kind", [TEXT, LINES])
def test_body_is_streamed_while_it_is_produced(gateway: Running, worker: Reporter, kind: str) -> None:
    """Followers have each piece before the worker has written the next one."""

    def wrapped(piece: str) -> str:
        return piece if kind == TEXT else json.dumps({"kind": "chunk", "text": piece}) + "\n"

    with watch(gateway) as viewer, worker.stream(kind) as sending:
        whole = ""
        for piece in ("Once ", "upon ", "a ", "time"):
            sending.write(wrapped(piece))
            whole += piece
            viewer.text_is(whole)
        assert sending.finish()["status"] == 200
        worker.end()
        assert viewer.to_end().view.state == "succeeded"


def test_task_begins_with_the_request(gateway: Running, worker: Reporter) -> None:
    """A body that says nothing yet is a worker that has begun."""
    with watch(gateway) as viewer, worker.stream() as sending:
        viewer.until(lambda v: v.view.state == "running")
        assert sending.finish()["status"] == 200


def test_text_is_cut_anywhere(gateway: Running, worker: Reporter) -> None:
    """A character whose bytes come one at a time is whole."""
    said = "aé😀z"
    with worker.stream() as sending:
        for n in range(len(said.encode())):
            sending.write(said.encode()[n : n + 1])
        sending.finish()
    assert text(gateway) == said


def test_signs_of_life_are_empty_lines(gateway: Running, worker: Reporter) -> None:
    """Empty lines say nothing and count nothing."""
    with worker.stream(LINES, batch=1) as sending:
        sending.write("\n\r\n").write('{"kind":"chunk","text":"a"}\r\n').write("  \n")
        assert sending.finish()["batch"] == 1
    assert text(gateway) == "a"


def test_much_text_goes_through_little_memory(gateway: Running, worker: Reporter) -> None:
    """A body of megabytes arrives, although a body that isn't a report's may have only one."""
    piece = "0123456789abcdef" * 4096
    with worker.stream() as sending:
        for _ in range(64):
            sending.write(piece)
        assert sending.finish()["status"] == 200
    assert text(gateway) == piece * 64


# Exactly once


def test_batch_that_is_repeated_counts_once(gateway: Running, worker: Reporter) -> None:
    """A worker that isn't sure sends the same batch again, also the end."""
    for _ in range(2):
        assert worker.events("one ", batch=1)["batch"] == 1
    for _ in range(2):
        assert worker.events("two", batch=2)["batch"] == 2
    assert worker.events("one ", batch=1)["status"] == 200
    for _ in range(2):
        assert worker.end({"result": 1}, batch=3)["state"] == "succeeded"
    assert text(gateway) == "one two"


def test_batch_that_skips_ahead_is_refused(gateway: Running, worker: Reporter) -> None:
    """409, with the number to go on from."""
    worker.events("one ", batch=1)
    answer = worker.events("three", batch=3)
    assert (answer["status"], answer["error"]["code"], answer["batch"]) == (409, "gap", 1)
    assert text(gateway) == "one "


def test_request_by_name_counts_once(gateway: Running) -> None:
    """An Idempotency-Key does for workers that don't count; events and the end may have the same."""
    anybody = Reporter(gateway)
    for _ in range(2):
        assert anybody.events("one ", headers={"Idempotency-Key": "k"})["status"] == 200
    for _ in range(2):
        assert anybody.end(headers={"Idempotency-Key": "k"})["state"] == "succeeded"
    assert text(gateway) == "one "


def test_without_a_name_it_is_what_is_sent(gateway: Running) -> None:
    """Who repeats a request that has neither number nor name says it twice."""
    for _ in range(2):
        Reporter(gateway).events("again ")
    assert text(gateway) == "again again "


@pytest.mark.parametrize("path", ["events?attempt=a1&bacth=1", "end?atempt=a1&batch=1", "?owner=ann"])
def test_misspelt_parameter_is_refused(gateway: Running, path: str) -> None:
    """Who relies on a number, and misspells it, would find out by text that stands there twice."""
    answer = gateway.post(f"/tasks/job-1/{path}".replace("/?", "?"), headers=ALLOWED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert gateway.get("/tasks/job-1/status").status_code == 404


@pytest.mark.parametrize("kind", [TEXT, LINES])
def test_body_that_broke_off_is_sent_again(gateway: Running, worker: Reporter, kind: str) -> None:
    """What came of it is there already, and isn't applied twice; the rest is."""
    pieces = ["é-one ", "two ", "thrée"]
    if kind == LINES:
        pieces = [json.dumps({"kind": "chunk", "text": piece}) + "\n" for piece in pieces]
    with worker.stream(kind, batch=1) as sending:
        sending.write(pieces[0] + pieces[1][:2])
        eventually(lambda: "one" in text(gateway))
    answer = worker.events("", batch=2)
    assert (answer["status"], answer["error"]["code"], answer["batch"]) == (409, "gap", 0)
    assert worker.events("".join(pieces), kind, batch=1)["batch"] == 1
    assert text(gateway) == "é-one two thrée"


def test_two_gateways_take_turns(redis_url: str, gateway: Running) -> None:
    """Each request may go to another gateway, also the repetition of one that the first has half read."""
    with running(redis_url, report_keys=KEY) as second:
        one, two = Reporter(gateway, attempt="a1"), Reporter(second, attempt="a1")
        for number in range(1, 20, 2):
            assert one.events(f"{number} ", batch=number)["batch"] == number
            assert two.events(f"{number + 1} ", batch=number + 1)["batch"] == number + 1
        said = "".join(f"{n} " for n in range(1, 21))
        with one.stream(batch=21) as sending:
            sending.write("tail and ")
            eventually(lambda: text(second) == said + "tail and ")
            assert two.events("tail and end", batch=21)["batch"] == 21
            sending.write("end")
            assert sending.finish()["batch"] == 21
        assert two.end(batch=22)["state"] == "succeeded"
        assert text(gateway) == text(second) == said + "tail and end"


def test_same_number_with_another_body_is_noticed(gateway: Running, worker: Reporter) -> None:
    """A body that is shorter than what is known of it can't be the same."""
    with worker.stream(batch=1) as sending:
        sending.write("a long text")
        eventually(lambda: text(gateway) == "a long text")
    answer = worker.events("a", batch=1)
    assert (answer["status"], answer["part"]) == (400, 11)
    assert text(gateway) == "a long text"


# Attempts, leases, cancels


def test_new_attempt_is_a_retry(gateway: Running) -> None:
    """The newest attempt has the task; the older one is told to stop, and nobody reads its text any more."""
    first, second = Reporter(gateway, attempt="a1"), Reporter(gateway, attempt="a2")
    first.events("old")
    assert second.events("new")["attempt"] == 2
    answer = first.events("late")
    assert (answer["status"], answer["error"]["code"]) == (409, "superseded")
    assert text(gateway) == "new"


def test_ended_task_takes_no_more(gateway: Running, worker: Reporter) -> None:
    """409 with the state it ended in; an end that is said again is no error; a new attempt begins anew."""
    worker.events("done")
    worker.end()
    answer = worker.events("more")
    assert (answer["status"], answer["error"]["code"], answer["state"]) == (409, "ended", "succeeded")
    assert worker.end({"state": "failed"})["state"] == "succeeded"
    assert Reporter(gateway).events("more")["error"]["code"] == "ended"
    assert Reporter(gateway, attempt="a2").events("anew")["attempt"] == 2
    assert text(gateway) == "anew"


def test_nobody_reports_into_a_workers_attempt(gateway: Running, writer: Writer) -> None:
    """A task that a worker has at Redis itself isn't to be written into from aside."""
    writer.open().text("its own")
    answer = Reporter(gateway).events("not its own")
    assert (answer["status"], answer["error"]["code"]) == (409, "taken")
    assert text(gateway) == "its own"


def test_cancel_is_told(gateway: Running, worker: Reporter) -> None:
    """Every answer says whether to stop; the worker has the last word, and ends as cancelled."""
    worker.events("so far")
    gateway.post("/tasks/job-1/cancel")
    assert worker.events()["cancel_requested"] is True
    assert worker.events(" and no further")["status"] == 200
    assert worker.end({"state": "cancelled"})["state"] == "cancelled"
    assert text(gateway) == "so far and no further"


def test_cancel_interrupts_a_body_that_wants_it(redis_url: str) -> None:
    """With until=cancel a body that goes on and on, or is silent, is answered when the task is to stop."""
    with running(redis_url, report_keys=KEY, cancel_check_seconds=0.05) as gateway:
        with Reporter(gateway, attempt="a1").stream(until="cancel") as sending:
            sending.write("so far")
            eventually(lambda: text(gateway) == "so far")
            gateway.post("/tasks/job-1/cancel")
            answer = sending.answer()
    assert (answer["status"], answer["error"]["code"]) == (409, "cancel_requested")


def test_cancelled_while_it_waited_it_isnt_begun(gateway: Running, worker: Reporter) -> None:
    """A worker that comes to a task which was cancelled in the queue is told so."""
    gateway.post("/tasks/job-1", headers=ALLOWED)
    gateway.post("/tasks/job-1/cancel")
    answer = worker.events("Hello")
    assert (answer["error"]["code"], answer["state"], answer["cancel_requested"]) == (
        "ended", "cancelled", True
    )  # fmt: skip


def test_lease_ends_a_task_whose_worker_is_gone(redis_url: str) -> None:
    """Asked for, it works as a worker's own does; a worker that comes back goes on where it was."""
    with running(redis_url, report_keys=KEY, lease_seconds=0.5) as gateway, watch(gateway) as viewer:
        worker = Reporter(gateway, attempt="a1")
        worker.events("part ", lease=0.5)
        viewer.until(lambda v: v.view.state == "failed").to_end()
        assert viewer.view.error is not None
        assert viewer.view.error["code"] == "worker_lost"
        assert worker.events("and the rest", lease=0)["state"] == "running"
        assert worker.end()["state"] == "succeeded"
        assert text(gateway) == "part and the rest"


def test_open_body_is_a_sign_of_life(redis_url: str, writer: Writer) -> None:
    """While a body is open and silent its lease is renewed; when its connection breaks it runs out."""
    with running(redis_url, report_keys=KEY, lease_seconds=0.5) as gateway, watch(gateway) as viewer:
        with Reporter(gateway, attempt="a1").stream(lease=0.5) as sending:
            sending.write("thinking …")
            viewer.text_is("thinking …")
            key = writer.keys.task("job-1")

            def lease() -> int:
                return int(writer.client.hget(key, "lease") or 0)

            first = lease()
            eventually(lambda: lease() > first + 1000)
            assert viewer.view.state == "running"
        viewer.until(lambda v: v.view.state == "failed")


# What is too much


def test_text_beyond_the_room_is_cut(redis_url: str) -> None:
    """As with the hook: the work goes on, the answer is cut at a character, and all are told."""
    with running(redis_url, report_keys=KEY, max_task_bytes=1024) as gateway:
        worker = Reporter(gateway, attempt="a1")
        worker.events("x" * 1000)
        answer = worker.events("é" * 100)
        assert (answer["status"], answer["truncated"]) == (200, True)
        assert worker.events({"kind": "chunk", "text": "no room"})["status"] == 200
        worker.events({"kind": "progress", "progress": 0.5})
        worker.end({"result": "done"})
        seen = view(gateway)
        assert (seen["text"], seen["progress"]) == ("x" * 1000 + "é" * 12, 0.5)
        assert (seen["truncated"], seen["result"]) == (True, "done")


def test_nothing_closes_up_to_a_cut(redis_url: str) -> None:
    """What follows it in the same body is left out, too, also where it alone would have had room."""
    with running(redis_url, report_keys=KEY, max_task_bytes=1024) as gateway:
        worker = Reporter(gateway, attempt="a1")
        worker.events("x" * 1000)
        texts = [{"kind": "chunk", "text": "y" * 100}, {"kind": "chunk", "text": "z", "field": "reasoning"}]
        assert worker.events([*texts, {"kind": "data", "name": "n", "value": 1}])["truncated"] is True
        seen = view(gateway)
        assert (seen["text"], seen["fields"], seen["data"]) == ("x" * 1000 + "y" * 24, {}, {})


def test_log_full_of_progress_still_ends(redis_url: str) -> None:
    """What has no room any more is left out, but never the end."""
    with running(redis_url, report_keys=KEY, max_task_bytes=1024) as gateway:
        worker = Reporter(gateway, attempt="a1")
        for n in range(60):
            assert worker.events({"kind": "progress", "message": f"step {n} " + "." * 50})["status"] == 200
        assert worker.end()["truncated"] is True
        assert view(gateway)["state"] == "succeeded"


def test_large_result_is_left_out(redis_url: str) -> None:
    """A result that is larger than a task may be doesn't keep the task from ending."""
    with running(redis_url, report_keys=KEY, max_task_bytes=1024) as gateway:
        Reporter(gateway).end({"result": "x" * 2000})
        assert (view(gateway)["result"], view(gateway)["truncated"]) == (None, True)


def test_long_text_is_split(gateway: Running, worker: Reporter, writer: Writer) -> None:
    """A chunk in the log has at most 64 KiB, however it was sent."""
    worker.events({"kind": "chunk", "text": "é" * 100_000})
    chunks = [entry.event for entry in writer.log() if isinstance(entry.event, Chunk)]
    assert [len(chunk.text) for chunk in chunks] == [32768, 32768, 32768, 1696]


def test_line_and_json_have_a_limit(redis_url: str) -> None:
    """413; what came before the line is in the log, and the worker is told how far that is."""
    with running(redis_url, report_keys=KEY, max_body_bytes=1000) as gateway:
        worker = Reporter(gateway, attempt="a1", batch=1)
        line = '{"kind":"chunk","text":"fine"}\n'
        answer = worker.events(line * 100 + '{"kind":"chunk","text":"' + "x" * 1000 + '"}\n', LINES)
        assert (answer["status"], answer["error"]["code"], answer["part"]) == (413, "too_large", 100)
        assert text(gateway) == "fine" * 100
        assert worker.events([{"kind": "chunk", "text": "x" * 1000}])["status"] == 413
        assert worker.end({"result": "x" * 1000})["status"] == 413
