"""Reporting without the key, with half of one, from a page, and with bodies that are meant to hurt."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

import pytest

from bridge.errors import SettingsError
from bridge.gateway.auth.reports import ReportKeys
from bridge.gateway.limits import WINDOW_SECONDS
from bridge.settings import Settings
from bridge.tickets import ticket
from tests.credentials import SECRET, TICKET_KEY, bearer, token
from tests.gateway.reports.reporter import ALLOWED, KEY, TEXT, Reporter
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer
from tests.waiting import eventually

PATHS = ("/tasks/job-1/events", "/tasks/job-1/end", "/tasks/job-1")
OLD = "the key from before, which is long".replace(" ", "_")


@pytest.fixture
def untouched(redis_url: str, writer: Writer) -> Any:
    """Fails if the test leaves anything of a task in Redis."""
    yield
    assert writer.client.keys(f"*{{{writer.task_id}}}*") == []


@pytest.mark.usefixtures("untouched")
def test_report_where_reporting_is_off(gateway: Running) -> None:
    """Nobody reports before somebody has set a key, also on loopback: 403 that says which setting."""
    for path in PATHS:
        for headers in ({}, ALLOWED, {"Authorization": "Bearer"}):
            answer = gateway.post(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "reporting_off")
            assert "BRIDGE_REPORT_KEYS" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("path", PATHS)
def test_report_with_other_credentials(redis_url: str, path: str) -> None:
    """Neither a user's token, nor a ticket for this task, nor a cookie, nor part of the key, nor none."""
    tickets = Settings(ticket_keys=TICKET_KEY)
    granted = ticket("job-1", actions=("read", "cancel"), settings=tickets)
    bad: list[dict[str, str]] = [
        {}, bearer(token(sub="ann")), bearer(granted), {"Cookie": f"s={KEY}"}, {"Cookie": f"s={granted}"},
        bearer(KEY[:-1]), bearer(KEY + "x"), bearer(KEY.upper()), bearer(f"{KEY} {KEY}"),
        {"Authorization": "Bearer"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"},
        {"X-Report-Key": KEY},
        bearer(TICKET_KEY), bearer(SECRET),
    ]  # fmt: skip
    settings: dict[str, Any] = {
        "auth": "jwt",
        "jwt_keys": SECRET,
        "ticket_keys": TICKET_KEY,
        "jwt_cookie": "s",
    }
    with running(redis_url, report_keys=KEY, **settings) as gateway:
        for headers in bad:
            answer = gateway.post(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert gateway.post(f"{path}?ticket={granted}").status_code == 401
        twice = b"POST %s HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer %s\r\n" % (path.encode(), KEY.encode())
        twice += b"Authorization: Bearer x\r\nContent-Length: 0\r\n\r\n"
        with Viewer(gateway, "", raw=twice) as viewer:
            assert viewer.head().status == 401


def test_key_lets_nobody_read(redis_url: str, writer: Writer) -> None:
    """A worker that was taken over writes tasks, but sees nobody's, and cancels none."""
    writer.create("ann")
    writer.open().text("private")
    with running(redis_url, auth="jwt", jwt_keys=SECRET, report_keys=KEY) as gateway:
        for path in ("/tasks/job-1/status", "/tasks/job-1/events"):
            assert gateway.get(path, headers=ALLOWED).status_code == 401
        assert gateway.post("/tasks/job-1/cancel", headers=ALLOWED).status_code == 401


def test_keys_are_exchanged(redis_url: str) -> None:
    """With two both are valid, until the old one is taken away."""
    for keys, statuses in ((f"{KEY} {OLD}", (200, 200)), (KEY, (200, 401))):
        with running(redis_url, report_keys=keys) as gateway:
            for key, status in zip((KEY, OLD), statuses, strict=True):
                assert gateway.post(PATHS[0], headers=bearer(key)).status_code == status


@pytest.mark.parametrize("keys", ["short", f"{KEY} short", f"{KEY} {OLD} {OLD}x"])
def test_key_that_can_be_guessed(keys: str) -> None:
    """A short one is refused at the start, and never repeated in the error."""
    with pytest.raises(SettingsError) as caught:
        Settings(report_keys=keys)
    assert "short" not in str(caught.value)
    assert repr(Settings(report_keys=KEY)).find(KEY) == -1


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"}, {"Origin": "null"},
    ],
)  # fmt: skip
def test_cross_site_report(redis_url: str, headers: dict[str, str]) -> None:
    """A page of another site doesn't report, not even one that got hold of the key."""
    with running(redis_url, report_keys=KEY) as gateway:
        for path in PATHS:
            answer = gateway.post(path, headers={**ALLOWED, **headers})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")


def test_body_before_the_key_was_looked_at(redis_url: str) -> None:
    """Who asks whether to send a body is told 401 instead of yes."""
    head = "POST /tasks/job-1/events HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
    with running(redis_url, report_keys=KEY) as gateway:
        with Viewer(gateway, "", raw=f"{head}Expect: 100-continue\r\n\r\n".encode()) as viewer:
            assert viewer.head().status == 401
        allowed = f"{head}Authorization: Bearer {KEY}\r\nExpect: 100-continue\r\n\r\n".encode()
        with Viewer(gateway, "", raw=allowed) as viewer:
            assert viewer.head().status == 100


@pytest.mark.parametrize("key", ["", "Authorization: Bearer wrong\r\n"])
def test_large_and_slow_bodies_without_the_key(redis_url: str, key: str) -> None:
    """They have the limits of all requests: an endless body is cut, and so is one that comes drop by drop."""
    head = f"POST /tasks/job-1/events HTTP/1.1\r\nHost: t\r\n{key}Transfer-Encoding: chunked\r\n\r\n".encode()
    with running(redis_url, report_keys=KEY, request_seconds=0.2, max_body_bytes=10_000) as gateway:
        for piece in (b"1\r\nx\r\n", b"1000\r\n" + b"x" * 0x1000 + b"\r\n"):
            with Viewer(gateway, "", raw=head) as viewer:
                assert viewer.head().status == 401
                eventually(lambda piece=piece, end=viewer.socket: _is_cut(end, piece))  # type: ignore[misc]  # mypy can't see the types of defaults
        eventually(lambda: gateway.connections() == 0)


def _is_cut(end: socket.socket, piece: bytes) -> bool:
    try:
        end.sendall(piece)
    except OSError:
        return True
    return False


def test_key_is_good_for_reports_only(redis_url: str) -> None:
    """Other requests that carry it have the limits of all requests once they are answered."""
    with running(redis_url, report_keys=KEY, request_seconds=0.2) as gateway:
        head = (
            f"POST /nowhere HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9\r\n\r\n"
        )
        with Viewer(gateway, "", raw=head.encode()) as viewer:
            assert viewer.head().status == 404
            eventually(lambda: gateway.connections() == 0)


def test_crowd_of_reports_from_one_address(redis_url: str) -> None:
    """429 with the time to come back, also for those who only guess keys; polls have a limit of their own."""
    settings: dict[str, Any] = {"reports_per_second": 1, "unlimited_addresses": ""}
    with running(redis_url, report_keys=KEY, **settings) as gateway:
        for _ in range(WINDOW_SECONDS):
            assert gateway.post(PATHS[0], headers=bearer("a guess")).status_code == 401
        answer = gateway.post(PATHS[0], headers=ALLOWED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many")
        assert 1 <= int(answer.headers["retry-after"]) <= WINDOW_SECONDS
        assert gateway.get("/tasks/job-1/status").status_code == 404


def test_key_in_logs_and_answers(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the finest level of every log no part of it can be found, nor in what is answered."""
    caplog.set_level(logging.DEBUG)
    with running(redis_url, report_keys=KEY) as gateway:
        worker = Reporter(gateway, attempt="a1", batch=1)
        answers = [worker.events("Hi"), worker.events("Hi", batch=9), worker.end({"state": 5})]
        answers.append(gateway.post(PATHS[0], headers=bearer(KEY[:-1])).json())
    for said in (caplog.text, json.dumps(answers)):
        assert KEY[:12] not in said


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/job%7D1/events", "/tasks/job%0a1/events", "/tasks/job%001/events", "/tasks/%2e%2e/events",
        "/tasks/job-1/events?attempt=a%20b", "/tasks/job-1/events?attempt=a%0a",
        "/tasks/job-1/events?attempt=~1",
        "/tasks/job-1/events?attempt=a&batch=1%00", "/tasks/job-1/events?lease=1%20PX",
        "/tasks/job-1/events?field=%0aid:%201", "/tasks/" + "x" * 201 + "/events",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untouched")
def test_names_that_would_be_more(redis_url: str, path: str) -> None:
    """What could end a word, a line or a key in Redis is refused before it gets there."""
    with running(redis_url, report_keys=KEY) as gateway:
        answer = gateway.post(path, headers={**ALLOWED, "Content-Type": TEXT}, content="text")
        assert answer.status_code == 400


def test_text_that_would_be_more(redis_url: str) -> None:
    """Text that looks like frames, lines of the log or JSON is text."""
    text = 'a\n\nevent: end\ndata: {}\n\n","field":"x\x00\x1e\u2028 state {}\r\n0-1\nchunk {"text":"b"}'
    with running(redis_url, report_keys=KEY) as gateway, Viewer(gateway, PATHS[0]) as viewer:
        worker = Reporter(gateway)
        worker.events(text)
        worker.events({"kind": "chunk", "text": text, "field": 'f"\\/{}'})
        worker.end({"state": "failed", "error": {"code": 'c"\\', "message": text}})
        viewer.to_end()
        assert (viewer.view.text, viewer.view.fields) == (text, {'f"\\/{}': text})
        assert viewer.view.error == {"code": 'c"\\', "message": text}
        assert json.loads(viewer.frames[-1].data)["length"] == {
            name: len(text.encode()) for name in ("text", 'f"\\/{}')
        }


def test_compressed_bomb(redis_url: str) -> None:
    """A body that would unfold is refused: nothing here unfolds any."""
    with running(redis_url, report_keys=KEY) as gateway:
        answer = Reporter(gateway).events("x", headers={"Content-Encoding": "gzip"})
        assert (answer["status"], answer["error"]["code"]) == (415, "unsupported_type")


def test_key_is_compared_whole() -> None:
    """Only the whole header with the whole key; the scheme in any case, as RFC 9110 has it."""
    keys = ReportKeys(Settings(report_keys=f"{KEY} {OLD}"))
    assert bool(keys)
    assert not ReportKeys(Settings())
    for value in (f"Bearer {KEY}", f"bearer {OLD}", f"BEARER  {KEY} "):
        assert keys.admit([(b"host", b"t"), (b"authorization", value.encode())])
    for value in (
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Bearer{KEY}",
        f"Bearer {KEY},{OLD}",
        f"Bearer\t{KEY}",
        "\xff",
    ):
        assert not keys.admit([(b"authorization", value.encode("latin-1"))])
    assert not ReportKeys(Settings()).admit([(b"authorization", b"Bearer ")])
