"""What holds for the parsers of all formats, however the bytes come."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import encode
from bridge.events import Chunk
from bridge.sources.llm import answer as module
from bridge.sources.llm.answer import Parser
from bridge.sources.llm.errors import MESSAGES
from bridge.sources.llm.ollama import OllamaParser
from bridge.sources.llm.openai import OpenAIParser
from tests.sources.llm.recordings import (
    OLLAMA,
    OPENAI,
    RECORDINGS,
    Recording,
    calls_of,
    chunk,
    read,
    sse,
    texts_of,
    tool,
)

recorded = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
any_recording = st.sampled_from(RECORDINGS)


def check(recording: Recording, *pieces: bytes) -> None:
    """The pieces must mean what the recording means."""
    parser = recording.parser()
    events = read(parser, *pieces)
    assert parser.answer.failure is None
    assert texts_of(events) == recording.texts
    assert calls_of(events) == recording.calls
    assert (parser.answer.reason, parser.answer.model) == (recording.reason, recording.model)
    assert parser.answer.usage == recording.usage


@recorded
def test_a_stream_means_the_same_cut_in_two_anywhere(recording: Recording) -> None:
    """Also inside a character, an escape, a line end or the end marker."""
    for place in range(len(recording.data) + 1):
        check(recording, recording.data[:place], recording.data[place:])


@recorded
def test_a_stream_means_the_same_byte_by_byte(recording: Recording) -> None:
    """Nothing is held back for longer than until its event is complete."""
    check(recording, *(bytes([byte]) for byte in recording.data))


@given(any_recording, st.data())
def test_a_stream_means_the_same_in_any_pieces(recording: Recording, data: st.DataObject) -> None:
    """However many, and also empty ones."""
    size = len(recording.data)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=20)))
    check(recording, *(recording.data[a:b] for a, b in pairwise([0, *cuts, size])))


@recorded
def test_a_stream_that_stops_early_has_failed_and_keeps_its_text(recording: Recording) -> None:
    """Cut at any byte, what came is the beginning of the whole, and there is no half call of a tool."""
    failed = 0
    for place in range(len(recording.data)):
        parser = recording.parser()
        events = read(parser, recording.data[:place])
        texts = texts_of(events)
        assert all(recording.texts[field].startswith(text) for field, text in texts.items())
        if parser.answer.failure is None:
            assert (texts, calls_of(events)) == (recording.texts, recording.calls)
        else:
            failed = place
            assert parser.answer.failure.code == "interrupted"
            assert calls_of(events) == []
    assert 0 < failed < len(recording.data) - recording.marker


@given(st.sampled_from([recording.parser for recording in RECORDINGS]), st.lists(st.binary()))
def test_no_bytes_make_a_parser_raise(make: type[Parser], pieces: list[bytes]) -> None:
    """Noise is a failure with one of our codes, never an exception."""
    parser = make()
    read(parser, *pieces)
    assert parser.answer.failure is None or parser.answer.failure.code in MESSAGES
    parser = make()
    parser.whole(b"".join(pieces))
    assert parser.answer.failure is None or parser.answer.failure.code in MESSAGES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """All places in a JSON value at which another value can be put."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key), *places(inner)]
    return found


@given(any_recording, st.data())
def test_no_value_of_another_type_makes_a_parser_raise(recording: Recording, data: st.DataObject) -> None:
    """Whatever stands in whichever member, events come out that can be written to a log, or a failure."""
    texts = [line.removeprefix("data: ") for line in recording.data.decode().split("\n")]
    values = [json.loads(text) for text in texts if text.strip().startswith("{")]
    holder, key = data.draw(st.sampled_from(places(values)))
    holder[key] = data.draw(JSON)
    texts = [json.dumps(value) for value in values]
    stream = "\n".join(texts).encode() if recording is OLLAMA else sse(*texts)
    parser = recording.parser()
    for event in read(parser, stream):
        encode(event)


@recorded
def test_nothing_counts_after_the_end_marker(recording: Recording) -> None:
    """What a server sends beyond it is not looked at."""
    parser = recording.parser()
    parser.feed(recording.data)
    parser.close()
    assert parser.feed(recording.data) == []
    assert parser.feed(b"noise\n\n") == []


def test_events_before_a_failure_in_the_same_bytes_are_kept() -> None:
    """A piece that holds text and then an error gives both."""
    parser = OpenAIParser()
    events = parser.feed(sse(chunk({"content": "some"}), {"error": {"message": "boom", "code": 500}}))
    assert events == [Chunk("some")]
    assert parser.answer.failure is not None
    assert parser.answer.failure.code == "unavailable"


def test_half_a_character_waits_for_its_other_half() -> None:
    """A server that cuts text between the halves of an emoji shows an emoji all the same."""
    halves = sse(
        r'{"choices":[{"delta":{"content":"a\ud83d"}}]}',
        r'{"choices":[{"delta":{"reasoning":"hm"}}]}',
        r'{"choices":[{"delta":{"content":"\ude80b\ud83d"},"finish_reason":"stop"}]}',
        "[DONE]",
    )
    parser = OpenAIParser()
    assert texts_of(parser.feed(halves)) == {"text": "a🚀b\ufffd", "reasoning": "hm"}
    parser = OpenAIParser()
    assert texts_of(read(parser, halves[: halves.index(b"[DONE]")])) == {
        "text": "a🚀b\ufffd",
        "reasoning": "hm",
    }
    parser = OpenAIParser()
    assert texts_of(read(parser, halves[: halves.index(b"data", 10)])) == {"text": "a"}


@pytest.mark.parametrize("make", [OpenAIParser, OllamaParser])
def test_a_line_or_event_that_never_ends_is_refused(make: type[Parser]) -> None:
    """What is held back is bounded."""
    parser = make()
    parser.feed(b"data: " + b"x" * (module.MAX_EVENT_BYTES - 10))
    assert parser.answer.failure is None
    assert parser.feed(b"x" * 20) == []
    assert parser.answer.failure is not None
    assert parser.answer.failure.code == "unavailable"


def test_empty_pieces_are_no_signs_of_life() -> None:
    """What says nothing neither counts as a token nor takes memory."""
    parser = OpenAIParser()
    parser.feed(sse(chunk(tool(0, "{", id="a"))))
    pieces = parser.answer.pieces
    for empty in (tool(0, ""), {"content": ""}, {"reasoning": ""}, None, {}):
        parser.feed(sse(chunk(empty)))
    assert parser.answer.pieces == pieces == 1


def test_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes without end is stopped; what came is there."""
    monkeypatch.setattr(module, "MAX_TEXT", 10)
    parser = OpenAIParser()
    events = parser.feed(sse(chunk({"content": "12345"}), chunk({"reasoning": "67890"})))
    assert (len(events), parser.answer.failure) == (2, None)
    assert parser.feed(sse(chunk({"content": "!"}), chunk({"content": "?"}))) == [Chunk("!")]
    assert parser.answer.failure is not None
    assert parser.answer.failure.code == "interrupted"


def test_calls_are_bounded() -> None:
    """A model that calls without end is stopped, in number and in bytes."""
    parser = OpenAIParser()
    parser.feed(sse(*(chunk(tool(place, "{}")) for place in range(module.MAX_CALLS + 1))))
    assert parser.answer.failure is not None
    parser = OpenAIParser()
    for _ in range(5):
        parser.feed(sse(chunk(tool(0, "x" * (module.MAX_CALL_BYTES // 4)))))
    assert parser.answer.failure is not None


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("", {}),
        ("  ", {}),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("[1]", [1]),
        ('{"a": ', '{"a": '),
        ('{"a": NaN}', '{"a": NaN}'),
        ("[" * 200 + "]" * 200, "[" * 200 + "]" * 200),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_are_what_their_json_says_or_their_text(written: str, read_as: Any) -> None:
    """A model can write what is no JSON, or none that can be passed on."""
    parser = OpenAIParser()
    events = parser.feed(sse(chunk(tool(0, written)), chunk({}, "tool_calls")))
    assert calls_of(events) == [{"id": "", "name": "", "arguments": read_as}]
    assert all(encode(event) for event in events)


def test_a_whole_answer_that_is_none_has_failed() -> None:
    """An empty object, another value, or no JSON at all, is no answer."""
    for recording in RECORDINGS:
        for data in (b"{}", b"[]", b"3", b"null", b"<html>", b""):
            parser = recording.parser()
            assert parser.whole(data) == []
            assert parser.answer.failure is not None, (recording.name, data)


def test_only_the_stream_of_its_own_format_is_an_answer() -> None:
    """A server of one format that is asked in another doesn't seem to have answered with nothing."""
    for recording in RECORDINGS:
        for other in RECORDINGS:
            if other.parser is not recording.parser:
                parser = recording.parser()
                read(parser, other.data)
                whole = parser.answer.failure is None
                # OpenAI's end marker alone is an answer, if an empty one.
                assert not whole or other is OPENAI, (recording.name, other.name)
