"""Clients that know only polling: the answers that they understand, and that they need no change."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import SLOW, TEXT, Stage
from tests.tools import JS, require_tool
from tests.waiting import eventually

pytestmark = pytest.mark.needs("node", "aimock")

SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED = 1, 2, 3, 4, 5
LONG = TEXT * 3
ENDLESS = TEXT * 100
"""More than is ever written: it is stopped before."""


def test_a_client_that_knows_only_polling(assistant: Stage, ann: Person) -> None:
    """Its loop ends with the stored message; meanwhile each answer was "not yet", with more of the text."""
    command = [str(require_tool("node")), "poll.js", assistant.url("web"), ann.cookie]
    question = assistant.teach(latency=SLOW)
    said = subprocess.run(
        [*command, question, "100"], cwd=JS, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    *waiting, last = [json.loads(line) for line in said.split("\n") if line]
    assert {one["status"] for one in waiting} == {417}
    (conversation,) = ann.http.get("/conversations").json()
    assert last == {"status": 200, "body": ann.answers(conversation["id"])[0]}
    assert last["body"]["content"] == TEXT
    outputs = [(one["body"].get("task_output") or {}).get("output", "") for one in waiting]
    assert len(set(outputs)) > 2
    for shorter, longer in zip(outputs, [*outputs[1:], TEXT], strict=True):
        assert longer.startswith(shorter) or not longer
    assert {one["body"]["task_status"] for one in waiting} >= {RUNNING}


def waits(person: Person, question: str) -> tuple[str, Any]:
    """Ask the first provider and nobody else; the task's id and the conversation's."""
    later = person.ask_later(question, provider="openai")
    return later["task_id"], later["conversation_id"]


def ended(person: Person, task: tuple[str, Any]) -> httpx.Response:
    """The first answer that ends a poll loop."""

    def look() -> list[httpx.Response]:
        answer = person.check(*task)
        return [] if answer.status_code == 417 else [answer]

    return eventually(look)[0]


def reads(answer: httpx.Response) -> tuple[int, Any]:
    """The status and the body."""
    return answer.status_code, answer.json()


def test_nobody_has_begun(assistant: Stage, ann: Person) -> None:
    """A task that waits is scheduled, and slow to be picked up once it has waited for long."""
    with assistant.worker.frozen():
        task = waits(ann, assistant.teach())
        waiting = {"task_status": SCHEDULED, "slow_pickup": False}
        assert reads(ann.check(*task)) == (417, waiting)
        with assistant.connect() as database:
            long_ago = "2020-01-01T00:00:00.000Z"
            database.execute("UPDATE generations SET created_at = ? WHERE task_id = ?", [long_ago, task[0]])
        assert reads(ann.check(*task)) == (417, {**waiting, "slow_pickup": True})
    assert ended(ann, task).status_code == 200


def test_one_is_at_it(assistant: Stage, ann: Person) -> None:
    """Before the first text there is none; after that there is the text so far, never a bit of it."""
    silent = waits(ann, assistant.teach(streamingProfile={"ttft": 60_000, "tps": 1}))
    task = waits(ann, assistant.teach(ENDLESS, latency=20))
    running = {"task_status": RUNNING, "slow_pickup": False}
    eventually(lambda: ann.check(*silent).json()["task_status"] == RUNNING)
    assert reads(ann.check(*silent)) == (417, {**running, "task_output": None})

    def output(length: int) -> str:
        status, body = reads(ann.check(*task))
        found = (body.pop("task_output", None) or {"output": ""})["output"]
        assert (status, body, len(found) > length) == (417, running, True)
        return str(found)

    some = eventually(lambda: output(0))
    more = eventually(lambda: output(len(some)))
    assert more.startswith(some)
    assert ENDLESS.startswith(more)
    for one in (silent, task):
        ann.cancel(one[0])
        ended(ann, one)


def test_it_succeeded_and_is_not_stored(assistant: Stage, ann: Person) -> None:
    """The client is to wait for the message; it gets it when it is stored."""
    with assistant.storing_fails():
        task = waits(ann, assistant.teach())
        body = eventually(
            lambda: (found := ann.check(*task).json()).get("task_status") == SUCCEEDED and found
        )
        assert ann.check(*task).status_code == 417
        assert body == {"task_status": SUCCEEDED, "slow_pickup": False}
    answer = ended(ann, task)
    assert answer.json() == ann.answers(task[1])[0]


def test_it_failed(assistant: Stage, ann: Person) -> None:
    """400 ends the loop, with a sentence that anybody may read."""
    error = {"error": {"message": "sk-secret is bad", "type": "authentication_error"}, "status": 401}
    task = waits(ann, assistant.teach(response=error))
    answer = ended(ann, task)
    body = answer.json()
    assert answer.status_code == 400
    assert (body["error"], body["task_status"]) == ("task_failed_or_canceled", FAILED)
    assert body["userFacingErrorMessage"].endswith(".")
    assert "secret" not in answer.text


def test_it_was_stopped(assistant: Stage, ann: Person) -> None:
    """400 as well, with the other number."""
    task = waits(ann, assistant.teach(ENDLESS, latency=20))
    eventually(lambda: ann.check(*task).json().get("task_output"))
    ann.cancel(task[0])
    answer = ended(ann, task)
    assert (answer.status_code, answer.json()["task_status"]) == (400, CANCELLED)


def test_it_was_stopped_before_it_began(assistant: Stage, ann: Person) -> None:
    """It ends while it waits, and no model is ever asked."""
    question = assistant.teach()
    with assistant.worker.frozen():
        task = waits(ann, question)
        ann.cancel(task[0])
        answer = ended(ann, task)
        assert (answer.status_code, answer.json()["task_status"]) == (400, CANCELLED)
    assert ann.ask(assistant.teach(), conversation_id=task[1])["assistant"]["content"] == TEXT
    assert assistant.asked(question) == []


def test_the_gateway_is_away(assistant: Stage, ann: Person, bob: Person) -> None:
    """It says what the database knows: that it runs, then the message, also of a question asked meanwhile."""
    done = waits(ann, assistant.teach())
    assert ended(ann, done).status_code == 200
    task = waits(ann, assistant.teach(LONG, latency=20))
    eventually(lambda: ann.check(*task).json().get("task_output"))
    with assistant.gateway.away():
        # Nobody is at its end before this is seen.
        with assistant.openai.frozen():
            status, body = reads(ann.check(*task))
            assert (status, body["task_status"] in (SCHEDULED, RUNNING)) == (417, True)
        assert ann.check(*done).status_code == 200
        meanwhile = waits(bob, assistant.teach())
        assert ended(bob, meanwhile).json()["content"] == TEXT
        assert ended(ann, task).json()["content"] == LONG


def test_what_is_not_known(assistant: Stage, ann: Person) -> None:
    """404 for a task that isn't there or isn't of that conversation, 401 for who isn't logged in."""
    task_id, here = waits(ann, assistant.teach())
    eventually(lambda: ann.check(task_id, here).status_code == 200)
    assert ann.check("nobody", here).status_code == 404
    assert ann.check(task_id, 10**12).status_code == 404
    assert ann.check(task_id, 10**30).status_code == 422
    assert ann.check("%2e%2e", here).status_code == 404
    assert ann.http.get("/check_generation").status_code in (400, 422)
    ann.http.cookies.clear()
    assert ann.check(task_id, here).status_code == 401
