"""Two users at one assistant: neither learns anything of the other's, not even that it is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import TEXT, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.needs("node", "aimock")

NOBODY = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Secret:
    """What is Ann's: a conversation, and an answer that is under way there."""

    conversation: Any
    task: str
    status: str
    events: str
    ticket: str


@pytest.fixture(scope="module")
def owner(assistant: Stage) -> Person:
    """Ann, who has something to hide."""
    return assistant.person()


@pytest.fixture(scope="module")
def stranger(assistant: Stage) -> Person:
    """Bob, who is logged in as well."""
    return assistant.person()


@pytest.fixture(scope="module")
def secret(assistant: Stage, owner: Person) -> Iterator[Secret]:
    """Her latest question; it is answered for as long as the tests of this module take."""
    later = owner.ask_later(assistant.teach(TEXT * 200, latency=20))
    eventually(lambda: owner.text_so_far(later))
    yield Secret(
        later["conversation_id"], later["task_id"], later["status"], later["events"], later["ticket"]
    )
    owner.cancel(later["task_id"])


def attempts(person: Person, conversation: Any, task: str) -> dict[str, httpx.Response]:
    """All that can be done with the names of a conversation and a task."""
    http = person.http
    question = {"content": "Why?", "conversation_id": conversation}
    get = {"conversationId": conversation, "message": "Why?"}
    return {
        "open": http.get(f"/conversations/{conversation}"),
        "ask": http.post("/messages", json=question),
        "ask for a stream": http.post("/messages", json=question, headers={"Accept": "text/event-stream"}),
        "ask for later": http.post("/messages", json=question, headers={"Prefer": "respond-async"}),
        "ask in the older style": http.get("/chat/stream", params=get),
        "post in the older style": http.post("/chat/stream", json=question),
        "read": http.get("/chat/stream", params={"generation": task}),
        "read on": http.get("/chat/stream", params=get, headers={"Last-Event-ID": f"{task}/1-1"}),
        "poll": person.check(task, conversation),
        "cancel": person.cancel(task),
    }


def test_what_is_anothers_is_not_there(owner: Person, stranger: Person, secret: Secret) -> None:
    """Each way to it gives a stranger the very answer that a name gets which nobody has."""
    hers = attempts(stranger, secret.conversation, secret.task)
    nobodys = attempts(stranger, 10**9, NOBODY)
    assert {way: answer.status_code for way, answer in hers.items()} == dict.fromkeys(hers, 404)
    for way, answer in hers.items():
        assert answer.json() == nobodys[way].json(), way
    assert len(owner.conversation(secret.conversation)["messages"]) == 1
    assert len(owner.conversation(secret.conversation)["running"]) == 1


def test_the_lists_are_apart(owner: Person, stranger: Person, secret: Secret) -> None:
    """Each sees their own conversations only."""
    assert secret.conversation in [one["id"] for one in owner.http.get("/conversations").json()]
    assert secret.conversation not in [one["id"] for one in stranger.http.get("/conversations").json()]


def test_a_ticket_is_for_one_task(assistant: Stage, stranger: Person, secret: Secret) -> None:
    """The gateway lets nobody in without one, and nobody in to another task."""
    theirs = stranger.ask_later(assistant.teach())
    for ticket, status in ((secret.ticket, 200), (theirs["ticket"], 404), ("", 401)):
        headers = {"Authorization": f"Bearer {ticket}"} if ticket else {}
        assert httpx.get(secret.status, headers=headers, verify=False).status_code == status
    # Nobody's ticket: a stream of what one may not see is one that waits, as for a task that isn't there.
    assert httpx.get(secret.events, headers={"Accept": "text/event-stream"}, verify=False).status_code == 401
    task = f"{assistant.url('gateway')}/tasks/{secret.task}"
    headers = {"Authorization": f"Bearer {theirs['ticket']}"}
    assert httpx.post(f"{task}/cancel", headers=headers, verify=False).status_code == 404


def test_who_is_not_logged_in(assistant: Stage, secret: Secret) -> None:
    """Everything is 401, whether it is there or not."""
    nobody = Person("nobody", assistant.url("web"))
    with nobody.http:
        answers = attempts(nobody, secret.conversation, secret.task)
        answers |= {path: nobody.http.get(path) for path in ("/me", "/conversations")}
        answers["patch"] = nobody.http.patch("/me", json={"streaming": False})
    assert {way: answer.status_code for way, answer in answers.items()} == dict.fromkeys(answers, 401)
    for answer in answers.values():
        assert set(answer.json()) == {"error"}


def test_another_sites_page(owner: Person, secret: Secret) -> None:
    """It can't make the user's browser ask, cancel or change anything."""
    origins = [{"Origin": origin} for origin in ("https://evil.example", "null", "http://[")]
    sites = [{"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")]
    for headers in (*origins, *sites):
        for method, path, body in (
            ("POST", "/messages", {"content": "Why?"}),
            ("POST", f"/generations/{secret.task}/cancel", {}),
            ("PATCH", "/me", {"streaming": False}),
            ("POST", "/logout", {}),
        ):
            answer = owner.http.request(method, path, json=body, headers=headers)
            assert answer.status_code == 403, (method, path, headers)
    form = owner.http.post("/messages", data={"content": "Why?"})
    assert form.status_code in (415, 422)
    assert owner.http.get("/me").json()["streaming"] is True
    assert len(owner.conversation(secret.conversation)["running"]) == 1


def test_a_wrong_password(assistant: Stage, owner: Person) -> None:
    """It is told apart from a name that nobody has by nothing."""
    with httpx.Client(base_url=assistant.url("web"), verify=False) as http:
        wrong = http.post("/login", json={"name": owner.name, "password": "guess"})
        unknown = http.post("/login", json={"name": "nobody", "password": "guess"})
        assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
        assert wrong.status_code == 401
        assert not http.cookies


def test_who_logs_out(assistant: Stage) -> None:
    """The cookie is worth nothing from then on, and no page's script can ever read it."""
    ann = assistant.person()
    (cookie,) = list(ann.http.cookies.jar)
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite", "").lower() == "lax"
    assert ann.http.post("/logout", json={}).is_success
    assert ann.http.get("/me", headers={"Cookie": f"{cookie.name}={cookie.value}"}).status_code == 401
