from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.entries import Entry
from bridge.events import Chunk, End, Event, Position, State
from bridge.gateway.arrivals import Arrival, joined
from bridge.gateway.channel import Channel
from bridge.gateway.history import PIECE_BYTES, data_bytes
from tests.gateway.readers import entries

EPOCH = 1763650000000
ONE, OTHER = Channel("one", lambda _: None), Channel("other", lambda _: None)


def message(channel: Channel, *events: Event, after: int = 0, epoch: int = EPOCH) -> Arrival:
    """A message with these events."""
    made = entries(epoch, events, after=after)
    return channel, Position(epoch, after + len(made)), made


def spans(arrivals: Sequence[Arrival]) -> list[tuple[str, int, int]]:
    """Whose, after which event, and to which."""
    return [(channel.task_id, last.seq - len(held), last.seq) for channel, last, held in arrivals]


def test_what_continues_is_joined() -> None:
    """Also where messages of other tasks stand in between."""
    came = [
        message(ONE, Chunk("a")),
        message(OTHER, Chunk("x"), after=7),
        message(ONE, Chunk("b"), Chunk("c"), after=1),
        message(ONE, Chunk("d"), after=3),
    ]
    assert spans(joined(came)) == [("one", 0, 4), ("other", 7, 8)]


def test_what_does_not_continue_is_not_joined() -> None:
    """A hole, an event that came twice, another epoch, one without events because they were too large."""
    a = message(ONE, Chunk("a"), after=4)
    too_large: Arrival = ONE, Position(EPOCH, 6), []
    for other in (
        message(ONE, Chunk("c"), after=6),
        message(ONE, Chunk("a"), after=4),
        message(ONE, Chunk("b"), after=5, epoch=EPOCH + 1),
        too_large,
    ):
        assert len(joined([a, other])) == 2
        assert len(joined([other, a])) == 2


def test_nothing_is_joined_to_an_end() -> None:
    """What was joined before it is."""
    came = [
        message(ONE, Chunk("a")),
        message(ONE, End("succeeded", at=1), after=1),
        message(ONE, State("running", 2, at=2), after=2),
    ]
    assert spans(joined(came)) == [("one", 0, 2), ("one", 2, 3)]


def test_no_more_is_joined_than_may_wait_for_a_read() -> None:
    """Large messages stay as small as they came: while a task is read, larger ones find no room to wait."""
    came = [message(ONE, Chunk("x" * 20_000), after=n) for n in range(8)]
    assert spans(joined(came)) == [("one", 0, 3), ("one", 3, 6), ("one", 6, 8)]
    one_piece = [message(ONE, Chunk("x" * (PIECE_BYTES // 2 - 11)), after=n) for n in range(2)]
    assert sum(data_bytes(held) for _, _, held in one_piece) == PIECE_BYTES
    assert spans(joined(one_piece)) == [("one", 0, 2)]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=30))
def test_nothing_is_lost_or_turned_round(sizes: list[tuple[bool, int]]) -> None:
    """Each task's events are the same as before, in the same order, and none grows without an end."""
    reached = {ONE: 0, OTHER: 0}
    came: list[Arrival] = []
    for first, size in sizes:
        channel = ONE if first else OTHER
        came.append(message(channel, *[Chunk(str(n)) for n in range(size)], after=reached[channel]))
        reached[channel] += size
    before = {channel: _events(came, channel) for channel in reached}
    result = joined(came)
    for channel in reached:
        assert _events(result, channel) == before[channel]
    for _, last, held in result:
        assert held[-1].position == last
        assert len(held) < 256 + 80


def _events(arrivals: Sequence[Arrival], channel: Channel) -> list[Entry]:
    return [entry for whose, _, held in arrivals if whose is channel for entry in held]
