from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.codec import decode, utf8
from bridge.entries import Entry
from bridge.events import MAX_CHUNK_BYTES, Chunk, Data, End, Event, Progress, Reset, State
from bridge.merge import compact, split_text
from bridge.view import View
from tests.strategies import as_log, chunks, logs


def folded(entries: list[Entry]) -> str:
    """The view after these entries, as JSON text: also the order of its members counts."""
    view = View("t")
    view.apply_all(entries)
    return json.dumps(view.as_dict())


def chunk_sizes(entries: list[Entry]) -> list[int]:
    """How many bytes of text each chunk holds."""
    return [len(utf8(e.event.text)) for e in entries if isinstance(e.event, Chunk)]


@given(logs())
def test_compact_never_changes_the_fold(log: list[Entry]) -> None:
    """The view after the compacted entries equals the view after all, to the letter."""
    assert folded(compact(log)) == folded(log)


@given(logs())
def test_compact_keeps_the_last_position_and_the_order(log: list[Entry]) -> None:
    """Positions strictly increase, all of them occur in the log, and the last one is kept."""
    positions = [entry.position for entry in compact(log)]
    assert positions == sorted(set(positions))
    assert set(positions) <= {entry.position for entry in log}
    assert positions[-1:] == [entry.position for entry in log[-1:]]


@given(logs())
def test_compact_again_changes_nothing(log: list[Entry]) -> None:
    """Compacting is idempotent, and each entry's data is its event's JSON."""
    once = compact(log)
    assert compact(once) == once
    assert all(decode(entry.event.kind, entry.data) == entry.event for entry in once)


@given(logs(), st.integers(0, 30))
def test_compact_may_be_done_in_parts(log: list[Entry], cut: int) -> None:
    """Compacting the parts, and compacting them again together, folds to the same view."""
    parts = compact(log[:cut]) + compact(log[cut:])
    assert folded(parts) == folded(log)
    assert folded(compact(parts)) == folded(log)


@given(logs(), st.integers(0, 30))
def test_compact_continues_a_view(log: list[Entry], cut: int) -> None:
    """A reader who has folded a part and then gets the compacted rest has the whole."""
    view = View("t")
    view.apply_all(log[:cut])
    view.apply_all(compact(log[cut:]))
    assert json.dumps(view.as_dict()) == folded(log)


@given(st.lists(st.tuples(
    st.sampled_from(["x", "é", "😀"]),
    st.sampled_from([1, 1000, MAX_CHUNK_BYTES // 4, MAX_CHUNK_BYTES // 2, MAX_CHUNK_BYTES]),
    st.sampled_from(["text", "reasoning"]),
), max_size=12))  # fmt: skip
def test_merged_chunks_stay_within_the_limit(pieces: list[tuple[str, int, str]]) -> None:
    """No chunk grows over 64 KiB by merging, and no two neighbours of one field are left that would fit."""
    log = as_log([Chunk(letter * count, field) for letter, count, field in pieces])
    merged = compact(log)
    assert folded(merged) == folded(log)
    largest = max(chunk_sizes(log), default=0)
    assert all(size <= max(MAX_CHUNK_BYTES, largest) for size in chunk_sizes(merged))
    for one, two in pairwise(merged):
        assert isinstance(one.event, Chunk)
        assert isinstance(two.event, Chunk)
        if one.event.field == two.event.field:
            assert sum(chunk_sizes([one, two])) > MAX_CHUNK_BYTES


@given(st.lists(chunks.map(lambda chunk: Chunk(chunk.text)), min_size=1, max_size=30))
def test_a_run_of_short_chunks_becomes_one(run: list[Chunk]) -> None:
    """Ten thousand tokens are one event for a late reader."""
    merged = compact(as_log(list[Event](run)))
    assert [entry.event for entry in merged] == [Chunk("".join(chunk.text for chunk in run))]
    assert merged[0].position.seq == len(run)


def test_compact_leaves_out_what_is_superseded() -> None:
    """Of progress and of data by name the last stays, and nothing from before a reset."""
    log = as_log([
        Chunk("gone"), Data("a", 0, 1), Reset("retry", 2, 2), State("running", 2, at=2), Chunk("x"),
        Progress(0.1, None, 3), Chunk("y"), Data("a", 1, 4), Data("b", 1, 5), Chunk("z", "reasoning"),
        Progress(0.2, "two", 6), Data("a", 2, 7), End("succeeded", length={}, at=8),
    ])  # fmt: skip
    assert [str(entry.event.kind) for entry in compact(log)] == [
        "reset", "state", "chunk", "data", "chunk", "progress", "data", "end",
    ]  # fmt: skip


def test_a_merged_chunk_carries_the_last_time() -> None:
    """Of the times in a run of chunks the last one in the log stays, as in the fold."""
    merged = compact(as_log([Chunk("a", at=5), Chunk("b"), Chunk("c", at=3), Chunk("d")]))
    assert [entry.event for entry in merged] == [Chunk("abcd", at=3)]


# Cutting


@given(st.text(), st.integers(4, 40))
@example("😀" * 20, 4)
@example("aé" * 20, 5)
def test_split_text_is_exact(text: str, limit: int) -> None:
    """The pieces joined are the text, none is empty or too large, and none could take one more character."""
    pieces = list(split_text(text, limit))
    assert "".join(pieces) == text
    sizes = [len(piece.encode()) for piece in pieces]
    assert all(0 < size <= limit for size in sizes)
    for size, following in zip(sizes, pieces[1:], strict=False):
        assert size + len(following[0].encode()) > limit


def test_split_text_refuses_a_limit_that_no_character_fits() -> None:
    """A limit below four bytes is an error, not an endless loop."""
    with pytest.raises(ValueError, match="4 bytes"):
        list(split_text("😀", 3))
