"""asking: what is refused before anything is stored, and what becomes of the rest."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from assistant import keeping
from assistant.asking import Desk, NotSent, Question
from assistant.conversations import Generation
from assistant.database import seconds_ago
from assistant.errors import Refused
from assistant.keeping import Answer
from assistant.providers import Providers

from tests.examples.assistant.backstage import Backstage


@pytest.fixture
def stage(tmp_path: Path) -> Backstage:
    """A desk that takes three questions a minute."""
    return Backstage(tmp_path, messages_per_minute=3)


def test_a_question_is_stored_before_it_is_sent(stage: Backstage) -> None:
    """Whoever gets it finds the user's message, and that an answer is being written."""
    user = stage.user("ann")
    found = []

    def look(generation: Generation) -> None:
        found.append((stage.messages(generation.conversation_id), stage.generation(generation.task_id)))

    asked = replace(stage.desk, send=look).ask(user, Question("Why?"))
    assert found == [([asked.user], asked.generation)]
    assert (asked.user.role, asked.user.content, asked.generation.state) == ("user", "Why?", "running")


def test_no_provider(stage: Backstage) -> None:
    """Without any, or without the one that is wanted, it is refused before anything is stored."""
    user = stage.user("ann")
    nobody = replace(stage.desk, providers=Providers(replace(stage.config, demo_model=False), {}))
    for desk, question in ((nobody, Question("Why?")), (stage.desk, Question("Why?", provider="openai"))):
        with pytest.raises(Refused) as refused:
            desk.ask(user, question)
        assert (refused.value.status, refused.value.code) == (409, "no_provider")
    assert stage.count("conversations") == stage.count("messages") == stage.count("generations") == 0


@pytest.mark.parametrize("whose", ["nobody's", "another's"])
def test_no_such_conversation(stage: Backstage, whose: str) -> None:
    """One that isn't there and one of somebody else's are refused alike, also where nobody could answer."""
    ann, bob = stage.user("ann"), stage.user("bob")
    place = stage.ask(ann).conversation_id if whose == "another's" else 4711
    before = stage.count("messages")
    nobody = replace(stage.desk, providers=Providers(replace(stage.config, demo_model=False), {}))
    with pytest.raises(Refused, match="There is no such conversation") as refused:
        nobody.ask(bob, Question("Why?", place))
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert stage.count("messages") == before


def test_one_answer_at_a_time(stage: Backstage) -> None:
    """A conversation takes its next question when its answer is there; another one takes it now."""
    user = stage.user("ann")
    asked = stage.ask(user)
    with pytest.raises(Refused) as refused:
        stage.ask(user, "And?", asked.conversation_id)
    assert (refused.value.status, refused.value.code) == (409, "busy")
    assert stage.messages(asked.conversation_id) == [asked.user]
    stage.ask(user, "Elsewhere?")
    keeping.keep_now(stage.database, asked.generation, Answer("succeeded", "Because."))
    stage.ask(user, "And?", asked.conversation_id)


def test_eight_at_the_same_moment(tmp_path: Path) -> None:
    """Exactly one of them is asked."""
    stage = Backstage(tmp_path)
    user = stage.user("ann")
    asked = stage.ask(user)
    keeping.keep_now(stage.database, asked.generation, Answer("succeeded", "Because."))
    together = threading.Barrier(8)

    def ask(number: int) -> str:
        together.wait()
        try:
            stage.ask(user, f"{number}", asked.conversation_id)
        except Refused as refused:
            return refused.code
        return "asked"

    with ThreadPoolExecutor(8) as threads:
        answers = sorted(threads.map(ask, range(8)))
    assert answers == ["asked", *["busy"] * 7]
    assert len(stage.messages(asked.conversation_id)) == 3
    assert len(stage.sent) == 2


def test_too_many(stage: Backstage) -> None:
    """The fourth within a minute is refused, with the seconds until there is room; others may still ask."""
    ann, bob = stage.user("ann"), stage.user("bob")
    for _ in range(3):
        stage.ask(ann)
    with pytest.raises(Refused) as refused:
        stage.ask(ann)
    assert (refused.value.status, refused.value.code) == (429, "too_many")
    assert refused.value.headers is not None
    assert 55 <= int(refused.value.headers["Retry-After"]) <= 60
    assert stage.count("conversations") == 3
    stage.ask(bob)
    with stage.database.connection() as db:
        db.execute("UPDATE generations SET created_at = ? WHERE rowid = 1", (seconds_ago(50),))
    with pytest.raises(Refused) as refused:
        stage.ask(ann)
    assert refused.value.headers is not None
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 10
    with stage.database.connection() as db:
        db.execute("UPDATE generations SET created_at = '2020-01-01T00:00:00.000Z' WHERE rowid = 1")
    stage.ask(ann)


def test_a_limit_is_not_passed_by_asking_in_parallel(stage: Backstage) -> None:
    """Of eight at once three are asked."""
    user = stage.user("ann")
    together = threading.Barrier(8)

    def ask(number: int) -> str:
        together.wait()
        try:
            stage.ask(user, f"{number}")
        except Refused as refused:
            return refused.code
        return "asked"

    with ThreadPoolExecutor(8) as threads:
        answers = sorted(threads.map(ask, range(8)))
    assert answers == [*["asked"] * 3, *["too_many"] * 5]


def test_the_queue_is_away(stage: Backstage) -> None:
    """The question stays, its answer is kept as failed, and the next one may be asked."""
    user = stage.user("ann")

    def send(generation: Generation) -> None:
        raise NotSent("refused")

    desk = Desk(stage.config, stage.database, stage.desk.providers, send)
    with pytest.raises(Refused) as refused:
        desk.ask(user, Question("Why?"))
    assert (refused.value.status, refused.value.code) == (503, "not_sent")
    question, answer = stage.messages(1)
    assert (question.content, answer.state, answer.content) == ("Why?", "failed", "")
    assert answer.error is not None
    assert answer.error["code"] == "not_sent"
    assert answer.task_id is not None
    assert stage.generation(answer.task_id).state == "failed"
    stage.ask(user, "And now?", 1)
