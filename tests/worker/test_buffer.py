from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import encode, utf8
from bridge.events import MAX_CHUNK_BYTES, Chunk, Data
from bridge.worker import buffer as module
from bridge.worker.buffer import EMPTY, PROGRESS, PROGRESS_SECONDS, TEXT, URGENT, Buffer
from bridge.worker.fold import Fact, Fold, Piece


def plenty() -> Buffer:
    """A buffer that nothing fills."""
    return Buffer(10**9, 4096)


def data(buffer: Buffer, name: str, value: object) -> None:
    """Report data as the hook does."""
    buffer.add_data(name, encode(Data(name, value)))


def said(pieces: list[Piece]) -> list[tuple[str, object]]:
    """Pieces in a short form: field and text, name and value, "progress" and fraction."""
    short: list[tuple[str, object]] = []
    for piece in pieces:
        if isinstance(piece, Chunk):
            short.append((piece.field, piece.text))
        else:
            members = json.loads(piece.data)
            short.append((piece.name or piece.kind, members["value" if piece.name else "progress"]))
    return short


def test_adjacent_text_of_a_field_is_one_chunk() -> None:
    """Runs are merged, another field or data begins a new one, and the order stays."""
    buffer = plenty()
    buffer.add_text("a", "text")
    buffer.add_text("b", "text")
    buffer.add_text("c", "other")
    buffer.add_text("d", "text")
    data(buffer, "x", 1)
    buffer.add_text("e", "text")
    assert said(buffer.take()) == [("text", "ab"), ("other", "c"), ("text", "d"), ("x", 1), ("text", "e")]
    assert buffer.take() == []


def test_a_newer_progress_replaces_one_that_still_waits() -> None:
    """Only the last progress of a batch is sent, and the text around the others is one chunk."""
    buffer = plenty()
    for step in range(5):
        buffer.add_text(str(step), "text")
        buffer.add_progress(step / 10, None)
    buffer.add_progress(0.9, None)
    assert said(buffer.take()) == [("text", "01234"), ("progress", 0.9)]


def test_adjacent_data_of_a_name_is_sent_once() -> None:
    """Data is replaced while nothing stands after it; another name or text keeps its place."""
    buffer = plenty()
    data(buffer, "x", 1)
    data(buffer, "x", 2)
    data(buffer, "y", 3)
    data(buffer, "x", 4)
    assert said(buffer.take()) == [("x", 2), ("y", 3), ("x", 4)]


def test_a_chunk_is_at_most_64_kib() -> None:
    """Long text is cut between characters."""
    buffer = plenty()
    buffer.add_text("x" + "€" * 50_000, "text")
    pieces = buffer.take()
    sizes = [len(piece.text.encode()) for piece in pieces if isinstance(piece, Chunk)]
    assert sum(sizes) == 150_001
    assert max(sizes) <= MAX_CHUNK_BYTES
    assert len(sizes) == 3


@pytest.mark.parametrize(
    ("fill", "level"),
    [
        (lambda b: None, EMPTY),
        (lambda b: b.add_text("", "text"), EMPTY),
        (lambda b: b.add_text("x", "text"), TEXT),
        (lambda b: b.add_text("x" * 4095, "text"), TEXT),
        (lambda b: b.add_text("x" * 4096, "text"), URGENT),
        (lambda b: [b.add_text("x" * 100, "text") for _ in range(41)], URGENT),
        (lambda b: b.add_progress(0.5, None), PROGRESS),
        (lambda b: data(b, "x", 1), URGENT),
    ],
)
def test_the_level_says_how_soon(fill: Callable[[Buffer], object], level: int) -> None:
    """Text may wait, progress less, much text and data not at all."""
    buffer = plenty()
    fill(buffer)
    assert buffer.level == level
    when = {EMPTY: math.inf, TEXT: 101.0, PROGRESS: 100 + PROGRESS_SECONDS, URGENT: -math.inf}
    assert buffer.due(100.0, 1.0) == when[level]
    buffer.take()
    assert buffer.level == EMPTY


def test_the_pump_is_told_only_when_the_level_rises() -> None:
    """A thousand texts wake the pump once, not a thousand times."""
    signals: list[int] = []
    buffer = plenty()
    buffer.connect(lambda: signals.append(buffer.level))
    for _ in range(1000):
        buffer.add_text("x", "text")
    buffer.add_progress(0.1, None)
    for _ in range(5000):
        buffer.add_text("x", "text")
    buffer.take()
    buffer.add_text("x", "text")
    assert signals == [TEXT, TEXT, URGENT, TEXT]


def test_text_is_cut_exactly_at_the_limit() -> None:
    """The last character that fits is kept, and nothing after it, however small."""
    buffer = Buffer(10, 4096)
    buffer.add_text("12345678", "text")
    assert not buffer.truncated
    buffer.add_text("9€", "other")
    assert buffer.truncated
    buffer.add_text("x", "text")
    data(buffer, "x", 1)
    assert said(buffer.take()) == [("text", "12345678"), ("other", "9")]


def test_exactly_the_limit_is_not_too_much() -> None:
    """Text that fills the last byte is whole."""
    buffer = Buffer(6, 4096)
    buffer.add_text("€€", "text")
    assert not buffer.truncated
    assert said(buffer.take()) == [("text", "€€")]


def test_data_that_does_not_fit_leaves_room_for_text() -> None:
    """Too large a value is left out and marked; text goes on."""
    buffer = Buffer(100, 4096)
    data(buffer, "x", "y" * 200)
    buffer.add_text("text", "text")
    assert buffer.truncated
    assert said(buffer.take()) == [("text", "text")]


def test_fields_and_names_are_limited() -> None:
    """What comes under more names than a task may have is left out and marked."""
    buffer = plenty()
    for number in range(module.MAX_FIELDS + 1):
        buffer.add_text("x", f"f{number}")
    assert buffer.truncated
    assert len(buffer.take()) == module.MAX_FIELDS
    buffer = plenty()
    for number in range(module.MAX_NAMES + 1):
        data(buffer, f"n{number}", 1)
    assert buffer.truncated
    assert len(buffer.take()) == module.MAX_NAMES


def test_many_small_events_do_not_pile_up() -> None:
    """While nobody fetches them they are folded: memory follows the content, not the number of calls."""
    buffer = plenty()
    for step in range(20_000):
        buffer.add_text("a", "text")
        buffer.add_text("b", "other")
        data(buffer, "x", step)
        buffer.add_progress(step / 20_000, None)
    pieces = buffer.take()
    assert len(pieces) < 2 * module._CROWD + 10
    fold = Fold()
    fold.add(pieces)
    assert fold.lengths() == {"text": 20_000, "other": 20_000}
    assert said([p for p in pieces if isinstance(p, Fact)])[-1] == ("progress", 19_999 / 20_000)
    assert [value for name, value in said(pieces) if name == "x"][-1] == 19_999


def test_a_closed_buffer_takes_nothing() -> None:
    """After the end reports are dropped and say stop."""
    buffer = plenty()
    buffer.add_text("a", "text")
    buffer.close()
    buffer.add_text("b", "text")
    buffer.add_progress(0.1, None)
    data(buffer, "x", 1)
    assert not buffer.go_on
    assert said(buffer.take()) == [("text", "a")]


def test_a_signal_handler_may_report_in_the_middle_of_a_report() -> None:
    """The same thread can come again while it is inside."""
    buffer = plenty()
    buffer.connect(lambda: buffer.add_text("from the handler", "text"))
    buffer.add_text("a", "text")
    assert said(buffer.take()) == [("text", "afrom the handler")]


def test_a_left_behind_buffer_does_not_wait_for_its_lock() -> None:
    """In a forked child the lock may be held by a thread that isn't there; it is ignored."""
    buffer = plenty()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with buffer._lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    buffer.leave_behind()
    buffer.add_text("x", "text")
    assert buffer.go_on
    assert buffer.take() == []
    release.set()
    thread.join()


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
reports = st.one_of(
    st.tuples(st.just("text"), st.sampled_from(["text", "a", "b"]), texts),
    st.tuples(st.just("data"), st.sampled_from(["x", "y"]), st.integers()),
    st.tuples(st.just("progress"), st.just(""), st.floats(0, 1)),
    st.tuples(st.just("take"), st.just(""), st.just(0)),
)


@given(st.lists(reports, max_size=80), st.integers(1, 8))
def test_any_reports_fold_to_what_was_reported(steps: list[tuple[str, str, object]], crowd: int) -> None:
    """However reports are mixed and fetched: texts are whole, and the latest data and progress win."""
    buffer, fold = plenty(), Fold()
    expected_texts: dict[str, str] = {}
    expected: dict[str, object] = {}
    buffer._crowd = crowd
    for kind, name, value in steps:
        if kind == "take":
            fold.add(buffer.take())
            buffer._crowd = crowd
        elif kind == "text":
            assert isinstance(value, str)
            buffer.add_text(value, name)
            if value:
                expected_texts[name] = expected_texts.get(name, "") + utf8(value).decode()
        elif kind == "data":
            data(buffer, name, value)
            expected[name] = value
        else:
            assert isinstance(value, float)
            buffer.add_progress(value, None)
            expected["progress"] = value
    fold.add(buffer.take())
    sent = fold.wire()
    got_texts: dict[str, str] = {}
    got: dict[str, object] = {}
    for kind_sent, raw in zip(sent[::2], sent[1::2], strict=True):
        members = json.loads(raw)
        if kind_sent == "chunk":
            field = members.get("field", "text")
            got_texts[field] = got_texts.get(field, "") + members["text"]
        elif kind_sent == "data":
            got[members["name"]] = members["value"]
        else:
            got["progress"] = members["progress"]
    assert (got_texts, got) == (expected_texts, expected)
    assert fold.lengths() == {field: len(text.encode()) for field, text in expected_texts.items()}
