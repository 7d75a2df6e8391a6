from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import MAX_DEPTH, decode, dumps, encode, utf8
from bridge.errors import InvalidEvent
from bridge.events import (
    Chunk,
    Data,
    End,
    Event,
    Position,
    Progress,
    Reset,
    State,
)
from bridge.view import View
from tests.strategies import events, json_values

KINDS = ["state", "chunk", "progress", "data", "reset", "end"]


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


@given(
    text=st.text(st.characters()),
    field=st.sampled_from(["text", "reasoning", 'q"']),
    at=st.none() | st.just(7),
)
def test_a_chunk_is_the_json_of_its_members(text: str, field: str, at: int | None) -> None:
    """Also where it is written the short way, because it says no time."""
    members: dict[str, Any] = {"text": text} if field == "text" else {"text": text, "field": field}
    assert encode(Chunk(text, field, at)) == dumps(members if at is None else {**members, "at": at})


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
