"""Whether viewers got what was reported, and when. Pure.

Reading is paid after the measurement: while it runs the crowd only keeps pieces of bytes and the times at
which they came. Viewers of one task mostly got the same bytes, so each different body is read once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from benchmarks.tokens import SIZE
from benchmarks.wire import Stream, WireError, read_head, read_stream, unchunk

# Ids and times in the data are longer, or are followed by something else.
_TOKEN: Final = re.compile(rb"(?<!\d)(\d{%d})[ ~]" % (SIZE - 1))
_RETRY: Final = re.compile(rb"retry: \d+\n\n?")
MOST_EXAMPLES: Final = 5


@dataclass(slots=True)
class Viewer:
    """Who watches one task: what has come over its connection, piece by piece, and over those before it."""

    task: str
    pieces: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    """When each piece was read, in microseconds of the monotonic clock."""
    earlier: list[bytes] = field(default_factory=list)
    """All that came over each connection that is gone."""

    def begin_anew(self) -> None:
        """Its connection is gone."""
        self.earlier.append(b"".join(self.pieces))
        self.pieces, self.times = [], []

    @property
    def last_id(self) -> str:
        """The id of the last event that came completely over this connection; empty before the first."""
        # The end of a stream is enough, unless one event is larger than that.
        end = b"".join(self.pieces[-3:])
        end = end[: end.rfind(b"\n\n") + 1]
        start = end.rfind(b"id: ")
        return "" if start < 0 else end[start + 4 : end.find(b"\n", start)].decode()


@dataclass(slots=True)
class Judgement:
    """What all viewers got."""

    viewers: int = 0
    chunks: int = 0
    """Events that carried text, of all viewers together."""
    wrong: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few that are wrong, in words."""


class Reader:
    """Reads whole connections, each different body once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Stream] = {}

    def read(self, connection: bytes) -> Stream:
        """What came over one connection. Raises `WireError`."""
        head = read_head(connection)
        if head is None:
            raise WireError("there was no answer")
        if head.status != 200:
            raise WireError(f"the answer was {head.status}")
        body = connection[head.size :]
        if head.chunked:
            body = unchunk(body)
        # Each stream has a time of its own for coming back; without it the bodies are alike.
        retry = _RETRY.match(body)
        if retry is not None:
            body = body[retry.end() :]
        stream = self._known.get(body)
        if stream is None:
            stream = self._known[body] = read_stream(body)
        return stream


def judge(viewers: Iterable[Viewer], texts: Mapping[str, str]) -> Judgement:
    """Compare what every viewer has with the text of its task."""
    reader, result = Reader(), Judgement()
    for number, viewer in enumerate(viewers):
        result.viewers += 1
        try:
            streams = [reader.read(each) for each in [*viewer.earlier, b"".join(viewer.pieces)]]
        except WireError as error:
            problem = str(error)
        else:
            result.chunks += sum(each.chunks for each in streams)
            problem = _difference("".join(each.text for each in streams), texts[viewer.task])
        if problem:
            result.wrong += 1
            if len(result.examples) < MOST_EXAMPLES:
                result.examples.append(f"viewer {number} of {viewer.task}: {problem}")
    return result


def _difference(got: str, wanted: str) -> str:
    """In words where two texts begin to differ; nothing when they are the same."""
    if got == wanted:
        return ""
    if wanted.startswith(got):
        return f"{len(wanted) - len(got)} of {len(wanted)} characters are missing at the end"
    same = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), len(wanted))
    return f"from character {same} on it is {got[same : same + 30]!r} instead of {wanted[same : same + 30]!r}"


def delays(viewer: Viewer) -> list[tuple[int, int]]:
    """For each token that came over this connection when it was reported, and how much later its last byte
    was read, both in microseconds.
    """
    ends = list(accumulate(len(piece) for piece in viewer.pieces))
    found = []
    for match in _TOKEN.finditer(b"".join(viewer.pieces)):
        # The piece that holds the last byte, which stands before `end`.
        read_at = viewer.times[bisect_right(ends, match.end() - 1)]
        reported = int(match[1])
        found.append((reported, read_at - reported))
    return found


@dataclass(frozen=True, slots=True)
class Spread:
    """How long it takes: the middle, the slowest hundredth, the slowest. In milliseconds."""

    median: float
    p99: float
    longest: float

    def __str__(self) -> str:
        return f"{self.median:.1f} / {self.p99:.1f} / {self.longest:.1f}"


def spread(micros: Sequence[int]) -> Spread | None:
    """The spread of some times; None of none."""
    if not micros:
        return None
    ordered = sorted(micros)
    return Spread(
        ordered[len(ordered) // 2] / 1000, ordered[len(ordered) * 99 // 100] / 1000, ordered[-1] / 1000
    )
