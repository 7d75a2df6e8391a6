"""What a channel keeps of a log: whatever was cut, forgotten or shared, a reader's fold stays the same."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import Chunk, Data, Event, Progress, Reset, State
from bridge.gateway.history import PIECE_BYTES, History, data_bytes
from tests.gateway.readers import Wire, entries, fold

EPOCH = 1763650000000

times = st.integers(1, 9)
sizes = st.sampled_from([0, 1, 1000, PIECE_BYTES // 3, PIECE_BYTES, PIECE_BYTES + 1])
changes: st.SearchStrategy[Event] = st.one_of(
    st.builds(Chunk, st.builds(lambda size: "x" * size, sizes), st.sampled_from(["text", "reasoning"])),
    st.builds(Progress, st.floats(0, 1), st.none(), times),
    st.builds(Data, st.sampled_from("ab"), st.integers(0, 9), times),
    st.builds(State, st.just("running"), st.integers(1, 3), at=times),
    st.builds(Reset, st.just("retry"), st.integers(1, 3), times),
)
logs = st.lists(changes, min_size=1, max_size=12).map(
    lambda events: entries(EPOCH, [State("running", 1, at=1), *events])
)


class Pieces:
    """A dialect whose bytes are a key to the entries that were encoded."""

    def __init__(self) -> None:
        self.encoded: list[list[Entry]] = []

    def __call__(self, entries: Sequence[Entry]) -> bytes:
        self.encoded.append(list(entries))
        return b"%d" % (len(self.encoded) - 1)


def history(log: Sequence[Entry]) -> History:
    """A history that holds this log."""
    made = History()
    made.extend(log)
    return made


def walk(held: History, seq: int, dialect: Pieces) -> list[list[Entry]]:
    """All pieces for a reader at `seq`."""
    pieces = []
    while seq < held.seq:
        stop, frames = held.piece(seq, dialect)
        assert stop > seq
        piece = dialect.encoded[int(frames)]
        assert piece[-1].position.seq == stop
        pieces.append(piece)
        seq = stop
    return pieces


@given(logs, st.data())
def test_pieces_fold_like_the_log(log: list[Entry], data: st.DataObject) -> None:
    """From wherever a reader stands, its pieces and `after` lead to the view of the whole log."""
    seq = data.draw(st.integers(0, len(log)))
    held = history(log)
    in_pieces = [entry for piece in walk(held, seq, Pieces()) for entry in piece]
    for news in (in_pieces, held.after(seq)):
        view = fold(log[:seq])
        view.apply_all(news)
        assert view.as_dict() == fold(log).as_dict()


@given(logs)
def test_every_piece_ends_at_a_true_view(log: list[Entry]) -> None:
    """After each piece the reader has the view of the log up to there."""
    view = fold([])
    for piece in walk(history(log), 0, Pieces()):
        view.apply_all(piece)
        assert view.as_dict() == fold(log[: piece[-1].position.seq]).as_dict()


@given(logs)
def test_pieces_are_of_bounded_size(log: list[Entry]) -> None:
    """A piece is over 64 KiB only when it is a single event."""
    held = history(log)
    seq = held.start(0)
    for piece in walk(held, 0, Pieces()):
        stop = piece[-1].position.seq
        assert stop == seq + 1 or data_bytes(log[seq:stop]) <= PIECE_BYTES
        seq = stop


@given(st.lists(logs, min_size=1, max_size=4), st.data())
def test_a_piece_is_encoded_once_while_the_log_grows(parts: list[list[Entry]], data: st.DataObject) -> None:
    """Readers at one place share; what was encoded when the log was shorter is never taken for all of it."""
    held, log, shared = History(), list[Entry](), Pieces()
    for part in parts:
        news = entries(EPOCH, [entry.event for entry in part], after=len(log))
        held.extend(news)
        log += news
        walk(held, 0, shared)
        count = len(shared.encoded)
        assert walk(held, 0, shared) == walk(history(log), 0, Pieces())
        assert len(shared.encoded) == count


def test_dialects_do_not_share_pieces() -> None:
    """Each dialect has bytes of its own."""
    held = history(entries(EPOCH, [Chunk("Hello")]))
    one, other = Wire(), Wire()
    held.piece(0, one)
    held.piece(0, other)
    assert len(one.encoded) == len(other.encoded) == 1


def test_the_pieces_that_are_kept_are_few_and_counted() -> None:
    """Shared pieces are memory, so `size` counts them, and the oldest go."""
    log = entries(EPOCH, [Chunk("x" * PIECE_BYTES)] * 100)
    held = history(log)
    before = held.size
    seq = 0
    while seq < held.seq:
        seq, frames = held.piece(seq, Wire())
        assert held.size >= before + len(frames)
    assert held.size < before + 40 * PIECE_BYTES
    held.forget(held.seq)
    assert held.size == 0


def test_a_piece_that_the_log_has_outgrown_is_not_kept() -> None:
    """Nobody can use it any more: without that each running task would keep what its first viewer got."""
    log = entries(EPOCH, [Chunk("x" * PIECE_BYTES), Chunk("y"), Chunk("z")])
    held, dialect = history(log[:2]), Pieces()
    walk(held, 0, dialect)
    assert len(held._pieces) == 2
    held.extend(log[2:])
    assert [piece.full for piece in held._pieces.values()] == [True]
    assert [len(piece) for piece in walk(held, 0, dialect)] == [1, 1]
    assert len(dialect.encoded) == 3


@given(logs, st.data())
def test_forgetting_takes_only_what_lies_before(log: list[Entry], data: st.DataObject) -> None:
    """Who stands at or behind the forgotten events is served as before; the counts stay."""
    until, again = data.draw(st.integers(0, len(log))), data.draw(st.integers(0, len(log)))
    whole, held = history(log), history(log)
    held.forget(until)
    held.forget(again)
    base = max(until, again)
    assert (held.seq, held.bytes, held.last_reset) == (whole.seq, whole.bytes, whole.last_reset)
    for seq in range(len(log) + 1):
        assert held.reaches(seq) == (whole.start(seq) >= base)
        if held.reaches(seq):
            assert held.after(seq) == whole.after(seq)
            assert walk(held, seq, Pieces()) == walk(whole, seq, Pieces())


@given(logs, st.data())
def test_remembering_undoes_forgetting(log: list[Entry], data: st.DataObject) -> None:
    """With the entries read again, all is as it was."""
    held = history(log)
    size = held.size
    held.forget(data.draw(st.integers(0, len(log))))
    assert held.size <= size
    held.remember(log)
    assert held.size == size
    assert all(held.after(seq) == history(log).after(seq) for seq in range(len(log) + 1))


@given(logs, logs, st.data())
def test_a_log_begins_with_what_is_held_or_not(
    log: list[Entry], more: list[Entry], data: st.DataObject
) -> None:
    """`begins` says yes to every continuation, and no to a shorter log or one with other text."""
    held = history(log)
    held.forget(data.draw(st.integers(0, len(log))))
    assert held.begins(log)
    assert held.begins([*log, *entries(EPOCH, [entry.event for entry in more], after=len(log))])
    assert not held.begins(log[:-1])
    index = data.draw(st.integers(0, len(log) - 1))
    other = entries(EPOCH, [Chunk("another text")], after=index)[0]
    # Of what was forgotten only the size is known.
    assert held.begins([*log[:index], other, *log[index + 1 :]]) == (
        log[index].data == other.data or (index < held.base and len(log[index].data) == len(other.data))
    )


def test_text_of_the_same_size_is_told_apart_as_far_as_it_is_held() -> None:
    """Held text is compared; of forgotten text the number of events and of bytes is known."""
    held = history(entries(EPOCH, [Chunk("HELLO"), Chunk("world")]))
    jello = entries(EPOCH, [Chunk("JELLO"), Chunk("world")])
    assert not held.begins(jello)
    held.forget(1)
    assert held.begins(jello)
    held.forget(2)
    assert (
        data_bytes(one := entries(EPOCH, [Chunk("HELLOworld" + "x" * len(encode(Chunk(""))))])) == held.bytes
    )
    assert not held.begins(one)


@given(logs, st.data())
def test_differs_sees_other_data_at_the_same_place(log: list[Entry], data: st.DataObject) -> None:
    """Only what is held can differ: not what was forgotten, not what is still to come."""
    held = history(log)
    held.forget(data.draw(st.integers(0, len(log))))
    assert not any(held.differs(entry) for entry in log)
    for seq in range(len(log) + 3):
        other = entries(EPOCH, [Chunk("another text")], after=seq)[0]
        assert held.differs(other) == (held.base <= seq < len(log))


def test_what_a_reset_made_void_is_left_out() -> None:
    """A reader before the newest `reset` goes on with it, wherever it stood."""
    log = entries(EPOCH, [Chunk("old"), Reset("retry", 2, at=5), Chunk("new")])
    held = history(log)
    assert [held.start(seq) for seq in range(4)] == [1, 1, 2, 3]
    assert held.after(0) == log[1:]
    held.forget(1)
    assert held.reaches(0)
    assert encode(Reset("retry", 2, at=5)) in [entry.data for entry in held.after(0)]
