"""The older style of streaming, which EventSource can read: it asks once, however often it comes back."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import SLOW, TEXT, Stage
from tests.tools import JS, require_tool
from tests.waiting import eventually

pytestmark = pytest.mark.needs("node", "aimock")

LONG = TEXT * 3
OVER = ["conversationId", "token", "complete"]


def here(assistant: Stage, person: Person) -> Any:
    """A conversation that has begun."""
    return person.ask(assistant.teach("Hello."))["thread"]["id"]


def test_asked_with_get(assistant: Stage, ann: Person) -> None:
    """The conversation, the tokens as they come, and at last what the stored message says of itself."""
    conversation_id = here(assistant, ann)
    with ann.chat(conversationId=conversation_id, message=assistant.teach(latency=SLOW)) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream"
        stream.until_text()
        assert len(ann.answers(conversation_id)) == 1
        complete = stream.until("complete")
    assert stream.names == OVER
    assert stream.seen[0][1] in (conversation_id, {"conversationId": conversation_id})
    assert sum(name == "token" for name, _ in stream.seen) > 2
    message = ann.answers(conversation_id)[-1]
    assert stream.text == message["content"] == TEXT
    assert complete == {
        "conversationId": conversation_id,
        "messageId": message["id"],
        **{name: message[name] for name in ("content", "usage", "provider", "model", "partial")},
    }


def test_asked_with_post(assistant: Stage, ann: Person) -> None:
    """What is too long for a URL is refused there, with a hint, and is posted instead."""
    question = assistant.teach()
    conversation_id = here(assistant, ann)
    long = f"{'x' * 2000} {question}"
    with ann.chat(conversationId=conversation_id, message=long) as stream:
        assert stream.response.status_code == 414
        assert "POST" in stream.response.json()["error"]["message"]
    assert len(ann.conversation(conversation_id)["messages"]) == 2
    with ann.chat_post(long, conversation_id=conversation_id) as stream:
        complete = stream.until("complete")
    assert stream.names == OVER
    assert complete["content"] == stream.text == TEXT


def test_posted_before(assistant: Stage, ann: Person) -> None:
    """One who posted elsewhere reads the answer here, as often as they like, also when it is over."""
    later = ann.ask_later(assistant.teach(latency=10))
    for _ in range(2):
        with ann.chat(generation=later["task_id"]) as stream:
            complete = stream.until("complete")
        assert stream.names == OVER
        assert complete["content"] == stream.text == TEXT
    assert len(ann.answers(later["conversation_id"])) == 1


def test_it_breaks_off(assistant: Stage, ann: Person) -> None:
    """The error holds the text that had come, and comes at the end like `complete`."""
    question = assistant.teach(LONG, latency=10, disconnectAfterMs=300)
    conversation_id = here(assistant, ann)
    with ann.chat(conversationId=conversation_id, message=question) as stream:
        error = stream.until("error")
        assert stream.rest() == []
    assert (error["code"], error["content"]) == ("interrupted", stream.text)
    (_, message) = ann.answers(conversation_id)
    assert (message["content"], message["partial"]) == (stream.text, True)


def test_streaming_is_off(assistant: Stage, ann: Person) -> None:
    """The text then comes with the end, and in it."""
    conversation_id = here(assistant, ann)
    assert ann.http.patch("/me", json={"streaming": False}).is_success
    with ann.chat(conversationId=conversation_id, message=assistant.teach()) as stream:
        complete = stream.until("complete")
    assert stream.names == ["conversationId", "complete"]
    assert complete["content"] == TEXT


def test_storing_fails(assistant: Stage, ann: Person) -> None:
    """The end says so, and has the whole text but no id; whoever comes later finds it stored."""
    conversation_id = here(assistant, ann)
    with assistant.storing_fails():
        with ann.chat(conversationId=conversation_id, message=assistant.teach()) as stream:
            complete = stream.until("complete")
    assert (complete["persistFailed"], complete["messageId"], complete["content"]) == (True, None, TEXT)
    task_id = stream.last_event_id.partition("/")[0]
    eventually(lambda: len(assistant.stored(conversation_id)) == 2)
    with ann.chat(generation=task_id) as stream:
        complete = stream.until("complete")
    assert "persistFailed" not in complete
    assert complete["messageId"] == ann.answers(conversation_id)[-1]["id"]


def test_who_comes_back_asks_nothing_again(assistant: Stage, ann: Person) -> None:
    """With the last id the same request goes on where it was, and gets 204 when there is nothing more."""
    question = assistant.teach(LONG, latency=10)
    asked = {"conversationId": here(assistant, ann), "message": question}
    with ann.chat(**asked) as first:
        first.until_text(30)
        last = first.last_event_id
    with ann.chat(last, **asked) as second:
        complete = second.until("complete")
        assert second.rest() == []
    assert first.text + second.text == complete["content"] == LONG
    with ann.chat(second.last_event_id, **asked) as third:
        assert third.response.status_code == 204
    assert len(assistant.asked(question)) == 1
    assert len(ann.conversation(asked["conversationId"])["messages"]) == 4


@pytest.mark.needs("eventsource")
def test_the_web_app_is_killed(assistant: Stage, ann: Person) -> None:
    """The answer is finished and stored without the app; an EventSource comes back to the next one by itself,
    and ends with the whole text, asked once.
    """
    question, conversation_id = assistant.teach(latency=SLOW), here(assistant, ann)
    asked = {"conversationId": conversation_id, "message": question}
    url = f"{assistant.url('web')}/chat/stream?{urlencode(asked)}"
    command = [str(require_tool("node")), "chat.js", url, ann.cookie]
    with subprocess.Popen(command, cwd=JS, stdout=subprocess.PIPE, text=True) as page:
        try:
            assert page.stdout is not None
            facts = [json.loads(page.stdout.readline()) for _ in range(5)]
            with assistant.web.away():
                eventually(lambda: len(assistant.stored(conversation_id)) == 2)
            facts += [json.loads(line) for line in page.stdout]
            assert page.wait(30) == 0
        finally:
            page.kill()
    requests = [fact for fact in facts if fact["type"] == "request"]
    assert [fact["status"] for fact in requests] == [200, 200, 204]
    assert requests[0]["after"] is None
    assert "".join(fact["data"]["token"] for fact in facts if fact["type"] == "token") == TEXT
    (complete,) = [fact["data"] for fact in facts if fact["type"] == "complete"]
    row = assistant.stored(conversation_id)[-1]
    assert (complete["messageId"], complete["content"], complete["partial"]) == (row["id"], TEXT, False)
    assert len(assistant.asked(question)) == 1


def test_an_id_that_is_none(assistant: Stage, ann: Person) -> None:
    """It never asks: a place that is nobody's, or none in an answer, is refused."""
    answer = ann.ask(assistant.teach())
    task_id = answer["assistant"]["task_id"]
    asked = {"conversationId": answer["thread"]["id"], "message": "Why?"}
    for last in (*("nonsense", "nobody/1", "/", "%00", "é", "x" * 3000), *_no_places(task_id)):
        headers = {b"Last-Event-ID": last.encode()}
        refused = ann.http.get("/chat/stream", params=asked, headers=headers)
        assert refused.status_code in (400, 404), last
        assert set(refused.json()) == {"error"}
    assert len(ann.conversation(answer["thread"]["id"])["messages"]) == 2


def _no_places(task_id: str) -> list[str]:
    return [task_id, *(f"{task_id}/{place}" for place in ("", "-1", "1-1", "end/", "²", "9" * 5000))]


def test_another_site_can_not_ask(assistant: Stage, ann: Person) -> None:
    """A GET that asks is refused where the browser says that another site's page makes it."""
    conversation_id = here(assistant, ann)
    asked = {"conversationId": conversation_id, "message": "Why?"}
    mail = {"Sec-Fetch-Site": "none", "Accept": "text/html,application/xml;q=0.9,*/*;q=0.8"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, mail):
        answer = ann.http.get("/chat/stream", params=asked, headers=headers)
        assert answer.status_code == 403
    assert len(ann.conversation(conversation_id)["messages"]) == 2


def test_what_can_not_be_streamed(ann: Person) -> None:
    """It is refused with a status, which ends an EventSource, and in the one form of errors."""
    for params, status in (
        ({}, 422),
        ({"message": " "}, 422),
        ({"conversationId": "x", "message": "Why?"}, 422),
        ({"conversationId": str(10**12), "message": "Why?"}, 404),
        ({"conversationId": "9" * 30, "message": "Why?"}, 422),
        ({"generation": "nobody"}, 404),
    ):
        answer = ann.http.get("/chat/stream", params=params)
        assert answer.status_code == status, params
        assert set(answer.json()) == {"error"}
    assert ann.http.get("/conversations").json() == []
