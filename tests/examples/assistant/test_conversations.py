"""conversations: what is said in them, what a model is told, and whose they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from assistant import conversations, keeping
from assistant.conversations import Generation
from assistant.database import SCHEMA
from assistant.keeping import Answer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples.assistant.backstage import Backstage


@pytest.fixture
def stage(tmp_path: Path) -> Backstage:
    """Nobody is there yet."""
    return Backstage(tmp_path)


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("Why?", "Why?"),
        ("one\n two\t three ", "one two three"),
        ("a" * 60, "a" * 60),
        ("a" * 61, "a" * 59 + "…"),
    ],
)
def test_a_title(stage: Backstage, content: str, title: str) -> None:
    """A conversation is named after its first words, in one line of at most 60 characters."""
    assert stage.ask(stage.user("ann"), content).title == title


def test_the_list(stage: Backstage) -> None:
    """The latest comes first, those of others are not in it, and it says where an answer is being written."""
    ann, bob = stage.user("ann"), stage.user("bob")
    first, second, _ = stage.ask(ann, "first"), stage.ask(ann, "second"), stage.ask(bob, "third")
    keeping.keep_now(stage.database, first.generation, Answer("succeeded", "done"))
    with stage.database.connection() as db:
        listed = conversations.list_all(db, ann.id)
    assert [(one.title, one.running) for one in listed] == [("first", False), ("second", True)]
    assert [one.id for one in listed] == [first.conversation_id, second.conversation_id]


def test_somebody_elses(stage: Backstage) -> None:
    """A conversation or an answer of another user is none."""
    ann, bob = stage.user("ann"), stage.user("bob")
    asked = stage.ask(ann)
    with stage.database.connection() as db:
        assert conversations.find(db, ann.id, asked.conversation_id) == "Why?"
        assert conversations.find(db, bob.id, asked.conversation_id) is None
        assert conversations.generation(db, asked.generation.task_id, ann.id) == asked.generation
        assert conversations.generation(db, asked.generation.task_id, bob.id) is None


def test_what_a_message_holds(stage: Backstage) -> None:
    """It is read as it was stored, to the last character."""
    asked = stage.ask(stage.user("ann"), "\u2028 ' \" \0 👋🏽")
    answer = Answer(
        "failed", "a\r\n\0ü", {"code": "x", "message": "„y“"}, {"output_tokens": 3}, "openai", "m"
    )
    kept = keeping.keep_now(stage.database, asked.generation, answer)
    assert stage.messages(asked.conversation_id) == [asked.user, kept]
    assert (kept.content, kept.error, kept.usage) == (answer.content, answer.error, answer.usage)
    assert (kept.partial, kept.state, kept.provider, kept.model) == (True, "failed", "openai", "m")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "partial", "whole"]), max_size=14))
def test_what_a_model_is_told(answers: list[str]) -> None:
    """At most the last ten messages, beginning with a user's and ending with the question; no empty ones."""
    everything = []
    with memory() as db:
        place, _ = conversations.begin(db, 1, "…")
        for number, text in enumerate(answers):
            everything.append({"role": "user", "content": f"question {number}"})
            generation = ask(db, place, f"question {number}")
            keeping.keep(db, generation, Answer("succeeded", text))
            everything += [{"role": "assistant", "content": text}] if text else []
        generation = ask(db, place, "now")
        keeping.keep(db, generation, Answer("succeeded", "too late to be told"))
        said = conversations.context(db, generation)
    everything.append({"role": "user", "content": "now"})
    assert said == everything[-len(said) :]
    assert said[0]["role"] == "user"
    assert min(9, len(everything)) <= len(said) <= 10


@contextmanager
def memory() -> Iterator[sqlite3.Connection]:
    """The tables, with a user in them, and no file."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.row_factory = sqlite3.Row
        db.executescript(SCHEMA)
        db.execute("INSERT INTO users (name, password) VALUES ('ann', '')")
        yield db


def ask(db: sqlite3.Connection, place: int, content: str) -> Generation:
    """Say something that is to be answered."""
    message = conversations.say(db, place, content)
    return conversations.start(db, 1, message, f"task-{message.id}", None)
