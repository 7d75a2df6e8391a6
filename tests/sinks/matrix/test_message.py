from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.codec import dumps
from bridge.sinks.matrix.message import (
    CONTENT_BYTES,
    LIVE,
    MOST_MENTIONS,
    NOTE_CHARACTERS,
    TASK,
    TEXT_BYTES,
    Body,
    Place,
    Style,
    edit,
    first,
    usage_line,
)
from bridge.sinks.matrix.split import split

ROOM = "!room:example.org"
STYLE = Style()
PLAIN = Place(ROOM)


def test_a_first_message() -> None:
    """Text and HTML, the live mark, the task that it shows, and nobody mentioned."""
    assert first(Body("**Hi**", live=True), PLAIN, STYLE, "job-1", 0, "") == {
        "msgtype": "m.text",
        "body": "**Hi**",
        "format": "org.matrix.custom.html",
        "formatted_body": "<p><strong>Hi</strong></p>",
        "m.mentions": {},
        LIVE: {},
        TASK: {"id": "job-1", "part": 0},
    }


def test_an_edit() -> None:
    """The whole text anew, aimed at the first event, with an asterisk for clients that know no edits."""
    assert edit(Body("**Hi** you"), "$1", PLAIN, STYLE, "job-1", 0) == {
        "msgtype": "m.text",
        "body": "* **Hi** you",
        "m.mentions": {},
        TASK: {"id": "job-1", "part": 0},
        "m.new_content": {
            "msgtype": "m.text",
            "body": "**Hi** you",
            "format": "org.matrix.custom.html",
            "formatted_body": "<p><strong>Hi</strong> you</p>",
            "m.mentions": {},
            TASK: {"id": "job-1", "part": 0},
        },
        "m.relates_to": {"rel_type": "m.replace", "event_id": "$1"},
    }


def test_a_live_edit_carries_the_mark_and_the_last_does_not() -> None:
    """The mark of MSC4357 stands where old and new clients look for it."""
    live = edit(Body("a", live=True), "$1", PLAIN, STYLE, "job-1", 0)
    assert live[LIVE] == live["m.new_content"][LIVE] == {}
    done = edit(Body("a"), "$1", PLAIN, STYLE, "job-1", 0)
    assert LIVE not in done
    assert LIVE not in done["m.new_content"]


def test_a_mention_stands_at_the_top_of_the_first_event_only() -> None:
    """So it notifies once; an edit says in its new content who is mentioned, which notifies nobody."""
    place = Place(ROOM, mentions=("@ann:example.org",))
    named = {"user_ids": ["@ann:example.org"]}
    assert first(Body("a"), place, STYLE, "job-1", 0, "")["m.mentions"] == named
    assert first(Body("a"), place, STYLE, "job-1", 1, "$1")["m.mentions"] == {}
    edited = edit(Body("a"), "$1", place, STYLE, "job-1", 0)
    assert (edited["m.mentions"], edited["m.new_content"]["m.mentions"]) == ({}, named)


@pytest.mark.parametrize(
    ("place", "previous", "relation"),
    [
        (Place(ROOM), "", None),
        (Place(ROOM, reply_to="$q"), "", {"m.in_reply_to": {"event_id": "$q"}}),
        (Place(ROOM, reply_to="$q"), "$1", None),
        (
            Place(ROOM, thread="$t"),
            "",
            {
                "rel_type": "m.thread",
                "event_id": "$t",
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": "$t"},
            },
        ),
        (
            Place(ROOM, thread="$t", reply_to="$q"),
            "",
            {
                "rel_type": "m.thread",
                "event_id": "$t",
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": "$q"},
            },
        ),
        (
            Place(ROOM, thread="$t", reply_to="$q"),
            "$1",
            {
                "rel_type": "m.thread",
                "event_id": "$t",
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": "$1"},
            },
        ),
    ],
)
def test_threads_and_replies(place: Place, previous: str, relation: object) -> None:
    """A thread's messages all belong to it; of a plain reply only the first message is one."""
    index = 1 if previous else 0
    assert first(Body("a"), place, STYLE, "job-1", index, previous).get("m.relates_to") == relation
    edited = edit(Body("a"), "$e", place, STYLE, "job-1", index)
    assert edited["m.relates_to"] == {"rel_type": "m.replace", "event_id": "$e"}


def test_a_note_stands_below_and_is_no_markdown() -> None:
    """What is said about the answer can't be swallowed by its markup, nor bring its own."""
    body = Body("```\nopen", note="⚠️ Failed: *no* <b>")
    made = first(body, PLAIN, STYLE, "job-1", 0, "")
    assert made["body"] == "```\nopen\n\n⚠️ Failed: *no* <b>"
    assert made["formatted_body"] == ("<pre><code>open</code></pre><p><em>⚠️ Failed: *no* &lt;b&gt;</em></p>")
    assert first(Body("", note="Stopped."), PLAIN, STYLE, "j", 0, "")["body"] == "Stopped."


def test_a_style_can_ask_for_notices_and_for_text_alone() -> None:
    """Then messages are m.notice, and Markdown stays as it was written."""
    made = first(Body("**a**", html=False), PLAIN, Style(notice=True), "job-1", 0, "")
    assert made["msgtype"] == "m.notice"
    assert "formatted_body" not in made


@settings(max_examples=25, deadline=None)
@given(
    st.text(st.sampled_from("<>&\"'[]()`*_~#|-\n\x01é🙂ab"), min_size=1)
    | st.sampled_from(
        ["- " * 9000, "<" * 20000, "> " * 9000, "|a" * 9000 + "\n" + "|-" * 9000, "[a](b)" * 4000]
    ),
    st.integers(1, 4000),
    st.booleans(),
)
def test_every_event_is_under_the_limit(text: str, times: int, live: bool) -> None:
    """However much markup comes of the text, its events fit, with their text whole."""
    place = Place(ROOM, "$" + "t" * 250, "$" + "q" * 250, tuple(["@" + "u" * 250] * MOST_MENTIONS * 10))
    for piece in split((text * times)[:40_000], TEXT_BYTES, 2)[0]:
        body = Body(piece.text, piece.opening, "\x01" * NOTE_CHARACTERS, live)
        for content in (
            first(body, place, STYLE, "j" * 200, 0, ""),
            edit(body, "$" + "e" * 250, place, STYLE, "j" * 200, 0),
        ):
            assert len(dumps(content)) <= CONTENT_BYTES
            assert piece.text in content["body"]


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (None, ""),
        ({}, ""),
        ({"input_tokens": 1200, "output_tokens": 34}, "1,200 input tokens, 34 output tokens"),
        ({"total": 1.5, "model": "x", "cached": True, "details": {"a": 1}}, "1.5 total"),
    ],
)
def test_usage_in_words(usage: dict[str, object] | None, line: str) -> None:
    """Numbers with their names; what is no number is left out."""
    assert usage_line(usage) == line
