"""What a request may get wrong: each is refused in the one form of errors, and none is a failure of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import PASSWORD, Stage

pytestmark = pytest.mark.needs("node", "aimock")

HUGE = str(2**63)
"""More than the database can count."""


def refused(answer: httpx.Response) -> tuple[int, str]:
    """The status and the code, after a look at the form."""
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message"}
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/conversations/0", (422, "invalid")),
        ("GET", f"/conversations/{HUGE}", (422, "invalid")),
        ("GET", "/conversations/x", (422, "invalid")),
        ("GET", f"/check_generation?taskId=x&sessionId={HUGE}", (422, "invalid")),
        ("GET", f"/chat/stream?message=x&conversationId={HUGE}", (422, "invalid")),
        ("DELETE", "/conversations", (405, "method_not_allowed")),
        ("POST", "/generations/nobodys/cancel", (404, "not_found")),
        ("POST", "/generations/%00/cancel", (404, "not_found")),
        ("GET", "/nothing/here", (404, "not_found")),
        ("GET", "/%2e%2e/assistant/app.py", (404, "not_found")),
    ],
)
def test_a_path(ann: Person, method: str, path: str, error: tuple[int, str]) -> None:
    """One that isn't there, or names what can't be."""
    assert refused(ann.http.request(method, path)) == error


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", (422, "invalid")),
        (b"{", (422, "invalid")),
        (b"[]", (422, "invalid")),
        (b'{"content": "\xff"}', (422, "invalid")),
        (rb'{"content": "\ud800"}', (422, "invalid")),
        (b'{"content": "Why?", "conversation_id": %s}' % HUGE.encode(), (422, "invalid")),
        (b'{"content": "Why?", "conversation_id": 1e400}', (422, "invalid")),
        (b"[" * 100_000, (422, "invalid")),
        (b'{"content": "' + b"x" * 32_001 + b'"}', (413, "too_large")),
        (b'{"content": "' + b" " * 300_000 + b'"}', (413, "too_large")),
    ],
    ids=range(10),
)
def test_a_body(ann: Person, body: bytes, error: tuple[int, str]) -> None:
    """One that is no message, however it is sent."""
    headers = {"Content-Type": "application/json"}
    assert refused(ann.http.post("/messages", content=body, headers=headers)) == error
    assert refused(ann.http.post("/messages", content=iter([body]), headers=headers)) == error
    assert ann.http.get("/conversations").json() == []


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_of_another_type(ann: Person, kind: str) -> None:
    """Forms of other sites can send these; JSON they can't."""
    for path, method in (("/messages", "POST"), ("/login", "POST"), ("/me", "PATCH")):
        answer = ann.http.request(method, path, content=b"{}", headers={"Content-Type": kind})
        assert refused(answer) == (415, "unsupported")


def test_who_is_not_logged_in_learns_nothing(assistant: Stage) -> None:
    """Whatever is wrong with the body, that they have to log in comes first."""
    for body in (b"{", b"x" * 10_000_000, b'{"content": "Why?"}'):
        answer = httpx.post(assistant.url("web") + "/messages", content=body, verify=False)
        assert refused(answer) == (401, "unauthenticated")


@pytest.mark.parametrize("choice", [{}, {"streaming": "sometimes"}, {"streaming": None}, []])
def test_a_choice(ann: Person, choice: Any) -> None:
    """One that can't be made changes nothing."""
    assert refused(ann.http.patch("/me", json=choice)) == (422, "invalid")
    assert ann.http.get("/me").json()["streaming"] is True


def test_a_session(assistant: Stage) -> None:
    """A cookie that nobody was given is none; the one that a login gives is for this site alone."""
    person = assistant.person()
    login = person.http.post("/login", json={"name": person.name, "password": PASSWORD})
    cookie = login.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    # What a proxy in front says, that speaks HTTPS for us.
    headers = {"X-Forwarded-Proto": "https"}
    login = person.http.post("/login", json={"name": person.name, "password": PASSWORD}, headers=headers)
    assert "secure" in login.headers["set-cookie"].lower().split("; ")
    for value in ("", "x", "x" * 4000):
        answer = httpx.get(assistant.url("web") + "/me", headers={"Cookie": f"session={value}"}, verify=False)
        assert refused(answer) == (401, "unauthenticated")


def test_many_log_in_at_once(assistant: Stage, ann: Person) -> None:
    """Who guesses many passwords at once is refused, and who is logged in doesn't wait for all the others."""
    guess = {"name": "ann", "password": "guess"}

    async def storm() -> list[int]:
        async with httpx.AsyncClient(base_url=assistant.url("web"), timeout=30, verify=False) as http:
            guesses = [asyncio.create_task(http.post("/login", json=guess)) for _ in range(90)]
            done, _ = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) < len(guesses)
            http.cookies = ann.http.cookies
            assert (await http.get("/conversations")).status_code == 200
            assert not all(one.done() for one in guesses)
            return [answer.status_code for answer in await asyncio.gather(*guesses)]

    assert set(asyncio.run(storm())) == {401, 503}


def test_the_database_is_locked(assistant: Stage, ann: Person) -> None:
    """Who asks while somebody else writes for long is told to come back, and who reads isn't held up."""
    with assistant.locked():
        answer = ann.post("Why?")
        assert refused(answer) == (503, "database")
        assert answer.headers["retry-after"]
        assert ann.http.get("/conversations").json() == []
    assert ann.http.get("/conversations").json() == []
