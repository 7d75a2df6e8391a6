"""Text that would be more than text, in logs and in the names of keys; ids and JSON without measure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.demo.routes import demo_routes
from bridge.errors import InvalidTaskId
from bridge.events import TASK_ID, check_task_id
from bridge.settings import Settings
from bridge.store.keys import Keys
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer
from tests.waiting import eventually

TASK_IDS = st.from_regex(TASK_ID, fullmatch=True)
EVIL = "evil-93c1"
INJECTIONS = [
    f"x\r\nERROR bridge.gateway {EVIL}", f"x\n{EVIL}", f"\x1b[2J\x1b[31m{EVIL}", f"\x00{EVIL}",
    f"\u2028{EVIL}", f"\x85{EVIL}", f"%(asctime)s{EVIL}", f"{{0}}{EVIL}", f"${{jndi:ldap://{EVIL}/a}}",
    f"\u202e{EVIL}", f"\x08{EVIL}", f'","level":"error","x":"{EVIL}',
]  # fmt: skip


# --- logs -----------------------------------------------------------------------------------------------


def test_log_injection(gateway: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it gets into the log, wherever in a request it stands: not even where it does no harm."""
    caplog.set_level(logging.DEBUG)
    for text in INJECTIONS:
        encoded, latin = quote(text), text.encode("utf-8")
        for path in (
            f"/tasks/{encoded}/events",
            f"/tasks/{encoded}/status",
            f"/{encoded}",
            f"/healthz?{encoded}",
        ):
            gateway.get(path)
        for query in ("after", "wait", "task_id", "ticket"):
            gateway.get(f"/tasks/nobody/status?{query}={encoded}")
        for name in (b"User-Agent", b"Referer", b"X-Forwarded-For", b"Authorization", b"Cookie", b"Origin",
                     b"Last-Event-ID", b"If-None-Match", b"Host", EVIL.encode()):  # fmt: skip
            raw = b"GET /tasks/nobody/status HTTP/1.1\r\nHost: test\r\n" + name + b": " + latin + b"\r\n\r\n"
            with Viewer(gateway, "", raw=raw) as viewer:
                viewer.to_end()
        with Viewer(gateway, "", raw=latin + b"\r\n\r\n") as viewer:
            viewer.to_end()
    said = [record for record in caplog.records if record.name.startswith(("bridge", "uvicorn", "asyncio"))]
    assert [line for line in map(logging.LogRecord.getMessage, said) if not line.isprintable()] == []
    # The server's own access log is switched off; pytest hears it all the same.
    ours = [record.getMessage() for record in said if record.name != "uvicorn.access"]
    assert [line for line in ours if EVIL in line] == []


# --- answers --------------------------------------------------------------------------------------------

CRLF = [
    "%0d%0aX-Injected:%20yes", "%0aX-Injected:%20yes", "%0d%0a%0d%0a<p>", "%0dX-Injected:%20yes",
    "%250d%250aX-Injected:%20yes", "%E5%98%8D%E5%98%8AX-Injected:%20yes", "%C4%8D%C4%8AX-Injected:%20yes",
    "%u000d%u000aX-Injected:%20yes", "%C0%8AX-Injected:%20yes",
]  # fmt: skip
"""Line ends, and what becomes such where somebody decodes twice, loosely, or cuts characters to a byte."""


@pytest.mark.parametrize("ends", CRLF)
def test_crlf_in_ids(gateway: Running, ends: str) -> None:
    """Nothing of an id, a position, a tag or a query becomes a line of the answer; there is one answer."""
    for path in (
        f"/tasks/job-1{ends}/status", f"/status/{ends}", f"/status?task_id=job-1{ends}",
        f"/tasks/{ends}/cancel", f"/tasks/job-1{ends}/events", f"/tasks/nobody/events?after=1-1{ends}",
        f"/tasks/nobody/status?wait={ends}", f"/{ends}", f"/bridge.js{ends}", f"/healthz?{ends}",
    ):  # fmt: skip
        with Viewer(gateway, path, headers={"Connection": "close", "If-None-Match": f'"{ends}"'}) as viewer:
            viewer.to_end()
        assert viewer.status in (200, 400, 404, 405), path
        head = viewer.received.partition(b"\r\n\r\n")[0].lower()
        assert b"injected" not in head
        assert viewer.received.count(b"HTTP/1.1 ") == 1


def test_crlf_in_ids_as_they_are(gateway: Running) -> None:
    """Bare ones end the line: what follows is a header like others, or no HTTP; no second answer comes."""
    for line in (b"/tasks/a\r\nX-Injected: yes", b"/tasks/a\nX-Injected: yes", b"/tasks/a\rX/status"):
        raw = b"GET " + line + b"/status HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        with Viewer(gateway, "", raw=raw) as viewer:
            viewer.to_end()
        assert viewer.status in (400, 404, 405)
        assert viewer.received.count(b"HTTP/1.1 ") == 1


# --- Redis ----------------------------------------------------------------------------------------------

KEY_INJECTIONS = [
    "*", "job-?", "[a-z]*", "{job-1}", "}:task", "a}:log{b", "job-1\r\nFLUSHALL\r\n", "a\tb", "'; DROP", '"',
    "job-1\r\n$8\r\nFLUSHALL", "job-1 EX 1", "job-1\x00", "../job-1", "bridge:{job-1}:task", "$(id)", "`id`",
    "a/b", "job-1\\r\\n",
]  # fmt: skip


@pytest.mark.parametrize("task_id", KEY_INJECTIONS)
def test_redis_key_injection(gateway: Running, redis_client: redis.Redis, task_id: str) -> None:
    """Ids that mean something in a key, a pattern or the protocol are refused; no key changes."""
    redis_client.set("bystander", "untouched", ex=60)
    before = sorted(redis_client.keys())
    encoded = quote(task_id, safe="")
    for path in (f"/tasks/{encoded}/status", f"/status?task_id={encoded}", f"/tasks/{encoded}/events"):
        assert gateway.get(path).status_code in (400, 404)
    assert gateway.post(f"/tasks/{encoded}/cancel").status_code in (400, 404)
    assert sorted(redis_client.keys()) == before
    redis_client.delete("bystander")


@given(TASK_IDS, TASK_IDS)
def test_two_tasks_share_no_key(one: str, other: str) -> None:
    """No id is so made that its keys are another task's; and all keys of one task are of one cluster slot."""
    keys = Keys.from_settings(Settings(), 0)
    for task_id in (one, other):
        tags = {key.partition("{")[2].partition("}")[0] for key in (keys.task(task_id), keys.log(task_id))}
        assert tags == {task_id}
    if one != other:
        names = [{keys.task(name), keys.log(name), keys.channel(name)} for name in (one, other)]
        assert names[0].isdisjoint(names[1])


@given(st.text(max_size=250))
def test_what_passes_for_an_id(text: str) -> None:
    """Only letters, digits and five signs of ASCII, not too many, and no steps in a path."""
    good = 1 <= len(text) <= 200 and all(c.isascii() and (c.isalnum() or c in "._:~-") for c in text)
    if good and text not in (".", ".."):
        assert check_task_id(text) == text
    else:
        with pytest.raises(InvalidTaskId):
            check_task_id(text)


# --- without measure ------------------------------------------------------------------------------------


def test_huge_ids(gateway: Running) -> None:
    """The longest there are, thousands of them, of tasks that don't exist: none is kept in memory."""
    for number in range(300):
        task_id = f"{number:0>200}"
        assert gateway.get(f"/tasks/{task_id}/status").status_code == 404
        assert gateway.get(f"/tasks/x{task_id}/status").status_code == 400
    eventually(lambda: gateway.inside(lambda: not gateway.hub._channels))


JSON_WITHOUT_MEASURE: dict[str, bytes] = {
    "depth of lists": b"[" * 900,
    "depth of objects": b'{"kind":' * 120,
    "a list that ends": b"[" * 400 + b"]" * 400,
    "a number of many digits": b'{"kind":' + b"9" * 950 + b"}",
    "a number beyond all": b'{"kind":1e999999}',
    "a number below all": b'{"kind":-1e-999999}',
    "NaN": b'{"kind":NaN}',
    "half a character": b'{"kind":"\\ud800"}',
    "a NUL": b'{"kind":"\\u0000"}',
    "twice": b'{"kind":"nothing","kind":"more"}',
    "no UTF-8": b'{"kind":"\xff"}',
    "UTF-16": '{"kind":"x"}'.encode("utf-16"),
    "nothing": b"",
    "no object": b'"kind"',
    "a prototype": b'{"__proto__":{"kind":"answer"}}',
    "a wrong type": b'{"kind":{"kind":"answer"}}',
}


class NoWorkers:
    """Starts nothing; a test that makes it start something fails."""

    settings = Settings()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the demonstration was asked for {name}")


@pytest.fixture
def demo(redis_url: str) -> Iterator[Running]:
    """A gateway with the demonstration's routes."""
    with running(redis_url, extra_routes=demo_routes(NoWorkers())) as one:  # type: ignore[arg-type] # as it says
        yield one


@pytest.mark.parametrize("body", JSON_WITHOUT_MEASURE.values(), ids=JSON_WITHOUT_MEASURE)
def test_json_depth_and_numbers(demo: Running, body: bytes) -> None:
    """Refused as a wrong request, in the shape of all errors; never an error of ours."""
    answer = demo.post("/demo/tasks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"


def test_json_of_any_size(demo: Running) -> None:
    """Refused before it is read to the end."""
    for size in (10_000, 500_000, 2 * Settings().max_body_bytes):
        answer = demo.post("/demo/tasks", content=b" " * size, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
