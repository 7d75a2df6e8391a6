from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import utf8
from bridge.entries import Entry
from bridge.errors import InvalidEvent
from bridge.events import MAX_CHUNK_BYTES, START, Chunk, Data, End, Event, Position, Progress, Reset, State
from bridge.view import View, parse_rfc3339, rfc3339
from tests.strategies import EPOCH, as_log, logs


def view_of(*log: Event) -> View:
    """The view after these events."""
    view = View("job-42")
    view.apply_all(as_log(list(log)))
    return view


def content_of(view: View) -> str:
    """What a restored view must have in common with the first, as JSON text."""
    shown = view.as_dict()
    return json.dumps([shown[name] for name in ("text", "fields", "data", "progress", "message")])


def test_empty_view() -> None:
    """A view without any event is of a queued task that has said nothing."""
    view = View("job-42")
    assert view.position == START
    assert not view.ended
    assert view.as_dict() == {
        "id": "job-42", "state": "queued", "attempt": 0, "position": "0-0", "text": "", "fields": {},
        "progress": None, "message": None, "data": {}, "cancel_requested": False, "result": None,
        "error": None, "usage": None, "truncated": False, "created_at": None, "started_at": None,
        "updated_at": None, "ended_at": None,
    }  # fmt: skip


def test_a_whole_life() -> None:
    """Each kind of event does to the view what the vocabulary says."""
    view = view_of(
        State("queued", 0, False, EPOCH, None, EPOCH),
        State("running", 1, False, EPOCH, EPOCH + 1000, EPOCH + 1000),
        Chunk("Hello ", at=EPOCH + 1500),
        Chunk("hm", "reasoning"),
        Progress(0.4, "reading", EPOCH + 2000),
        Data("sources", [1], EPOCH + 2000),
        Chunk("world"),
        State("running", 1, True, EPOCH, EPOCH + 1000, EPOCH + 2500),
        End(
            "failed", {"code": "c", "message": "m"}, {"r": 1}, {"tokens": 2}, {"text": 11}, True, EPOCH + 3001
        ),
    )
    assert view.ended
    assert view.as_dict() == {
        "id": "job-42", "state": "failed", "attempt": 1, "position": f"{EPOCH}-9", "text": "Hello world",
        "fields": {"reasoning": "hm"}, "progress": 0.4, "message": "reading", "data": {"sources": [1]},
        "cancel_requested": True, "result": {"r": 1}, "error": {"code": "c", "message": "m"},
        "usage": {"tokens": 2}, "truncated": True, "created_at": "2025-11-20T14:46:40.000Z",
        "started_at": "2025-11-20T14:46:41.000Z", "updated_at": "2025-11-20T14:46:43.001Z",
        "ended_at": "2025-11-20T14:46:43.001Z",
    }  # fmt: skip


@given(logs())
def test_a_reset_forgets_everything(log: list[Entry]) -> None:
    """After a reset the view is as if nothing had been before it."""
    view = View("job-42")
    view.apply_all(log)
    view.apply(Position(EPOCH + 1, 1), Reset("retry", 2, EPOCH))
    fresh = View("job-42")
    fresh.apply(Position(EPOCH + 1, 1), Reset("retry", 2, EPOCH))
    assert view.as_dict() == fresh.as_dict()
    assert view.content() == []


@given(logs())
def test_content_reproduces_the_view(log: list[Entry]) -> None:
    """An empty view that is given `content` shows the same text, fields, data and progress."""
    view = View("job-42")
    view.apply_all(log)
    again = View("job-42")
    for event in view.content():
        again.apply(START, event)
    assert content_of(again) == content_of(view)
    assert again.content() == view.content()


@given(
    st.lists(
        st.sampled_from([Chunk("a"), Chunk("b", "reasoning"), Data("x", 1), Data("y", 2), Progress(0.5)])
    )
)
def test_content_is_as_short_as_can_be(said: list[Event]) -> None:
    """There is one chunk per field, one event per name and one progress, however often each was said."""
    kinds = [
        (event.kind, getattr(event, "field", getattr(event, "name", "")))
        for event in view_of(*said).content()
    ]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {(event.kind, getattr(event, "field", getattr(event, "name", ""))) for event in said}


def test_content_cuts_long_text() -> None:
    """Text over 64 KiB is given back in several chunks, each within the limit."""
    view = view_of(Chunk("é" * MAX_CHUNK_BYTES))
    pieces = [event.text for event in view.content() if isinstance(event, Chunk)]
    assert "".join(pieces) == view.text
    assert len(pieces) == 2
    assert all(len(utf8(piece)) <= MAX_CHUNK_BYTES for piece in pieces)


def test_a_field_without_text_is_not_shown() -> None:
    """An empty chunk doesn't bring a field into being."""
    assert view_of(Chunk("", "reasoning")).fields == {}
    assert view_of(Chunk("", "reasoning")).content() == []


def test_data_stands_in_the_order_of_its_last_change() -> None:
    """A name that is said again moves to the end, so that a replay without the older one looks the same."""
    assert list(view_of(Data("a", 1), Data("b", 1), Data("a", 2)).data.items()) == [("b", 1), ("a", 2)]


def test_reading_does_not_disturb() -> None:
    """Text read between two chunks is what was there, and the next chunk still follows it."""
    view = view_of(Chunk("a"), Chunk("b"))
    assert (view.text, view.text) == ("ab", "ab")
    view.apply(Position(EPOCH, 3), Chunk("c"))
    assert view.text == "abc"
    assert view.text_of("reasoning") == ""


def test_as_dict_is_a_picture() -> None:
    """What was read once doesn't change when the view goes on."""
    view = view_of(Data("a", 1), Chunk("x", "reasoning"))
    before = view.as_dict()
    copy = json.loads(json.dumps(before))
    view.apply(Position(EPOCH, 3), Data("b", 2))
    view.apply(Position(EPOCH, 4), Chunk("y", "reasoning"))
    assert before == copy


@given(st.integers(0, 253_402_300_799_999))
def test_rfc3339_is_exact(ms: int) -> None:
    """Every millisecond up to the year 9999 has its own text, and it reads back as that millisecond."""
    text = rfc3339(ms)
    assert text is not None
    assert text.endswith("Z")
    assert datetime.fromisoformat(text).replace(microsecond=0) == datetime.fromtimestamp(ms // 1000, UTC)
    assert int(text[20:23]) == ms % 1000
    assert parse_rfc3339(text) == ms


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "1763650000000"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """A text that doesn't name one moment is no time."""
    with pytest.raises(InvalidEvent, match="a time looks like"):
        parse_rfc3339(text)


def test_a_view_shows_itself_briefly() -> None:
    """At a terminal a view says where it is and how much it holds, not all of its text."""
    view = View("job")
    view.apply(Position(7, 3), Chunk("a" * 100_000))
    assert repr(view) == "<View job queued at 7-3: 100000 characters>"


def test_rfc3339_of_nothing() -> None:
    """An unknown time is null."""
    assert rfc3339(None) is None
