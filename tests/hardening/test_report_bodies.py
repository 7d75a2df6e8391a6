"""Reports over HTTP by a worker that has the key: bodies without measure, and what is no JSON.

Whoever has the key may write any text into any task. Not even they take the gateway down, put anything into
the log that isn't an event, or get an answer that is an error of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.reports.reporter import ALLOWED, JSON, KEY, LINES, TEXT, Reporter, Sending
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

LIMIT = 100_000


@pytest.fixture
def open_gateway(redis_url: str) -> Iterator[Running]:
    """A gateway that takes reports, with a stream on it that must not notice anything."""
    with (
        running(redis_url, report_keys=KEY, max_body_bytes=LIMIT, report_idle_seconds=1.0) as gateway,
        Writer(redis_url, "bystander", lease_ms=0) as writer,
        watch(gateway, "bystander") as viewer,
    ):
        writer.open().text("before ")
        viewer.text_is("before ")
        yield gateway
        writer.text("and after")
        viewer.text_is("before and after")
        # On a busy machine it may just then wait for a probe.
        eventually(lambda: gateway.get("/readyz").status_code == 200)


def value(text: bytes) -> bytes:
    """A `data` event with this value, as it is."""
    return b'{"kind":"data","name":"n","value":' + text + b"}"


NO_JSON: dict[str, bytes] = {
    "depth of lists that never end": b"[" * 50_000,
    "depth of objects that never end": b'{"kind":' * 10_000,
    "depth of lists": value(b"[" * 20_000 + b"]" * 20_000),
    "depth just too deep": value(b"[" * 102 + b"]" * 102),
    "a number of too many digits": value(b"9" * 5000),
    "a number beyond all": value(b"1e999999999"),
    "NaN": value(b"NaN"),
    "Infinity": value(b"-Infinity"),
    "half a character": value(b'"\\ud800"'),
    "no UTF-8": value(b'"\xff\xfe"'),
    "UTF-16": value(b"1").decode().encode("utf-16"),
    "a raw NUL": value(b'"\x00"'),
    "half an object": value(b"1")[:-1],
    "more than a value": value(b"1") + value(b"2"),
    "no object": b'"chunk"',
    "a kind of ours": b'{"kind":"end","state":"succeeded"}',
    "a kind of the browser's": b'{"kind":"error"}',
    "a kind with a line end": b'{"kind":"chunk\\nevent: end","text":"a"}',
    "a kind that is none": b'{"kind":["chunk"],"text":"a"}',
    "a position": b'{"kind":"chunk","text":"a","id":"1-1","at":1}',
    "a progress beyond all": b'{"kind":"progress","progress":1e300}',
    "a prototype": b'{"__proto__":{"kind":"chunk","text":"a"}}',
}


@pytest.mark.parametrize("kind", [JSON, LINES])
def test_json_depth_and_numbers_in_reports(open_gateway: Running, kind: str) -> None:
    """400 in the one shape, and nothing of it in the task: alone, and in an array behind a good one."""
    worker = Reporter(open_gateway, attempt="a")
    worker.events("good")
    for name, body in NO_JSON.items():
        bodies = [body] if kind == LINES else [body, b"[" + value(b"1") + b"," + body + b"]"]
        for one in bodies:
            answer = worker.events(one, kind)
            assert answer["status"] == 400, (name, answer)
            assert answer["error"]["code"] in ("bad_event", "bad_request"), name
    view = open_gateway.get("/tasks/job-1/status").json()
    assert (view["text"], view["data"], view["state"]) == ("good", {}, "running")


NO_ENDS = [
    b"[" * 50_000, b'{"result":' * 9000, b'{"result":' + b"9" * 5000 + b"}", b'{"result":NaN}',
    b'{"usage":[1]}', b'{"state":"queued"}', b'{"error":{"code":"worker_lost"},"state":"failed"}',
    b'{"length":{"text":99}}', b"\xff", b"null null",
]  # fmt: skip


def test_json_without_measure_in_ends(open_gateway: Running) -> None:
    """What is no end ends nothing."""
    worker = Reporter(open_gateway, attempt="a")
    worker.events("good")
    for body in NO_ENDS:
        headers = {**ALLOWED, "Content-Type": JSON}
        answer = open_gateway.post("/tasks/job-1/end?attempt=a", content=body, headers=headers)
        assert answer.status_code == 400, (body[:40], answer.text)
    assert open_gateway.get("/tasks/job-1/status").json()["state"] == "running"
    assert worker.end()["state"] == "succeeded"


def test_a_line_that_never_ends(open_gateway: Running) -> None:
    """413 as soon as it is longer than a line may be; what came before it counts."""
    with Reporter(open_gateway, attempt="a").stream(LINES) as sending:
        sending.write(b'{"kind":"chunk","text":"good"}\n{"kind":"chunk","text":"')
        for _ in range(2 * LIMIT // 5000):
            sending.write(b"x" * 5000)
        answer = sending.answer()
    assert (answer["status"], answer["error"]["code"]) == (413, "too_large")
    assert open_gateway.get("/tasks/job-1/status").json()["text"] == "good"


def test_bodies_that_fall_silent(open_gateway: Running) -> None:
    """A crowd of them, in the midst of a line, of a character or of a list, is sent away; none holds its task
    back, nor its connection.
    """
    before = open_gateway.connections()
    kinds = [(TEXT, b"\xe2\x82"), (LINES, b'{"kind":'), (JSON, b"[")]
    begun: list[Sending] = []
    for number in range(30):
        kind, begins = kinds[number % len(kinds)]
        begun.append(Reporter(open_gateway, f"silent-{number}", attempt="a").stream(kind).write(begins))
    for sending in begun:
        with sending:
            answer = sending.answer()
        assert (answer["status"], answer["error"]["code"]) == (408, "too_slow")
    eventually(lambda: open_gateway.connections() == before)
    for number in range(30):
        assert Reporter(open_gateway, f"silent-{number}", attempt="a").end()["state"] == "succeeded"


def test_a_body_that_lies_about_its_length(open_gateway: Running) -> None:
    """More than was said is the next request, and no HTTP; less is silence. No more gets into the text."""
    head = "POST /tasks/job-1/events?attempt=a HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\n"
    head += f"Authorization: Bearer {KEY}\r\n"
    with Viewer(open_gateway, "", raw=f"{head}Content-Length: 4\r\n\r\ngoodEVIL".encode()) as more:
        assert more.to_end().status in (200, 400)
    with Viewer(open_gateway, "", raw=f"{head}Content-Length: 400\r\n\r\n more".encode()) as less:
        assert less.to_end().status == 408
    assert open_gateway.get("/tasks/job-1/status").json()["text"] in ("good more", " more")


@pytest.mark.parametrize(
    "kind",
    ["", "text/html", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "*/*",
     "text/plain; charset=utf-16", "application/xml", "text/event-stream", "text/plain, application/json"],
)  # fmt: skip
def test_reports_of_a_wrong_type(open_gateway: Running, kind: str) -> None:
    """What a form of any site could send, and what could be read in two ways, is no report."""
    headers = {**ALLOWED, "Content-Type": kind} if kind else ALLOWED
    for path in ("events", "end"):
        body = b'{"kind":"chunk","text":"a"}'
        answer = open_gateway.post(f"/tasks/job-1/{path}", content=body, headers=headers)
        assert answer.status_code == 415, answer.text
        assert answer.json()["error"]["code"] == "unsupported_type"
    assert "a" not in open_gateway.get("/tasks/job-1/status").json().get("text", "")


NAMES = st.sampled_from(["kind", "text", "field", "name", "value", "progress", "state", "error"])
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    what=st.sampled_from(["events", "end"]),
    kind=st.sampled_from([TEXT, JSON, LINES]),
    body=st.binary(max_size=60) | JSONISH.map(lambda one: json.dumps(one).encode()),
    query=st.dictionaries(
        st.sampled_from(["attempt", "batch", "lease", "field", "until"]), st.text(max_size=8), max_size=2
    ),
)
def test_no_report_is_a_server_error(
    open_gateway: Running, what: str, kind: str, body: bytes, query: dict[str, str]
) -> None:
    """For all bodies, types and parameters the answer is one of those that are documented."""
    headers = {**ALLOWED, "Content-Type": kind}
    answer = open_gateway.post(f"/tasks/job-1/{what}", params=query, content=body, headers=headers)
    assert answer.status_code in (200, 400, 409, 413, 415), answer.text
    assert isinstance(answer.json(), dict)
    assert open_gateway.get("/tasks/job-1/status").status_code in (200, 404)
