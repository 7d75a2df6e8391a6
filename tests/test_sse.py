"""Frames: the standard's own examples, cut everywhere, and what must hold for all input."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import sse
from bridge.errors import StreamTooLarge
from bridge.sse import Decoder, Frame

# The examples of section 9.2.6 of the HTML standard, and what it says they mean.
STANDARD = {
    "one event of two lines": (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [Frame("message", "YHOO\n+2\n10", "")],
    ),
    # "The first block has just a comment … second block has two fields … third fires just the space …
    # the last block is discarded because the stream ended without a blank line."
    "four blocks, the last one unfinished": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [Frame("message", "first event", "1"), Frame("message", "second event", "")],
    ),
    "four blocks, all finished": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [
            Frame("message", "first event", "1"),
            Frame("message", "second event", ""),
            Frame("message", " third event", ""),
        ],
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [Frame("message", "", ""), Frame("message", "\n", "")]),
    "the space after the colon is optional": (
        b"data:test\n\ndata: test\n\n",
        [Frame("message", "test", ""), Frame("message", "test", "")],
    ),
    "named events": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [Frame("add", "73857293", ""), Frame("remove", "2153", ""), Frame("add", "113411", "")],
    ),
}

# What the text of the standard says beside its examples.
RULES = {
    "CR alone ends a line": (b"data: a\rdata: b\r\r", [Frame("message", "a\nb", "")]),
    "CRLF is one line end": (b"data: a\r\ndata: b\r\n\r\n", [Frame("message", "a\nb", "")]),
    "LF then CR are two": (b"data: a\n\rdata: b\n\n", [Frame("message", "a", ""), Frame("message", "b", "")]),
    "one byte order mark is ignored": (b"\xef\xbb\xbfdata: a\n\n", [Frame("message", "a", "")]),
    "only one, and only at the start": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: \xef\xbb\xbfc\n\n",
        [Frame("message", "\ufeffc", "")],
    ),
    "only one space is removed": (b"data:  a \n\n", [Frame("message", " a ", "")]),
    "an event without data is none": (
        b"event: x\n\ndata: a\n\n",
        [Frame("message", "a", "")],
    ),
    "an empty event name means message": (b"event: x\nevent:\ndata: a\n\n", [Frame("message", "a", "")]),
    "ids stick": (b"id: 1\ndata: a\n\ndata: b\n\n", [Frame("message", "a", "1"), Frame("message", "b", "1")]),
    "an id with NUL is ignored": (b"id: 1\nid: 2\x00\ndata: a\n\n", [Frame("message", "a", "1")]),
    "an id without data counts": (b"id: 7\n\ndata: a\n\n", [Frame("message", "a", "7")]),
    "names are matched exactly": (b"Data: a\ndata : a\n data: a\ndata: b\n\n", [Frame("message", "b", "")]),
    "other colons belong to the value": (b"data: a: b:c\n\n", [Frame("message", "a: b:c", "")]),
    "other line separators are text": (
        "data: a\u2028b\u0085c\x0bd\x0ce\x1cf\n\n".encode(),
        [Frame("message", "a\u2028b\u0085c\x0bd\x0ce\x1cf", "")],
    ),
    "broken UTF-8 is replaced": (
        b"data: \xff\xe2\x82\ndata: \xc3\xa4\n\n",
        [Frame("message", "\ufffd\ufffd\n\u00e4", "")],
    ),
    "heartbeats say nothing": (
        b":\nid: 1\n:\ndata: a\n:\n\n:\n:\n: ping\n\n:\n",
        [Frame("message", "a", "1")],
    ),
}


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data`, cut at the given places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def decode(parts: list[bytes], max_bytes: int = sse.DEFAULT_MAX_BYTES) -> list[Frame]:
    """All frames of a stream that arrives in these parts."""
    decoder = Decoder(max_bytes=max_bytes)
    return [frame for part in parts for frame in decoder.feed(part)]


@pytest.mark.parametrize(("stream", "frames"), [*STANDARD.values(), *RULES.values()], ids=[*STANDARD, *RULES])
def test_standard(stream: bytes, frames: list[Frame]) -> None:
    """A stream means what the standard says: whole, byte by byte, and cut in two at every byte."""
    assert decode([stream]) == frames
    assert decode([stream[at : at + 1] for at in range(len(stream))]) == frames
    for cut in range(len(stream) + 1):
        assert decode([stream[:cut], b"", stream[cut:]]) == frames


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_blank_line_dispatches_at_once(end: bytes) -> None:
    """An event is there as soon as its blank line ends, without waiting for an LF that may follow a CR."""
    decoder = Decoder()
    assert decoder.feed(b"data: a" + end) == []
    assert decoder.feed(end[:1]) == [Frame("message", "a", "")]


def test_unfinished_event_does_not_move_the_id() -> None:
    """Only a blank line makes an id the one to resume with."""
    decoder = Decoder(last_event_id="1-5")
    decoder.feed(b"id: 1-6\ndata: a\n")
    assert decoder.last_event_id == "1-5"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "1-6"


def test_id_of_the_stream_before_sticks() -> None:
    """A decoder that goes on after a reconnect gives the known id to frames without one."""
    assert Decoder(last_event_id="1-5").feed(b"data: a\n\n") == [Frame("message", "a", "1-5")]


@pytest.mark.parametrize(
    ("value", "retry_ms"),
    [
        (b"1500", 1500),
        (b"0", 0),
        (b"007", 7),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b"1s", None),
        ("\u0663".encode(), None),
        (b"9" * 5000, 10**15),
    ],
)
def test_retry(value: bytes, retry_ms: int | None) -> None:
    """`retry` counts only when it is all ASCII digits, and takes effect without a blank line."""
    decoder = Decoder()
    assert decoder.feed(b"retry: " + value + b"\n") == []
    assert decoder.retry_ms == retry_ms


@pytest.mark.parametrize(
    "flood",
    [b"data: " + b"x" * 101, b":" + b"x" * 101 + b"\n", b"data: xxxxxxxxx\n" * 10, b"data\n" * 21],
    ids=["line without end", "comment", "event of many lines", "event of empty lines"],
)
def test_hardening_endless_line_or_event(flood: bytes) -> None:
    """What a decoder holds back is bounded: more than `max_bytes` is refused, however it is cut."""
    for parts in ([flood], [flood[at : at + 1] for at in range(len(flood))]):
        with pytest.raises(StreamTooLarge, match="larger than 100 bytes"):
            decode(parts, max_bytes=100)


def test_long_stream_of_small_events_is_not_too_large() -> None:
    """The limit counts for one line and one event, not for the stream."""
    decoder = Decoder(max_bytes=20)
    assert len(decoder.feed(b"data: 0123456789\n\n" * 100)) == 100


def test_frame_bytes() -> None:
    """A frame is its fields, one line each, and a blank line."""
    assert sse.frame(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert (
        sse.frame("x", event="chunk", id="1-2", retry_ms=50)
        == b"event: chunk\nid: 1-2\nretry: 50\ndata: x\n\n"
    )


def test_heartbeat_is_a_comment_line_alone() -> None:
    """Comments and `retry` have no blank line: some clients would make an empty event of it."""
    assert sse.HEARTBEAT == sse.comment() == b":\n"
    assert sse.comment("busy\rlater\r\nnow\n") == b": busy\n: later\n: now\n: \n"
    assert sse.retry(1500) == b"retry: 1500\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "\n"])
def test_hardening_field_injection(bad: str) -> None:
    """An event name or id can't smuggle in lines of its own."""
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        sse.frame("x", event=bad)
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        sse.frame("x", id=bad)
    with pytest.raises(ValueError, match="negative"):
        sse.retry(-1)


single_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)
any_text = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n\u2028\x85 :"), max_size=60
)
messages = st.lists(st.tuples(any_text, single_line | st.none(), single_line | st.none()), max_size=8)
noise = st.sampled_from([b"", b":\n", b": hi\n", b"retry: 5\n", b"\n", b"unknown: x\n"])


def expected(sent: list[tuple[str, str | None, str | None]]) -> list[Frame]:
    """What a reader sees of these (data, event, id): line ends as LF, no name as message, ids sticking."""
    frames, last = [], ""
    for data, event, id_ in sent:
        last = last if id_ is None else id_
        frames.append(Frame(event or "message", data.replace("\r\n", "\n").replace("\r", "\n"), last))
    return frames


@given(messages, st.data())
@example([("a\r\n\r\nb", "x", "1-2")], None)
def test_round_trip(sent: list[tuple[str, str | None, str | None]], data: st.DataObject | None) -> None:
    """What is encoded is decoded, however it is cut and whatever stands between the frames."""
    stream = b""
    for text, event, id_ in sent:
        stream += sse.frame(text, event=event, id=id_)
        stream += data.draw(noise) if data else sse.HEARTBEAT
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12)) if data else [1, 2]
    assert decode(pieces(stream, cuts)) == expected(sent)


@given(st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", b"\r", b"data:", b"id:", b":"]), max_size=40))
def test_any_bytes_mean_the_same_in_any_cut(parts: list[bytes]) -> None:
    """Whatever the bytes are, where they are cut changes nothing and nothing fails."""
    stream = b"".join(parts)
    assert decode(parts) == decode([stream]) == decode([bytes([byte]) for byte in stream])
