"""Somebody else's task: nobody finds out that it exists, let alone what is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bridge.settings import Settings
from bridge.tickets import ticket
from tests.credentials import SECRET, TICKET_KEY, bearer, token
from tests.elsewhere import Asked, Said, elsewhere
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer
from tests.waiting import eventually

STATUS, EVENTS, CANCEL = "/tasks/job-1/status", "/tasks/job-1/events", "/tasks/job-1/cancel"
ANN, BOB = bearer(token(sub="ann")), bearer(token(sub="bob"))
BOTH = ("read", "cancel")
TICKETS = Settings(ticket_keys=TICKET_KEY)
QUICK: dict[str, Any] = {"unknown_task_wait_seconds": 0.1, "heartbeat_seconds": 600.0, "linger_seconds": 0.2}
PATIENT: dict[str, Any] = {"unknown_task_wait_seconds": 3.0, "heartbeat_seconds": 600.0}
"""Where one waits for a task that must come before that is over, and another must be sent away in the end."""

REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("GET", STATUS, {}),
    ("HEAD", STATUS, {}),
    ("GET", "/status/job-1", {}),
    ("GET", "/status?task_id=job-1", {}),
    ("GET", STATUS, {"If-None-Match": '"POSITION"'}),
    ("GET", f"{STATUS}?after=0", {}),
    ("GET", f"{STATUS}?after=POSITION", {}),
    ("GET", f"{STATUS}?after=x", {}),
    ("GET", f"{STATUS}?wait=0.1", {}),
    ("GET", f"{STATUS}?wait=1&after=0", {}),
    ("GET", f"{STATUS}?wait=1&after=POSITION", {}),
    ("GET", f"{STATUS}?wait=1", {"If-None-Match": '"POSITION"'}),
    ("GET", EVENTS, {}),
    ("HEAD", EVENTS, {}),
    ("GET", EVENTS, {"Last-Event-ID": "POSITION"}),
    ("GET", EVENTS, {"Last-Event-ID": "0-1"}),
    ("GET", EVENTS, {"Last-Event-ID": "1-1"}),
    ("GET", EVENTS, {"Last-Event-ID": "9999999999999-1"}),
    ("GET", f"{EVENTS}?after=POSITION", {}),
    ("GET", f"{EVENTS}?after=0-1", {}),
    ("GET", f"{EVENTS}?after=x", {}),
    ("POST", CANCEL, {}),
    ("GET", CANCEL, {}),
    ("OPTIONS", STATUS, {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}),
]


@pytest.fixture
def guarded(redis_url: str) -> Iterator[Running]:
    """A gateway that knows users and tickets, and waits shortly for unknown tasks."""
    with running(redis_url, auth="jwt", jwt_keys=SECRET, ticket_keys=TICKET_KEY, **QUICK) as one:
        yield one


def bytes_of(gateway: Running, method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """All that comes back, without the date and with the jitter of `retry:` taken out."""
    with Viewer(gateway, path, method=method, headers=headers) as viewer:
        received = viewer.to_end().received
    return re.sub(rb"(?m)^(date|retry): .*$", rb"\1: ?", received)


def compare(gateway: Running, position: str, headers: Mapping[str, str], *, owner: bool = False) -> None:
    """Each request about job-1 is answered as one about job-0, which nobody has ever heard of; for the owner
    it isn't, or this would prove nothing.
    """
    for method, path, own in REQUESTS:
        answers = []
        for task in ("job-1", "job-0"):
            named = {name: value.replace("POSITION", position) for name, value in own.items()}
            url = path.replace("POSITION", position).replace("job-1", task)
            answers.append(bytes_of(gateway, method, url, {**headers, **named}))
        if not owner:
            assert answers[0] == answers[1], (method, path, own)
        elif method == "GET" and "x" not in path and path != CANCEL:
            assert answers[0] != answers[1] or own.get("Last-Event-ID") == "0-1", (method, path, own)


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "failed", "cancelled"])
def test_another_users_task(guarded: Running, writer: Writer, state: str) -> None:
    """In every state, by every request, with every position, byte for byte as if it weren't there. Nor does
    anything happen to it.
    """
    position = str(bring_to(writer, state))
    before = guarded.get(STATUS, headers=ANN).json()
    compare(guarded, position, BOB)
    # Nor does waiting tell: this would be given up sooner than in a minute.
    assert guarded.get(f"{STATUS}?wait=60&after={position}", headers=BOB).status_code == 404
    assert guarded.get(STATUS, headers=ANN).json() == before


def bring_to(writer: Writer, state: str) -> object:
    """Ann's task in that state, and its newest position."""
    answer = writer.create("ann")
    if state != "queued":
        writer.open()
        answer = writer.text("private")
    if state in ("succeeded", "failed"):
        answer = writer.end(state)
    if state == "cancelled":
        answer = writer.end("cancelled")
    return answer.position


def test_the_owner_is_told_something_else(guarded: Running, writer: Writer) -> None:
    """Or the comparison above would prove nothing."""
    position = str(bring_to(writer, "succeeded"))
    compare(guarded, position, ANN, owner=True)


def test_a_task_that_nobody_announced(guarded: Running, writer: Writer) -> None:
    """It is nobody's, so no user sees it, not even one without a name."""
    position = str(writer.open().text("private").position)
    for sub in ("ann", "None"):
        compare(guarded, position, bearer(token(sub=sub)))


@pytest.mark.parametrize(
    "claim",
    [
        {"tasks": ["job-2"], "actions": ["read", "cancel"]},
        {"tasks": [], "actions": ["read", "cancel"]},
        {"tasks": ["*", "job-1"], "actions": []},
        {"tasks": ["job-1"], "actions": ["read", "cancel"], "owner": "bob"},
        {"tasks": ["job-1", "job-0"], "actions": ["write"]},
    ],
)
def test_a_token_for_something_else(guarded: Running, writer: Writer, claim: dict[str, Any]) -> None:
    """A valid one, that doesn't grant this: also where the owner that it names is another."""
    position = str(bring_to(writer, "succeeded"))
    compare(guarded, position, bearer(token(sub="ann", bridge=claim)))


def test_an_app_that_says_no(redis_url: str, writer: Writer) -> None:
    """403 and 404 of the app's become the same, which is that there is no such task."""
    position = str(bring_to(writer, "succeeded"))

    def answer(asked: Asked) -> Said:
        return Said(403 if asked.headers["x-bridge-task"] == "job-1" else 404)

    with (
        elsewhere(answer) as app,
        running(redis_url, auth="forward", forward_url=app.url, **QUICK) as gateway,
    ):
        compare(gateway, position, {"Cookie": "session=1"})


def test_names_that_look_alike(guarded: Running, writer: Writer) -> None:
    """Owners are compared letter by letter."""
    position = str(bring_to(writer, "running"))
    for sub in ("Ann", "ann ", " ann", "ann\u200b", "аnn", "an", "ann2", "ann\x00", "*", "ANN"):
        assert guarded.get(STATUS, headers=bearer(token(sub=sub))).status_code == 404
    assert guarded.get(f"{STATUS}?after={position}", headers=ANN).status_code == 200


def test_a_task_that_appears_later_with_another_owner(redis_url: str, writer: Writer) -> None:
    """Two wait for the same id. It becomes ann's: she gets it, and bob gets what he would have got anyway."""
    with (
        running(redis_url, auth="jwt", jwt_keys=SECRET, **PATIENT) as gateway,
        Viewer(gateway, EVENTS, headers=BOB) as bob,
        Viewer(gateway, EVENTS, headers=ANN) as ann,
    ):
        ann.head()
        bob.head()
        writer.create("ann")
        writer.open().text("private")
        ann.text_is("private")
        writer.text(" and more")
        ann.text_is("private and more")
        bob.to_end()
        writer.end()
        ann.to_end()
    assert b"private" not in bob.received
    assert [event.kind for event in bob.events] == ["end"]
    assert bob.view.error == {"code": "unknown_task", "message": "There is no such task."}


def test_a_task_that_gets_its_owner_while_it_runs(redis_url: str, writer: Writer) -> None:
    """Announced after its worker began: without an event of it, who waits for it sees it soon."""
    with running(
        redis_url, auth="jwt", jwt_keys=SECRET, unknown_task_wait_seconds=600, heartbeat_seconds=600.0
    ) as gateway:
        writer.open().text("private")
        with Viewer(gateway, EVENTS, headers=BOB) as bob, Viewer(gateway, EVENTS, headers=ANN) as ann:
            eventually(lambda: gateway.followers("job-1") == 2)
            assert gateway.get(STATUS, headers=ANN).status_code == 404
            writer.create("ann")
            ann.text_is("private")
            eventually(lambda: gateway.get(STATUS, headers=ANN).status_code == 200)
            writer.text(" and more")
            ann.text_is("private and more")
            # A poll on bob's side of the same moment, so that something of his has surely been handled.
            assert gateway.get(STATUS, headers=BOB).status_code == 404
            assert b"event:" not in bob.received


def test_an_id_that_is_given_again_to_another_user(guarded: Running, writer: Writer) -> None:
    """After an end the same id may become bob's. Ann, who has its first life, gets nothing of the second: not
    by coming back with her position, and not by polling; and bob nothing of the first.
    """
    position = bring_to(writer, "succeeded")
    assert guarded.get(STATUS, headers=ANN).json()["text"] == "private"
    with Viewer(guarded, EVENTS, headers={**ANN, "Last-Event-ID": str(position)}) as viewer:
        assert viewer.head().status == 204
    writer.create("bob")
    writer.open().text("of bob")
    eventually(lambda: guarded.get(STATUS, headers=BOB).json().get("text") == "of bob")
    for path in (STATUS, f"{STATUS}?after={position}", f"{STATUS}?after={position}&wait=1"):
        assert guarded.get(path, headers=ANN).status_code == 404
    with Viewer(guarded, EVENTS, headers={**ANN, "Last-Event-ID": str(position)}) as viewer:
        viewer.to_end()
    assert viewer.status == 200
    assert b"of bob" not in viewer.received
    assert viewer.view.error == {"code": "unknown_task", "message": "The task is no longer known."}
    with Viewer(guarded, EVENTS, headers={**BOB, "Last-Event-ID": str(position)}) as viewer:
        viewer.text_is("of bob")
        assert b"private" not in viewer.received


def test_a_stream_whose_task_becomes_another_users(redis_url: str, writer: Writer) -> None:
    """Redis loses ann's task, and the id is given to bob while she still follows: her stream stays open, as
    that of a task which is no longer known, and brings nothing of his. A long poll of hers ends.
    """
    with running(redis_url, auth="jwt", jwt_keys=SECRET, **PATIENT) as gateway:
        position = bring_to(writer, "running")
        with Viewer(gateway, EVENTS, headers=ANN) as ann, Viewer(gateway, EVENTS, headers=BOB) as bob:
            ann.text_is("private")
            poll = Viewer(gateway, f"{STATUS}?wait=60&after={position}", headers=ANN)
            eventually(lambda: gateway.followers("job-1") == 3)
            writer.forget()
            writer.create("bob")
            writer.open().text("of bob")
            bob.text_is("of bob")
            assert poll.to_end().status == 404
            poll.close()
            ann.to_end()
        assert b"of bob" not in ann.received
        assert ann.events[-1].kind == "end"
        assert b"private" not in bob.received


def test_a_retry_stays_with_its_owner(guarded: Running, writer: Writer) -> None:
    """A second attempt, and a second life that nobody else claims, are ann's like the first."""
    bring_to(writer, "running")
    with Viewer(guarded, EVENTS, headers=ANN) as ann:
        ann.text_is("private")
        writer.open().text("again")
        ann.text_is("again")
        writer.end()
        ann.to_end()
    writer.create()
    writer.open().text("third")
    eventually(lambda: guarded.get(STATUS, headers=ANN).json()["text"] == "third")
    assert guarded.get(STATUS, headers=BOB).status_code == 404


def test_a_cancel_that_is_not_ones_own(guarded: Running, writer: Writer) -> None:
    """It changes nothing in Redis: not the flag, nor when the task was last heard of."""
    bring_to(writer, "running")
    before = writer.client.hgetall(writer.keys.task("job-1"))
    length = writer.client.xlen(writer.keys.log("job-1"))
    for headers in (BOB, bearer(ticket("job-1", settings=TICKETS))):
        assert guarded.post(CANCEL, headers=headers).status_code == 404
    for headers in (bearer(ticket("job-2", actions=BOTH, settings=TICKETS)), bearer("rubbish"), {}):
        assert guarded.post(CANCEL, headers=headers).status_code in (401, 404)
    assert writer.client.hgetall(writer.keys.task("job-1")) == before
    assert writer.client.xlen(writer.keys.log("job-1")) == length
    assert guarded.post(CANCEL, headers=ANN).status_code == 200
