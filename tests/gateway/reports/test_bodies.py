"""Workers' bodies: however they are cut they say the same, and what is wrong in them is named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import MAX_DEPTH
from bridge.errors import InvalidEvent, TooLarge, UnsupportedBody
from bridge.events import Chunk, Data, Progress
from bridge.gateway.reports.bodies import Body, Lines, OneValue, PlainText, Unit, body_of, unit_of

LIMIT = 1000
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=10)
events = st.one_of(
    st.fixed_dictionaries({"kind": st.just("chunk"), "text": texts}, optional={"field": names}),
    st.fixed_dictionaries(
        {"kind": st.just("progress")},
        optional={
            "progress": st.none() | st.floats(0, 1),
            "message": st.none() | texts,
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("data"), "name": names, "value": st.recursive(st.none() | texts, st.lists)}
    ),
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data`, cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def read(body: Body, *data: bytes) -> list[Unit]:
    """All units of a body."""
    units = [unit for piece in data for unit in body.feed(piece)]
    return units + list(body.finish())


@given(text=texts, cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_plain_text_is_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    """Joined, the units are the text, and their sizes its bytes."""
    units = read(PlainText("f"), *pieces(text.encode(), cuts))
    assert "".join(unit.event.text for unit in units if isinstance(unit.event, Chunk)) == text
    assert sum(unit.size for unit in units) == len(text.encode())
    assert all(unit.event.field == "f" for unit in units if isinstance(unit.event, Chunk))


@given(
    said=st.lists(events, max_size=10), cuts=st.lists(st.integers(0, 5000), max_size=20), end=st.booleans()
)
def test_lines_are_the_same_however_they_are_cut(
    said: list[dict[str, Any]], cuts: list[int], end: bool
) -> None:
    """Every line is one unit, wherever reads begin and end, and whether the last line has an end or not."""
    data = "\n".join(json.dumps(event, ensure_ascii=False) for event in said).encode() + b"\n" * end
    expected = [unit_of(event) for event in said]
    assert read(Lines(len(data)), *pieces(data, cuts)) == expected
    array = json.dumps(said).encode()
    assert read(OneValue(len(array)), *pieces(array, cuts)) == expected


@given(text=texts, cuts=st.lists(st.integers(0, 1000), max_size=5), known=st.integers(0, 200))
def test_what_is_known_of_a_text_is_passed_over(text: str, cuts: list[int], known: int) -> None:
    """What is left behind a place between two characters is the rest of the text."""
    data = text.encode()
    known = len(data[: known % (len(data) + 1)].decode(errors="ignore").encode())
    rest = ""
    for unit in read(PlainText(), *pieces(data, cuts)):
        left, known = unit.after(known), max(known - unit.size, 0)
        if left is not None:
            assert isinstance(left.event, Chunk)
            rest += left.event.text
    assert rest == data[len(data) - len(rest.encode()) :].decode()


def test_rest_of_another_text_is_noticed() -> None:
    """A place in the midst of a character was never told for this text."""
    with pytest.raises(InvalidEvent, match="not the body"):
        Unit(Chunk("é"), 2).after(1)


def test_wrong_bytes_end_the_text() -> None:
    """What isn't UTF-8 is refused; the characters before it are there."""
    for data in ([b"ab\xffcd"], [b"ab", b"\xc3", b"("], [b"ab\xed\xa0\x80"]):
        body = PlainText()
        units: list[Unit] = []
        with pytest.raises(InvalidEvent, match="not UTF-8"):
            units.extend(chain.from_iterable(body.feed(piece) for piece in data))
        assert [unit.event for unit in units] == [Chunk("ab")]
    with pytest.raises(InvalidEvent, match="not UTF-8"):
        read(PlainText(), "é".encode()[:1])


def test_lines_before_a_mistake_are_given() -> None:
    """The generator gives them before it raises."""
    body = Lines(LIMIT)
    units: list[Unit] = []
    with pytest.raises(InvalidEvent):
        units.extend(body.feed(b'{"kind":"chunk","text":"a"}\n{oops}\n{"kind":"chunk","text":"b"}\n'))
    assert [unit.event for unit in units] == [Chunk("a")]


def test_lines_and_values_have_a_limit() -> None:
    """Not even a line without an end fills the memory; the number of lines has no limit."""
    with pytest.raises(TooLarge):
        read(Lines(LIMIT), *[b"x" * 100] * 11)
    with pytest.raises(TooLarge):
        read(OneValue(LIMIT), *[b" " * 100] * 11)
    assert len(read(Lines(LIMIT), *[b'{"kind":"chunk","text":"a"}\n'] * 1000)) == 1000


def test_one_value_counts_whole_or_not() -> None:
    """Of an array with a mistake nothing is given."""
    with pytest.raises(InvalidEvent):
        read(OneValue(LIMIT), b'[{"kind":"chunk","text":"a"},{"kind":"chunk"}]')
    assert read(OneValue(LIMIT), b"  ") == read(OneValue(LIMIT), b"[]") == []


DEEP = "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "1", '"text"', "[]", "{}", '{"kind":1}', '{"kind":["chunk"]}', '{"kind":"chunk"}',
        '{"kind":"chunk","text":1}', '{"kind":"chunk","text":null}', '{"kind":"chunk","txt":"a"}',
        '{"kind":"chunk","text":"a","at":5}', '{"kind":"chunk","text":"\\ud800"}',
        '{"kind":"chunk","text":"a","field":""}', '{"kind":"chunk","text":"a","field":"\\n"}',
        '{"kind":"chunk","text":"a","field":"' + "f" * 101 + '"}',
        '{"kind":"progress","progress":1.1}', '{"kind":"progress","progress":NaN}',
        '{"kind":"progress","progress":true}', '{"kind":"progress","message":5}',
        '{"kind":"data","name":"n"}', '{"kind":"data","value":1}', '{"kind":"data","name":"","value":1}',
        '{"kind":"data","name":"n","value":1e999}', '{"kind":"data","name":"n","value":Infinity}',
        '{"kind":"data","name":"n","value":' + "9" * 5000 + "}",
        '{"kind":"data","name":"n","value":' + DEEP + "}", '{"kind":"data","name":"n","value":{"\\udfff":1}}',
        '{"kind":"state","state":"running"}', '{"kind":"reset","reason":"retry"}',
        '{"kind":"end","state":"succeeded"}', '{"kind":"error"}', '{"kind":"open"}', '{"kind":"sparkle"}',
        '{"kind":"chunk","text":"a"} {"kind":"chunk","text":"b"}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(line: str) -> None:
    """Neither what JSON can't say nor what a worker may not: the message says what was wrong."""
    if line:
        with pytest.raises(InvalidEvent):
            read(Lines(10**6), line.encode())
    if line not in ("", "[]", "null"):
        with pytest.raises(InvalidEvent):
            read(OneValue(10**6), line.encode())


def test_events_are_what_the_hook_makes_of_them() -> None:
    """Long status lines are cut; what isn't said is null."""
    assert unit_of({"kind": "progress", "message": "x" * 2000}).event == Progress(None, "x" * 999 + "…")
    assert unit_of({"kind": "progress", "progress": 1}).event == Progress(1.0, None)
    assert unit_of({"kind": "data", "name": "n", "value": None}).event == Data("n", None)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("text/plain", PlainText), ("Text/Plain; charset=UTF-8", PlainText),
        ('text/plain; format=flowed; charset="utf-8"', PlainText), ("text/plain;charset=us-ascii", PlainText),
        ("application/json", OneValue), ("application/json; charset=utf-8", OneValue),
        ("application/x-ndjson", Lines), ("application/jsonl", Lines),
    ],
)  # fmt: skip
def test_type_says_what_a_body_is(content_type: str, kind: type) -> None:
    """The usual names, in any case, with parameters."""
    assert type(body_of(content_type, "text", LIMIT)) is kind


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain; charset=latin-1",
        "text/html",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ],
)
def test_other_types_are_refused_once_there_is_a_body(content_type: str) -> None:
    """An empty body needs no type: it is a sign of life."""
    assert read(body_of(content_type, "text", LIMIT), b"") == []
    with pytest.raises(UnsupportedBody):
        read(body_of(content_type, "text", LIMIT), b"a")
