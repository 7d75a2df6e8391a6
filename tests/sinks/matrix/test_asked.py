from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from bridge.events import check_task_id
from bridge.sinks.matrix.asked import Asked, read_news
from bridge.sinks.matrix.message import TASK, Place
from tests.strategies import json_values

ME = "@bot:example.org"
ROOM = "!room:example.org"


def message(event_id: Any = "$1", sender: Any = "@ann:example.org", **content: Any) -> dict[str, Any]:
    """An event as `/sync` brings it."""
    return {
        "type": "m.room.message",
        "event_id": event_id,
        "sender": sender,
        "content": {"msgtype": "m.text", "body": "hello", **content},
    }


def sync(*events: Any, limited: bool = False) -> dict[str, Any]:
    """An answer of `/sync` about one room."""
    room = {"timeline": {"events": list(events), "limited": limited}}
    return {"next_batch": "s2", "rooms": {"join": {ROOM: room}}}


def asked(*events: Any, mentions_only: bool = False) -> list[str]:
    """The events of such an answer that are questions."""
    return [one.event_id for one in read_news(sync(*events), ME, mentions_only=mentions_only).asked]


def test_a_message_is_a_question() -> None:
    """Its answer goes into a thread that it begins, or into its own, and mentions who asked."""
    thread = {"rel_type": "m.thread", "event_id": "$root"}
    news = read_news(sync(message(), message("$2", **{"m.relates_to": thread})), ME, mentions_only=False)
    assert news.since == "s2"
    one, two = news.asked
    assert one == Asked(ROOM, "$1", "@ann:example.org", "hello")
    assert one.place == Place(ROOM, "$1", "$1", ("@ann:example.org",))
    assert two.place == Place(ROOM, "$root", "$2", ("@ann:example.org",))


@pytest.mark.parametrize(
    "event",
    [
        message(sender=ME),
        message(msgtype="m.notice"),
        message(msgtype="m.image"),
        message(**{"m.relates_to": {"rel_type": "m.replace", "event_id": "$0"}}),
        message(**{TASK: {"id": "job-1"}}),
        message(body=None),
        {**message(), "type": "m.reaction"},
        {**message(), "event_id": None},
        {**message(), "content": {}},
        "nonsense",
    ],
)
def test_what_is_no_question(event: Any) -> None:
    """The bot's own, other bots' notices and answers, edits, redacted messages, what makes no sense."""
    assert asked(event, message("$2")) == ["$2"]


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        ({"m.mentions": {"user_ids": [ME]}}, True),
        ({"m.mentions": {"user_ids": ["@other:example.org"]}, "body": f"not {ME}"}, False),
        ({"m.mentions": {}}, False),
        ({"body": f"{ME}: hello"}, True),
        ({"body": "hello"}, False),
        ({"formatted_body": f'<a href="https://matrix.to/#/{ME}">Bot</a>: hello'}, True),
        ({"formatted_body": '<a href="https://matrix.to/#/%40bot%3Aexample.org">Bot</a>'}, True),
    ],
)
def test_only_mentions_if_wanted(content: dict[str, Any], meant: bool) -> None:
    """Who is mentioned is what `m.mentions` says; the text counts for clients that don't write it."""
    assert asked(message(**content), mentions_only=True) == (["$1"] if meant else [])


def test_gaps_and_encrypted_rooms_are_told() -> None:
    """Nothing is left out in silence."""
    encrypted = {"type": "m.room.encrypted", "event_id": "$1", "sender": "@ann:example.org", "content": {}}
    news = read_news(sync(encrypted, encrypted, limited=True), ME, mentions_only=False)
    assert (news.gaps, news.encrypted, news.asked) == ((ROOM,), (ROOM,), ())


def test_a_question_names_its_task() -> None:
    """The same for everybody who reads it, another for any other, and an id that the bridge takes."""
    one = Asked(ROOM, "$1", "@ann:example.org", "a")
    assert one.task_id == Asked(ROOM, "$1", "@bob:example.org", "b").task_id
    assert one.task_id != Asked(ROOM, "$2", "@ann:example.org", "a").task_id
    assert check_task_id(one.task_id).startswith("matrix-")


@given(json_values, json_values)
def test_any_answer_can_be_read(value: Any, event: Any) -> None:
    """A server that sends what makes no sense breaks nothing."""
    for answer in (
        {"rooms": value},
        {"rooms": {"join": value}},
        {"rooms": {"join": {ROOM: value}}},
        sync(event),
    ):
        assert read_news(answer, ME, mentions_only=True).asked == ()
