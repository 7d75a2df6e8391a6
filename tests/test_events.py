from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.codec import MAX_DEPTH, decode, dumps, encode, utf8
from bridge.errors import InvalidEvent, InvalidPosition, InvalidTaskId
from bridge.events import (
    MAX_CHUNK_BYTES,
    START,
    UNKNOWN_TASK_END,
    Chunk,
    Data,
    End,
    Entry,
    Event,
    Position,
    Progress,
    Reset,
    State,
    check_task_id,
)
from bridge.merge import compact, split_text
from bridge.view import View
from tests.strategies import EPOCH, as_log, chunks, events, json_values, logs

KINDS = ["state", "chunk", "progress", "data", "reset", "end"]


def folded(entries: list[Entry]) -> str:
    """The view after these entries, as JSON text: also the order of its members counts."""
    view = View("t")
    view.apply_all(entries)
    return json.dumps(view.as_dict())


def chunk_sizes(entries: list[Entry]) -> list[int]:
    """How many bytes of text each chunk holds."""
    return [len(utf8(e.event.text)) for e in entries if isinstance(e.event, Chunk)]


# Task ids and positions


@pytest.mark.parametrize("task_id", ["a", "job-42", "A.z_9:~-", "x" * 200])
def test_task_id_of_the_allowed_characters_is_returned(task_id: str) -> None:
    """An id of 1-200 allowed characters comes back as it is."""
    assert check_task_id(task_id) == task_id


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        "x" * 201,
        "a\n",
        "\na",
        "a\r\nb",
        "a\0",
        "a b",
        "a/b",
        "{a}",
        "a%2F",
        "ä",
        "٣",
        "a\u2028",
        "\ud800",
    ],
)
def test_any_other_task_id_is_refused(task_id: str) -> None:
    """Empty, long, and ids with any other character, even a trailing line end, are refused."""
    with pytest.raises(InvalidTaskId) as caught:
        check_task_id(task_id)
    assert "1-200 characters" in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_position_survives_its_text(epoch: int, seq: int) -> None:
    """A position is the same after it was written and read."""
    position = Position(epoch, seq)
    assert Position.parse(str(position)) == position


@given(st.lists(st.tuples(st.integers(0, 10**16), st.integers(0, 10**16))))
def test_positions_are_ordered_as_numbers(pairs: list[tuple[int, int]]) -> None:
    """Epoch first, then seq, both as numbers: -10 comes after -9."""
    assert [(p.epoch, p.seq) for p in sorted(Position(*pair) for pair in pairs)] == sorted(pairs)
    assert START < UNKNOWN_TASK_END < Position(EPOCH, 9) < Position(EPOCH, 10) < Position(EPOCH + 1, 0)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "1-", "-", "1-2-3", "1--2", "+1-2", " 1-2", "1-2 ", "1-2\n", "1-2\0", "a-b", "١-٢",
     "1.0-2", "1_0-2", "99999999999999999-1", "1-99999999999999999", "1-" + "9" * 100_000],
)  # fmt: skip
def test_any_other_text_is_no_position(text: str) -> None:
    """Whatever isn't two plain numbers of at most 16 digits is refused, with a short message."""
    with pytest.raises(InvalidPosition) as caught:
        Position.parse(text)
    assert len(str(caught.value)) < 400


# Encoding and decoding


@given(events)
def test_every_event_survives_its_encoding(event: Event) -> None:
    """Decoding what was encoded gives the same event, from bytes and from text."""
    data = encode(event)
    assert decode(event.kind, data) == event
    assert decode(event.kind, data.decode()) == event


@given(events)
def test_encoded_data_is_one_compact_line(event: Event) -> None:
    """The data is one JSON object in UTF-8 without any line end, ready for the log and the stream."""
    data = encode(event)
    assert data.startswith(b"{")
    assert data.endswith(b"}")
    assert not set(data) & {0x0A, 0x0D, 0x00}
    assert data == dumps(json.loads(data))


def test_decode_fills_in_what_is_missing() -> None:
    """Members that a short event leaves out have their defaults; unknown ones are ignored."""
    assert decode("chunk", '{"text":"a","colour":"red"}') == Chunk("a")
    assert decode("progress", "{}") == Progress()
    assert decode("progress", '{"progress":1}') == Progress(1.0)
    assert decode("state", '{"state":"running"}') == State("running")
    assert decode("reset", '{"reason":"retry"}') == Reset("retry")
    assert decode("data", '{"name":"n","value":null}') == Data("n", None)
    assert decode("end", '{"state":"failed"}') == End("failed")


HOSTILE = [
    b"", b"null", b"[]", b'"x"', b"1", b"{", b"{}}", b"nul", b"\xff", b'{"text":"\xed\xa0\x80"}',
    b"\xef\xbb\xbf{}", '{"text":"a"}'.encode("utf-16"), b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:12]))
def test_what_is_no_json_object_is_an_invalid_event(kind: str, data: bytes) -> None:
    """Anything but one JSON object in UTF-8, however deep or long, is refused with a short message."""
    with pytest.raises(InvalidEvent) as caught:
        decode(kind, data)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("chunk", "{}"),
        ("chunk", '{"text":null}'),
        ("chunk", '{"text":1}'),
        ("chunk", '{"text":"a","field":null}'),
        ("chunk", '{"text":"a","field":["x"]}'),
        ("chunk", '{"text":"a","at":"now"}'),
        ("chunk", '{"text":"a","at":1.5}'),
        ("chunk", '{"text":"a","at":-1}'),
        ("chunk", '{"text":"a","at":true}'),
        ("chunk", '{"text":"a","at":1' + "0" * 30 + "}"),
        ("progress", '{"progress":"0.5"}'),
        ("progress", '{"progress":true}'),
        ("progress", '{"progress":1.01}'),
        ("progress", '{"progress":-0.01}'),
        ("progress", '{"progress":NaN}'),
        ("progress", '{"progress":1' + "0" * 400 + "}"),
        ("progress", '{"message":[]}'),
        ("data", '{"name":"n"}'),
        ("data", '{"value":1}'),
        ("data", '{"name":null,"value":1}'),
        ("data", '{"name":"n","value":NaN}'),
        ("data", '{"name":"n","value":[Infinity]}'),
        ("data", '{"name":"n","value":{"deep":-1e999}}'),
        ("state", "{}"),
        ("state", '{"state":"succeeded"}'),
        ("state", '{"state":["running"]}'),
        ("state", '{"state":"running","attempt":1.0}'),
        ("state", '{"state":"running","attempt":9007199254740993}'),
        ("state", '{"state":"running","cancel_requested":1}'),
        ("state", '{"state":"running","created_at":253402300800000}'),
        ("reset", '{"reason":7}'),
        ("reset", '{"reason":"retry","attempt":"1"}'),
        ("end", '{"state":"running"}'),
        ("end", '{"state":"failed","error":"boom"}'),
        ("end", '{"state":"failed","error":{}}'),
        ("end", '{"state":"failed","error":{"code":5,"message":"m"}}'),
        ("end", '{"state":"failed","usage":[]}'),
        ("end", '{"state":"failed","length":{"text":"3"}}'),
        ("end", '{"state":"failed","length":{"text":-3}}'),
        ("end", '{"state":"failed","truncated":"no"}'),
        ("error", '{"text":"a"}'),
        ("open", "{}"),
        ("two words", "{}"),
        ("other", '{"at":"now"}'),
        ("Chunk", '{"text":"a"}'),
        ("", '{"text":"a"}'),
    ],
)  # fmt: skip
def test_wrong_members_and_kinds_are_invalid_events(kind: str, data: str) -> None:
    """A member that is missing, of another type or out of its range, and what names no kind, are refused."""
    with pytest.raises(InvalidEvent):
        decode(kind, data)


@given(st.sampled_from([*KINDS, "other"]), st.dictionaries(
    st.sampled_from(["text", "field", "at", "progress", "message", "name", "value", "state", "attempt",
                     "reason", "cancel_requested", "error", "usage", "length", "truncated", "created_at"]),
    json_values | st.floats() | st.sampled_from(["running", "failed", "retry"]),
))  # fmt: skip
def test_any_json_object_decodes_to_a_good_event_or_is_invalid(kind: str, members: dict[str, Any]) -> None:
    """Decoding raises `InvalidEvent` or gives an event that a view takes and that can be encoded again."""
    try:
        event = decode(kind, json.dumps(members))
    except InvalidEvent:
        return
    assert decode(kind, encode(event)) == event
    view = View("t")
    view.apply(Position(1, 1), event)
    dumps(view.as_dict())


@given(st.sampled_from(KINDS), st.binary() | st.text(st.characters(codec=None)))
def test_any_bytes_and_any_text_decode_or_are_invalid(kind: str, data: bytes | str) -> None:
    """No other error than `InvalidEvent` comes out of decoding, whatever goes in."""
    with suppress(InvalidEvent):
        decode(kind, data)


def test_lone_surrogates_become_the_replacement_character() -> None:
    """Half a character, as JavaScript may cut it off, is replaced on either way; a pair becomes one."""
    assert dumps(["a\ud83d", "\ud83d\ude00"]) == '["a�","😀"]'.encode()
    assert dumps({"\udfff": 1}) == '{"�":1}'.encode()
    assert encode(Chunk("\ude00x")) == '{"text":"�x"}'.encode()
    assert decode("chunk", rb'{"text":"a\ud83d"}') == Chunk("a�")
    assert decode("chunk", rb'{"text":"\ud83d\ude00"}') == Chunk("😀")
    assert decode("chunk", '{"text":"a\ud83d"}') == Chunk("a�")
    assert decode("data", rb'{"name":"n","value":[{"\uDFFF":"\uD800"}]}') == Data("n", [{"�": "�"}])


@given(st.text(st.characters(codec=None)))
def test_utf8_takes_any_text(text: str) -> None:
    """Any Python text can be encoded, and what has no surrogates is unchanged."""
    decoded = utf8(text).decode()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert decoded == text
    assert utf8(decoded).decode() == decoded


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [float("-inf")], object(), {1, 2}, b"bytes", {(1, 2): 3}, 10**5000,
     _cycle(), _deep()],
    ids=["nan", "inf", "-inf", "object", "set", "bytes", "tuple key", "long int", "cycle", "deep"],
)  # fmt: skip
def test_dumps_refuses_what_json_cannot_say(value: Any) -> None:
    """NaN, infinities, other types, cycles and absurd sizes are an `InvalidEvent`."""
    with pytest.raises(InvalidEvent):
        dumps(value)


# The merge rule


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


def nested(depth: int) -> Any:
    """Lists in lists, so many, with a number inside."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_value_is_nested_so_deep_that_every_reader_can_read_it() -> None:
    """The deepest value that an event takes fits into a view's JSON; one level more is refused, each way."""
    deepest = Data("n", nested(MAX_DEPTH))
    view = View("t")
    view.apply(Position(1, 1), deepest)
    assert b"[" * MAX_DEPTH in dumps(view.as_dict())
    assert decode("data", encode(deepest)) == deepest
    with pytest.raises(InvalidEvent, match="nested deeper"):
        encode(Data("n", nested(MAX_DEPTH + 1)))
    with pytest.raises(InvalidEvent, match="nested deeper"):
        decode("data", json.dumps({"name": "n", "value": nested(MAX_DEPTH + 1)}))
    wide = Data("n", [[] for _ in range(10 * MAX_DEPTH)])
    assert decode("data", encode(wide)) == wide
