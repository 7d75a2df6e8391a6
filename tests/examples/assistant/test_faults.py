"""Every part is killed while an answer is under way: nothing that was seen is lost, nor what was asked.

What becomes of readers whose web app is killed is in `test_chat_stream`.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import LEASE_SECONDS, TEXT, Stage
from tests.processes import descendants
from tests.waiting import eventually

pytestmark = pytest.mark.needs("node", "aimock")

LONG = TEXT * 4
ENDLESS = TEXT * 100
"""More than is ever written where nobody is left to write it."""


def stored(assistant: Stage, person: Person, conversation_id: object) -> dict[str, Any]:
    """The one answer, as soon as it is in the database: to look for it there brings nobody to store it."""
    eventually(lambda: assistant.stored(conversation_id), timeout=LEASE_SECONDS * 10)
    (message,) = person.answers(conversation_id)
    return message


def test_the_provider_hangs_up(assistant: Stage, ann: Person) -> None:
    """The stream ends with an error that holds what had come, and that is stored as partial."""
    with ann.stream(assistant.teach(ENDLESS, latency=10, disconnectAfterMs=300)) as stream:
        error = stream.until("error")
        thread = dict(stream.seen)["thread"]
    assert error["code"] == "interrupted"
    assert error["content"] == stream.text != ""
    assert ENDLESS.startswith(stream.text)
    message = stored(assistant, ann, thread["id"])
    assert (message["content"], message["partial"], message["state"]) == (stream.text, True, "failed")
    assert message["error"]["code"] == "interrupted"
    assert error.get("message_id") in (None, message["id"])


def test_the_provider_hangs_up_on_one_who_waits(assistant: Stage, ann: Person) -> None:
    """Who asked for JSON gets a 502, and the partial answer as it is stored."""
    answer = ann.post(assistant.teach(ENDLESS, latency=10, disconnectAfterMs=300))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "interrupted")
    (conversation,) = ann.http.get("/conversations").json()
    message = stored(assistant, ann, conversation["id"])
    assert answer.json()["assistant"] == message
    assert message["partial"]
    assert ENDLESS.startswith(message["content"])


def test_the_provider_is_killed(assistant: Stage, ann: Person) -> None:
    """It is no other than if it had hung up; the next question is answered as soon as it is back."""
    question = assistant.teach(ENDLESS, provider="anthropic", latency=20)
    with ann.stream(question, provider="anthropic") as stream:
        thread = stream.until("thread")
        stream.until_text(30)
        with assistant.anthropic.away():
            error = stream.until("error")
    assert (error["code"], error["content"]) == ("interrupted", stream.text)
    message = stored(assistant, ann, thread["id"])
    assert (message["content"], message["partial"], message["provider"]) == (stream.text, True, "anthropic")
    again = assistant.teach(provider="anthropic")
    answer = ann.ask(again, provider="anthropic", conversation_id=thread["id"])
    assert answer["assistant"]["content"] == TEXT


def test_a_child_of_the_worker_is_killed(assistant: Stage, ann: Person) -> None:
    """Its parent says so; what the bridge has is stored, and nobody is asked again."""
    question = assistant.teach(ENDLESS, latency=20)
    with ann.stream(question) as stream:
        thread = stream.until("thread")
        stream.until_text(30)
        for child in descendants(assistant.worker.pid):
            os.kill(child, signal.SIGKILL)
        error = stream.until("error")
    assert (error["code"], error["content"]) == ("worker_lost", stream.text)
    message = stored(assistant, ann, thread["id"])
    assert (message["content"], message["partial"], message["state"]) == (stream.text, True, "failed")
    assert message["error"]["code"] == "worker_lost"
    follow_up = ann.ask(assistant.teach(), conversation_id=thread["id"])
    assert follow_up["assistant"]["content"] == TEXT
    assert len(assistant.asked(question)) == 1


def test_the_whole_worker_is_killed(assistant: Stage, ann: Person, bob: Person) -> None:
    """Its leases run out; what the bridge has is stored while no worker is there, watched or not."""
    questions = [assistant.teach(ENDLESS, latency=20) for _ in range(2)]
    unwatched = bob.ask_later(questions[0])
    with ann.stream(questions[1]) as stream:
        thread = stream.until("thread")
        stream.until_text(30)
        eventually(
            lambda: bob.check(unwatched["task_id"], unwatched["conversation_id"]).json()["task_output"]
        )
        with assistant.worker.away():
            error = stream.until("error")
            seen = stored(assistant, ann, thread["id"])
            unseen = stored(assistant, bob, unwatched["conversation_id"])
    assert (error["code"], error["content"], seen["content"]) == ("worker_lost", stream.text, stream.text)
    for message in (seen, unseen):
        assert (message["partial"], message["state"]) == (True, "failed")
        assert message["error"]["code"] == "worker_lost"
        assert ENDLESS.startswith(message["content"])
        assert 0 < len(message["content"]) < len(ENDLESS)
    assert [len(assistant.asked(question)) for question in questions] == [1, 1]


def test_a_worker_that_was_given_up_comes_back(assistant: Stage, ann: Person) -> None:
    """The partial answer that was stored in its absence makes way for the whole one, in its place."""
    later = ann.ask_later(assistant.teach(LONG, latency=15))
    eventually(lambda: ann.text_so_far(later))
    with assistant.worker.frozen():
        partial = stored(assistant, ann, later["conversation_id"])
    assert (partial["partial"], partial["error"]["code"]) == (True, "worker_lost")
    whole = eventually(lambda: [one for one in ann.answers(later["conversation_id"]) if not one["partial"]])
    assert [(one["id"], one["content"], one["state"]) for one in whole] == [
        (partial["id"], LONG, "succeeded")
    ]


def test_redis_forgets_everything(assistant: Stage, ann: Person) -> None:
    """The worker, which still knows, tells it again: who reads and the database have the whole text, once."""
    with ann.stream(assistant.teach(LONG, latency=10)) as stream:
        thread = stream.until("thread")
        stream.until_text(30)
        assistant.redis.kill()
        assistant.redis.start()
        done = stream.until("done")
    assert stream.text == done["content"] == LONG
    assert stored(assistant, ann, thread["id"]) == done


def test_the_gateway_is_killed_and_comes_back(assistant: Stage, ann: Person, bob: Person) -> None:
    """Who reads or waits sees a pause and nothing else: to the byte the same text, which is stored."""
    with ThreadPoolExecutor(1) as pool, ann.stream(assistant.teach(LONG, latency=20)) as stream:
        waiting = pool.submit(bob.ask, assistant.teach(LONG, latency=20))
        thread = stream.until("thread")
        stream.until_text(30)
        with assistant.gateway.away():
            assert len(ann.conversation(thread["id"])["running"]) == 1
        done = stream.until("done")
    assert stream.names == ["thread", "user", "chunk", "done"]
    assert stream.text.encode() == LONG.encode()
    assert done == stored(assistant, ann, thread["id"])
    assert done["content"] == waiting.result()["assistant"]["content"] == LONG


def test_storing_fails(assistant: Stage, ann: Person) -> None:
    """Who reads is told and has the whole text; it is stored later, by somebody else."""
    with assistant.storing_fails():
        with ann.stream(assistant.teach()) as stream:
            done = stream.until("done")
            thread = dict(stream.seen)["thread"]
        assert done["persistFailed"] is True
        assert done["content"] == stream.text == TEXT
        assert ann.answers(thread["id"]) == []
    message = stored(assistant, ann, thread["id"])
    assert (message["content"], message["partial"], message["state"]) == (TEXT, False, "succeeded")
    assert ann.conversation(thread["id"])["running"] == []


def test_storing_fails_for_one_who_waits(assistant: Stage, ann: Person) -> None:
    """The JSON answer says it, too."""
    with assistant.storing_fails():
        answer = ann.ask(assistant.teach())
        assert answer["assistant"]["content"] == TEXT
        assert answer.get("persistFailed") or answer["assistant"]["persistFailed"]
    assert stored(assistant, ann, answer["thread"]["id"])["content"] == TEXT


def test_the_database_is_locked_for_a_while(assistant: Stage, ann: Person) -> None:
    """An answer that ends meanwhile is stored when the lock is gone, and nobody hears of a failure."""
    with ann.stream(assistant.teach(latency=30)) as stream:
        thread = stream.until("thread")
        stream.until_text()
        with assistant.locked():
            stream.until_text(len(TEXT))
            assert ann.answers(thread["id"]) == []
        done = stream.until("done")
    assert "persistFailed" not in done
    assert done == stored(assistant, ann, thread["id"])


def test_nobody_takes_the_question(assistant: Stage) -> None:
    """With the broker away it is a 503; the question is kept, and the conversation is free again."""
    with assistant.another_web(BROKER_URL="redis://127.0.0.1:1/0") as url:
        ann = assistant.person(url)
        answer = ann.post("Why?")
        assert answer.status_code == 503
        assert {"code", "message"} <= set(answer.json()["error"])
        (conversation,) = ann.http.get("/conversations").json()
        assert conversation["running"] is False
    here = conversation["id"]
    with ann.elsewhere(assistant.url("web")) as again:
        assert again.conversation(here)["messages"][0]["content"] == "Why?"
        assert again.ask(assistant.teach(), conversation_id=here)["assistant"]["content"] == TEXT
