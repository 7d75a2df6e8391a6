"""What the crowd makes of bytes, and when it says that they are wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.streams import Viewer, delays, judge, spread
from benchmarks.tokens import LAST, SIZE, reported_at, token
from benchmarks.wire import WireError, read_head, read_stream, unchunk

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKENS = [f"{number:012d} " for number in range(1, 6)]
TEXT = "".join(TOKENS)


def event(text: str, number: int) -> bytes:
    """An event as the bridge sends it."""
    return b"event: chunk\nid: 17-%d\ndata: %b\n\n" % (number, json.dumps({"text": text}).encode())


def chunk(body: bytes) -> bytes:
    """A chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def viewer(*texts: str, chunked: bool = False) -> Viewer:
    """Somebody who got these texts, each as an event and a piece."""
    events = [event(text, number) for number, text in enumerate(texts, 1)]
    if chunked:
        events = [chunk(one) for one in events]
    return Viewer("job", [CHUNKED if chunked else HEAD, *events], list(range(len(texts) + 1)))


@given(st.lists(st.binary(min_size=1), max_size=5), st.integers(0, 200))
def test_chunks_are_put_together(bodies: list[bytes], cut: int) -> None:
    """What was cut into chunks is the same body again, and cut off anywhere it is a beginning of it."""
    whole = b"".join(bodies)
    sent = b"".join(chunk(body) for body in bodies)
    assert unchunk(sent) == whole
    assert whole.startswith(unchunk(sent[:cut]))


def test_chunks_that_lie_are_an_error() -> None:
    """A size that isn't one, or isn't that of the chunk, is no body."""
    for sent in (b"xyz\r\nabc\r\n", b"2\r\nabcd\r\n"):
        with pytest.raises(WireError):
            unchunk(sent)


def test_an_answers_head_is_read_when_it_is_there() -> None:
    """Status and headers come from a whole head; half a one is none yet, and anything else is an error."""
    head = read_head(CHUNKED + b"rest")
    assert head is not None
    assert (head.status, head.chunked, head.size) == (200, True, len(CHUNKED))
    assert read_head(HEAD[:-1]) is None
    with pytest.raises(WireError):
        read_head(b"SSH-2.0\r\n\r\n")


def test_only_complete_events_with_text_count() -> None:
    """States, ends, comments and `retry` carry no text, and an event without its blank line isn't there."""
    body = b"".join(
        [
            b"retry: 2000\n" + b'event: state\nid: 17-1\ndata: {"state":"running"}\n\n',
            b":\n" + event("é", 2),
            b"retry: 1\n\n",
            event("b", 3)[:-1],
        ]
    )
    stream = read_stream(body)
    assert (stream.text, stream.chunks, stream.last_id) == ("é", 1, "17-2")


@pytest.mark.parametrize("chunked", [False, True])
def test_right_text_is_right(chunked: bool) -> None:
    """Merged or not, in chunks or not, over one connection or two."""
    merged = viewer("".join(TOKENS[:2]), *TOKENS[2:], chunked=chunked)
    twice = viewer(*TOKENS[:3], chunked=chunked)
    assert twice.last_id == "17-3"
    twice.begin_anew()
    twice.pieces = viewer(*TOKENS[3:]).pieces
    judgement = judge([viewer(*TOKENS, chunked=chunked), merged, twice], {"job": TEXT})
    assert (judgement.viewers, judgement.wrong, judgement.chunks) == (3, 0, 5 + 4 + 5)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (TOKENS[:4], "13 of 65 characters are missing at the end"),
        ([*TOKENS[:2], *TOKENS[3:]], "from character 37 on"),
        ([*TOKENS[:2], TOKENS[1], *TOKENS[2:]], "from character 37 on"),
        ([TOKENS[1], TOKENS[0], *TOKENS[2:]], "from character 11 on"),
        ([*TOKENS, TOKENS[4]], "from character 65 on"),
    ],
)
def test_wrong_text_is_found(got: list[str], said: str) -> None:
    """Missing, lost, doubled, reordered and added text is found, and the first difference is named."""
    judgement = judge([viewer(*TOKENS), viewer(*got)], {"job": TEXT})
    assert judgement.wrong == 1
    assert said in judgement.examples[0]


def test_no_stream_is_wrong_too() -> None:
    """Who got no answer, or a refusal, hasn't got the text."""
    for pieces in ([], [b"HTTP/1.1 503 Service Unavailable\r\n\r\n"]):
        assert judge([Viewer("job", pieces)], {"job": TEXT}).wrong == 1


def test_tokens_say_when_they_were_reported() -> None:
    """A token holds its moment, and only the last one of a task holds the mark."""
    one, last = token(), token(last=True)
    assert len(one) == len(last) == SIZE
    first, second = reported_at(one + last)
    assert first <= second
    assert (LAST.decode() in one, LAST.decode() in last) == (False, True)
    with pytest.raises(ValueError, match="half a token"):
        reported_at(one[:-1])


def test_a_delay_ends_with_the_tokens_last_byte() -> None:
    """A token counts as there when the piece that completes it was read; ids and times are no tokens."""
    head, body = HEAD, event(TOKENS[0] + TOKENS[1], 1763650000000)
    cut = body.index(TOKENS[1].encode()) + SIZE - 1
    one = Viewer("job", [head, body[:cut], body[cut:]], [100, 200, 300])
    assert delays(one) == [(1, 199), (2, 298)]


def test_a_spread_has_its_slowest_hundredth() -> None:
    """The middle, the 99th of 100, the slowest; nothing of nothing."""
    found = spread([1000 * number for number in range(100, 0, -1)])
    assert found is not None
    assert (found.median, found.p99, found.longest) == (51.0, 100.0, 100.0)
    assert spread([]) is None
