"""Answers as they should be: streamed, blocking and asynchronous, stored as they were seen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bridge.client import Client
from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import SLOW, TEXT, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.needs("node", "aimock")


def test_tokens_land_as_they_come(assistant: Stage, ann: Person) -> None:
    """The first text is there before the answer is stored, and `done` is the row of the database."""
    with ann.stream(assistant.teach(latency=SLOW)) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream"
        assert stream.response.headers["cache-control"] == "no-store"
        thread = stream.until("thread")
        stream.until_text()
        assert ann.answers(thread["id"]) == []
        (running,) = ann.conversation(thread["id"])["running"]
        assert running["task_id"] == thread["task_id"]
        done = stream.until("done")
        assert stream.rest() == []
    assert stream.names == ["thread", "user", "chunk", "done"]
    assert sum(name == "chunk" for name, _ in stream.seen) > 2
    assert stream.text == done["content"] == TEXT
    assert (done["partial"], done["state"], done["provider"]) == (False, "succeeded", "openai")
    conversation = ann.conversation(thread["id"])
    assert conversation["messages"] == [dict(stream.seen)["user"], done]
    assert conversation["running"] == []
    with assistant.connect() as database:
        rows = database.execute("SELECT content FROM messages WHERE id = ?", [done["id"]]).fetchall()
    assert rows == [(TEXT,)]


def test_json_waits(assistant: Stage, ann: Person) -> None:
    """Who asks for no stream gets the whole answer, in the conversation that it named."""
    first = ann.ask(assistant.teach())
    second = ann.ask(assistant.teach("And again."), conversation_id=first["thread"]["id"])
    assert [first["assistant"]["content"], second["assistant"]["content"]] == [TEXT, "And again."]
    assert ann.conversation(first["thread"]["id"])["messages"] == [
        *(first["user"], first["assistant"]),
        *(second["user"], second["assistant"]),
    ]
    assert [one["id"] for one in ann.http.get("/conversations").json()] == [first["thread"]["id"]]


def test_who_waits_for_nothing(assistant: Stage, ann: Person) -> None:
    """202 says where to look: both addresses at the gateway, with a ticket that lets one in."""
    question = assistant.teach(latency=SLOW)
    answer = ann.post(question, headers={"Prefer": "respond-async"})
    later = answer.json()
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.headers["location"] == later["status"]
    assert later["events"] == f"{assistant.url('gateway')}/tasks/{later['task_id']}/events"
    with Client(assistant.url("gateway"), ticket=later["ticket"]) as client:
        views = [view.text for view in client.follow(later["task_id"])]
    assert len(views) > 2
    assert views[-1] == TEXT
    (stored,) = eventually(lambda: ann.answers(later["conversation_id"]))
    assert stored["content"] == TEXT
    assert later["user"]["content"] == question


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_a_failure_before_the_first_text(assistant: Stage, ann: Person, accept: str) -> None:
    """It is a 502 in JSON however it was asked, without the provider's words; the question is kept."""
    error = {"error": {"message": "sk-secret is bad", "type": "authentication_error"}, "status": 401}
    question = assistant.teach(response=error)
    answer = ann.post(question, headers={"Accept": accept}, provider="openai")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "auth"
    assert "secret" not in answer.text
    (conversation,) = ann.http.get("/conversations").json()
    messages = ann.conversation(conversation["id"])["messages"]
    assert messages[0]["content"] == question
    assert [message["content"] for message in messages[1:]] in ([], [""])
    assert conversation["running"] is False


def test_what_it_cost(assistant: Stage, ann: Person) -> None:
    """The provider's count of tokens is stored with the answer."""
    usage = {"prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13}
    stored = ann.ask(assistant.teach(response={"content": TEXT, "usage": usage}))["assistant"]
    assert {8, 5} <= set(stored["usage"].values())
    assert stored["model"]


def test_the_last_ten_messages_are_the_context(assistant: Stage, ann: Person) -> None:
    """The model is shown at most ten, the new one among them, in their order and with a user's first."""
    first = ann.ask(assistant.teach("Answer 0."))
    here = first["thread"]["id"]
    for number in range(1, 6):
        ann.ask(assistant.teach(f"Answer {number}."), conversation_id=here)
    question = assistant.teach("The last.")
    ann.ask(question, conversation_id=here)
    (body,) = assistant.asked(question)
    shown = [(one["role"], one["content"]) for one in body["messages"] if one["role"] != "system"]
    stored = ann.conversation(here)["messages"]
    assert len(stored) == 14
    assert shown == [(one["role"], one["content"]) for one in stored[-10:-1]]
    assert shown[0][0] == "user"


def test_a_provider_that_is_named(assistant: Stage, ann: Person) -> None:
    """That one is asked, and nobody else; one that isn't there is refused before anything is stored."""
    question = assistant.teach(provider="anthropic")
    assert ann.ask(question, provider="anthropic")["assistant"]["provider"] == "anthropic"
    assert assistant.asked(question) == []
    before = ann.http.get("/conversations").json()
    assert ann.post(question, provider="nobody").status_code in (409, 422)
    assert ann.http.get("/conversations").json() == before


def test_streaming_is_the_users_choice(assistant: Stage, ann: Person) -> None:
    """Who turned it off gets the JSON answer also where a stream was asked for, and no address of one."""
    assert ann.http.patch("/me", json={"streaming": False}).is_success
    assert ann.http.get("/me").json()["streaming"] is False
    with ann.stream(assistant.teach()) as stream:
        assert stream.response.json()["assistant"]["content"] == TEXT
    assert ann.ask_later(assistant.teach())["events"] is None


@pytest.fixture(scope="module")
def strict(assistant: Stage) -> Iterator[str]:
    """The URL of a web app that allows two messages a minute, and no streams of one provider."""
    with assistant.another_web(ASSISTANT_MESSAGES_PER_MINUTE="2", ASSISTANT_STREAMING_OFF="anthropic") as url:
        yield url


def test_streaming_is_the_providers_choice(assistant: Stage, strict: str) -> None:
    """A provider that is not to be streamed answers whole; another one streams as ever."""
    ann = assistant.person(strict)
    streaming = {one["name"]: one["streaming"] for one in ann.http.get("/me").json()["providers"]}
    assert (streaming["openai"], streaming["anthropic"]) == (True, False)
    with ann.stream(assistant.teach(provider="anthropic"), provider="anthropic") as stream:
        assert stream.response.json()["assistant"]["content"] == TEXT
    with ann.stream(assistant.teach(), provider="openai") as stream:
        stream.until("done")
        assert stream.text == TEXT


def test_nobody_to_ask(assistant: Stage) -> None:
    """Without a provider it says so before anything is stored."""
    with assistant.another_web("OPENAI_API_KEY", "ANTHROPIC_API_KEY") as url:
        ann = assistant.person(url)
        for headers in ({}, {"Prefer": "respond-async"}, {"Accept": "text/event-stream"}):
            answer = ann.post("Why?", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_provider")
        assert ann.http.get("/conversations").json() == []


def test_too_many_questions(assistant: Stage, strict: str) -> None:
    """One more than a minute's worth is refused with the time to wait; others may go on."""
    ann, bob = assistant.person(strict), assistant.person(strict)
    for _ in range(2):
        ann.ask(assistant.teach())
    refused = ann.post("Why?")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert len(ann.http.get("/conversations").json()) == 2
    assert bob.ask(assistant.teach())["assistant"]["content"] == TEXT


def test_two_questions_at_once(assistant: Stage, ann: Person) -> None:
    """Of two into one conversation one is answered and the other is told that it is busy."""
    here = ann.ask(assistant.teach())["thread"]["id"]
    questions = [assistant.teach(latency=5), assistant.teach(latency=5)]

    def post(question: str) -> httpx.Response:
        return ann.post(question, conversation_id=here)

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(post, questions), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["error"]["code"] == "busy"
    assert len(ann.conversation(here)["messages"]) == 4


def test_the_user_leaves(assistant: Stage, ann: Person) -> None:
    """Who closes the page mid-answer finds the whole of it later."""
    with ann.stream(assistant.teach(latency=10)) as stream:
        here = stream.until("thread")["id"]
        stream.until_text()
    (stored,) = eventually(lambda: ann.answers(here))
    assert (stored["content"], stored["partial"]) == (TEXT, False)


def test_who_leaves_leaves_nothing_open(assistant: Stage, ann: Person) -> None:
    """The app follows an answer at the gateway no longer than somebody reads it, in either style."""
    before = assistant.streams()
    with ann.stream(assistant.teach(TEXT * 100, latency=20)) as stream:
        task_id = stream.until("thread")["task_id"]
        stream.until_text()
        with ann.chat(generation=task_id) as other:
            other.until_text()
            assert assistant.streams() == before + 2
        eventually(lambda: assistant.streams() == before + 1)
    eventually(lambda: assistant.streams() == before)
    assert ann.http.get("/conversations").json()[0]["running"]
    ann.cancel(task_id)


def test_the_user_stops_it(assistant: Stage, ann: Person) -> None:
    """What had come is stored and marked, and the model is not read any longer."""
    text = TEXT * 100
    with ann.stream(assistant.teach(text, latency=10)) as stream:
        thread = stream.until("thread")
        stream.until_text(10)
        assert ann.cancel(thread["task_id"]).is_success
        stream.rest()
    (stored,) = ann.answers(thread["id"])
    assert (stored["partial"], stored["state"]) == (True, "cancelled")
    assert text.startswith(stored["content"])
    assert 10 <= len(stored["content"]) < len(text)
    assert stored["content"] == stream.text
    assert stream.seen[-1] == ("done", stored)
    assert ann.cancel(thread["task_id"]).is_success
    assert ann.answers(thread["id"]) == [stored]
