"""The rules at the top of the channel, one by one. All of them together, in any order: the state machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from bridge.entries import Entry
from bridge.events import START, Chunk, End, Position, Reset, State
from bridge.gateway.channel import Channel
from bridge.gateway.history import PIECE_BYTES, data_bytes
from bridge.gateway.memory import Taken
from tests.gateway.readers import TASK, Reader, Wire, entries, fold, head, read

EPOCH = 1763650000000
LOG = entries(EPOCH, [State("running", 1, at=1), Chunk("Hello"), Chunk(" wor"), Chunk("ld")])
OTHER = entries(EPOCH + 5, [State("running", 2, at=2), Chunk("Something else")])
RETRIED = entries(EPOCH + 9, [Reset("retry", 3, at=3), State("running", 3, at=3), Chunk("anew")])
ENDED = [*LOG, *entries(EPOCH, [End("succeeded", at=9)], after=4)]


class Hub:
    """A channel, and the reads it asks for."""

    def __init__(self, log: Sequence[Entry] | None = None, taken: Taken | None = None) -> None:
        self.asked = 0
        self.channel = Channel(TASK, self._want_read, taken=taken)
        if log is not None:
            self.channel.want_read()
            self.read(log)

    def _want_read(self, channel: Channel) -> None:
        self.asked += 1

    def read(self, log: Sequence[Entry] | None) -> Position:
        """Run a read; returns after which position."""
        after = self.channel.begin_read()
        self.channel.load(read(log, after))
        return after

    def send(self, news: Sequence[Entry]) -> None:
        """Deliver a message with these events."""
        self.channel.receive(news[-1].position, list(news))

    def join(self, reader: Reader) -> Reader:
        """Follow the channel and take all there is."""
        self.channel.followers.add(reader)
        reader.catch_up(self.channel)
        return reader


# --- rule 1: a prefix of the log -----------------------------------------------------------------------


def test_a_new_channel_knows_nothing_until_its_first_read() -> None:
    """Before the first read the channel is not loaded, and followers wait."""
    hub = Hub()
    reader = hub.join(Reader())
    assert not hub.channel.loaded
    assert reader.view.position == hub.channel.position == START
    assert hub.channel.want_read() == 1
    assert hub.read(LOG) == START
    assert (hub.channel.loaded, hub.channel.known, hub.channel.reads_done) == (True, True, 1)


def test_the_first_read_wakes_who_waits() -> None:
    """A follower that came before the log is woken, and then takes all of it."""
    hub = Hub()
    reader = hub.join(Reader())
    hub.channel.want_read()
    hub.read(LOG)
    assert reader.wakes == 1
    reader.catch_up(hub.channel)
    assert reader.view.text == "Hello world"


def test_a_task_that_redis_does_not_know_is_loaded_but_not_known() -> None:
    """Nothing is handed out for an unknown task; when it appears its followers get it without a reset."""
    hub = Hub()
    hub.channel.want_read()
    hub.read(None)
    reader = hub.join(Reader())
    assert hub.channel.loaded
    assert not hub.channel.known
    hub.send(LOG[:1])
    assert hub.channel.read_due
    hub.read(LOG[:1])
    reader.catch_up(hub.channel)
    assert reader.view.position == LOG[0].position
    assert reader.resets == 0


def test_reads_go_on_after_what_is_held() -> None:
    """A read that isn't the first asks only for what comes after."""
    hub = Hub(LOG[:2])
    hub.channel.want_read()
    assert hub.read(LOG) == LOG[1].position
    assert hub.channel.view.text == "Hello world"


def test_a_read_is_asked_for_once() -> None:
    """However many want a read, the hub is told once, and all wait for the same number."""
    hub = Hub(LOG)
    numbers = [hub.channel.want_read() for _ in range(3)]
    assert numbers == [2, 2, 2]
    assert hub.asked == 2  # the first read, and this one


def test_a_read_wanted_during_a_read_begins_after_it() -> None:
    """What is wanted while a read is under way needs a later one; it is due only when the first is over."""
    hub = Hub(LOG[:2])
    hub.channel.want_read()
    after = hub.channel.begin_read()
    assert hub.channel.want_read() == 3
    assert not hub.channel.read_due
    assert hub.asked == 2
    hub.channel.load(read(LOG, after))
    assert hub.channel.read_due
    assert hub.asked == 3


def test_a_failed_read_is_due_again_and_keeps_all_promises() -> None:
    """Whoever waits for the number of a read that failed, or of the one after it, is served by the next."""
    hub = Hub(LOG[:2])
    first = hub.channel.want_read()
    hub.channel.begin_read()
    ahead = hub.join(Reader(LOG[3].position, had=LOG))
    hub.channel.read_failed()
    assert hub.channel.read_due
    assert hub.channel.reads_done < first
    hub.read(LOG)
    assert hub.channel.reads_done >= first
    ahead.catch_up(hub.channel)
    assert ahead.generation == hub.channel.generation
    assert ahead.resets == 0


def test_a_whole_read_that_failed_is_whole_again() -> None:
    """Forgotten history is asked for until it is there."""
    hub = Hub(LOG)
    hub.channel.forget_history()
    reader = hub.join(Reader())
    assert hub.channel.begin_read() == START
    hub.channel.read_failed()
    assert hub.read(LOG) == START
    reader.catch_up(hub.channel)
    assert reader.view.text == "Hello world"


# --- rule 2: messages ----------------------------------------------------------------------------------


def test_a_message_that_fits_is_handed_out_at_once() -> None:
    """The next event needs no read."""
    hub = Hub(LOG[:2])
    reader = hub.join(Reader())
    hub.send(LOG[2:])
    assert reader.view.text == hub.channel.view.text == "Hello world"
    assert not hub.channel.read_due


def test_a_message_that_came_before_is_dropped() -> None:
    """Events that are held already are not handed out again, and cost no read."""
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.send(LOG[1:3])
    hub.send(LOG[3:])
    assert reader.view.text == "Hello world"
    assert not hub.channel.read_due


@pytest.mark.parametrize(
    "message",
    [
        pytest.param((LOG[3].position, LOG[3:]), id="a hole before it"),
        pytest.param((LOG[2].position, []), id="too large to carry its events"),
        pytest.param((OTHER[1].position, OTHER), id="another epoch"),
        pytest.param(
            (LOG[3].position, entries(EPOCH, [Chunk("Jello"), Chunk(" wor"), Chunk("ld")], after=1)),
            id="partly held, with other text",
        ),
        pytest.param((LOG[1].position, entries(EPOCH, [Chunk("Jello")], after=1)), id="other text"),
    ],
)
def test_a_message_that_does_not_fit_asks_for_a_read(message: tuple[Position, list[Entry]]) -> None:
    """It is not handed out, and the read brings what is true."""
    hub = Hub(LOG[:2])
    reader = hub.join(Reader())
    hub.channel.receive(*message)
    assert hub.channel.read_due
    assert reader.view.text == hub.channel.view.text == "Hello"
    hub.read(LOG)
    reader.catch_up(hub.channel)
    assert reader.view.text == "Hello world"


def test_messages_wait_while_a_read_is_under_way() -> None:
    """What comes during a read is handed out after it, and what the read brought already is not repeated."""
    hub = Hub(LOG[:1])
    reader = hub.join(Reader())
    hub.channel.want_read()
    after = hub.channel.begin_read()
    for entry in LOG[1:]:
        hub.send([entry])
    assert hub.channel.position == LOG[0].position
    hub.channel.load(read(LOG[:3], after))
    assert hub.channel.position == LOG[3].position
    assert not hub.channel.read_due
    reader.catch_up(hub.channel)
    assert reader.view.text == "Hello world"


@pytest.mark.parametrize("flood", ["many", "large"])
def test_messages_that_find_no_room_to_wait_are_read(flood: str) -> None:
    """The list of waiting messages is bounded; more, or larger ones, mean one more read."""
    news = [Chunk("x")] * 1000 if flood == "many" else [Chunk("x" * PIECE_BYTES), Chunk("x")]
    log = [*LOG, *entries(EPOCH, news, after=4)]
    hub = Hub(LOG)
    hub.channel.want_read()
    after = hub.channel.begin_read()
    for entry in log[4:]:
        hub.send([entry])
    hub.channel.load(read(LOG, after))
    assert hub.channel.read_due
    hub.read(log)
    assert hub.channel.position == log[-1].position
    assert not hub.channel.read_due


# --- the audit -----------------------------------------------------------------------------------------


def test_an_audit_that_agrees_asks_for_nothing() -> None:
    """A head that is the channel's own, or older than what came since, is no difference."""
    hub = Hub(LOG[:2])
    hub.channel.compare(head(LOG[:2]), LOG[1].position)
    hub.send(LOG[2:])
    hub.channel.compare(head(LOG[:3]), LOG[1].position)
    assert not hub.channel.read_due


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(LOG, id="a lost message"),
        pytest.param(LOG[:1], id="lost writes"),
        pytest.param(LOG[:1] + entries(EPOCH, [Chunk("Hi")], after=1), id="other text, same position"),
        pytest.param(OTHER, id="another epoch"),
        pytest.param(None, id="a vanished log"),
    ],
)
def test_an_audit_that_differs_heals_the_channel(log: list[Entry] | None) -> None:
    """After the read that it asks for, channel and followers have what the log says."""
    hub = Hub(LOG[:2])
    reader = hub.join(Reader())
    hub.channel.compare(head(log) if log else None, LOG[1].position)
    assert hub.channel.read_due
    hub.read(log)
    assert hub.channel.known == (log is not None)
    assert hub.channel.view.as_dict() == fold(log or []).as_dict()
    hub.channel.compare(head(log) if log else None, hub.channel.position)
    assert not hub.channel.read_due
    if log is not None:
        reader.catch_up(hub.channel)
        assert reader.view.as_dict() == fold(log).as_dict()


def test_no_audit_judges_a_channel_that_reads() -> None:
    """While a read is under way, or before the first, a comparison means nothing."""
    hub = Hub()
    hub.channel.compare(head(LOG), START)
    assert not hub.channel.read_due
    hub = Hub(LOG)
    hub.channel.want_read()
    hub.channel.begin_read()
    hub.channel.compare(head(OTHER), LOG[3].position)
    assert hub.channel.want_read() == 3  # not wanted before


def test_a_message_that_begins_with_what_is_held_brings_its_rest() -> None:
    """A read was quicker with some of it: no second read is needed, and nobody gets anything twice."""
    hub = Hub(LOG[:3])
    reader = hub.join(Reader())
    hub.send(LOG[1:])
    assert (reader.view.text, hub.channel.position, hub.asked) == ("Hello world", LOG[-1].position, 1)
    other = entries(EPOCH, [Chunk("!"), Chunk("?")], after=4)
    hub.send([*LOG[2:], *other])
    assert reader.view.text == "Hello world!?"
    hub.send(entries(EPOCH, [Chunk("another"), Chunk("!")], after=5))
    assert hub.asked == 2
    assert reader.view.text == "Hello world!?"


# --- rule 3: generations -------------------------------------------------------------------------------


def test_a_new_epoch_resets_every_follower() -> None:
    """`reset` with the id `<epoch>-0`, then everything."""
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.channel.want_read()
    hub.read(OTHER)
    assert hub.channel.generation == 1
    reader.got.clear()
    reader.catch_up(hub.channel)
    assert reader.got == [Position(EPOCH + 5, 0), *[entry.position for entry in OTHER]]
    assert reader.view.as_dict() == fold(OTHER).as_dict()


def test_a_log_that_says_reset_itself_needs_no_other() -> None:
    """Where the new epoch begins with a `reset` of its own, that one is the first event."""
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.channel.want_read()
    hub.read(RETRIED)
    reader.got.clear()
    reader.catch_up(hub.channel)
    assert reader.got == [entry.position for entry in RETRIED]
    assert reader.resets == 1


@pytest.mark.parametrize("resumed", [False, True])
def test_a_reset_that_the_client_had_is_not_enough(resumed: bool) -> None:
    """A log that lost its last events still begins with a `reset` that clients have seen, and would drop."""
    longer = [*RETRIED, *entries(EPOCH + 9, [Chunk("!")], after=3)]
    hub = Hub(longer)
    reader = hub.join(Reader(longer[-1].position, had=longer) if resumed else Reader())
    reader.got.clear()
    hub.channel.want_read()
    hub.read(RETRIED)
    reader.catch_up(hub.channel)
    assert reader.got == [Position(EPOCH + 9, 0), *[entry.position for entry in RETRIED]]
    assert reader.view.as_dict() == fold(RETRIED).as_dict()


def test_a_follower_of_an_older_generation_needs_no_read() -> None:
    """Lost writes leave followers ahead of the log; the read that found it is proof enough."""
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.channel.want_read()
    hub.read(LOG[:2])
    reader.catch_up(hub.channel)
    assert reader.view.as_dict() == fold(LOG[:2]).as_dict()
    assert reader.resets == 1
    assert not hub.channel.read_due


def test_a_follower_of_an_older_generation_is_offered_nothing() -> None:
    """Its position may be the channel's own, but what it has is other text: it must be reset first."""
    log = LOG[:2] + entries(EPOCH, [Chunk(" there"), Chunk("!"), Chunk("!")], after=2)
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.channel.want_read(whole=True)
    hub.read(log[:4])
    hub.send(log[4:])
    assert reader.view.text == "Hello world"
    reader.catch_up(hub.channel)
    assert reader.view.as_dict() == fold(log).as_dict()


@pytest.mark.parametrize("text", ["Something quite different", "Goodbye"])
def test_lost_writes_show_in_the_count_of_bytes(text: str) -> None:
    """Redis fell back and went on with other text, beyond what is held: no hole, yet never glued."""
    log = LOG[:1] + entries(EPOCH, [Chunk(text), Chunk("x"), Chunk("y")], after=1)
    hub = Hub(LOG[:3])
    reader = hub.join(Reader())
    hub.channel.want_read()
    assert hub.read(log) == LOG[2].position
    assert hub.channel.view.text == reader.view.text == "Hello wor"
    assert hub.read(log) == START
    reader.catch_up(hub.channel)
    assert reader.view.as_dict() == hub.channel.view.as_dict() == fold(log).as_dict()


def test_a_vanished_log_hands_out_nothing_until_there_is_one_again() -> None:
    """A follower keeps what it has, and is reset when the task is known again."""
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.channel.want_read()
    hub.read(None)
    reader.catch_up(hub.channel)
    assert reader.view.text == "Hello world"
    hub.channel.want_read()
    hub.read(OTHER)
    reader.catch_up(hub.channel)
    assert reader.resets == 1
    assert reader.view.text == "Something else"


# --- rule 4: cursors -----------------------------------------------------------------------------------


def test_a_batch_is_encoded_once_per_dialect() -> None:
    """The same bytes go to all that are up to date."""
    hub = Hub(LOG[:1])
    one, other = Wire(), Wire()
    for number in range(100):
        hub.join(Reader(dialect=one if number % 2 else other))
    one.encoded.clear()
    other.encoded.clear()
    hub.send(LOG[1:2])
    hub.send(LOG[2:])
    batches = [(LOG[1].position, LOG[1].position), (LOG[2].position, LOG[3].position)]
    assert one.encoded == other.encoded == batches


def test_a_busy_follower_gets_what_it_missed_merged() -> None:
    """It is left behind, the others are not, and in the end it has the same in fewer events."""
    hub = Hub(LOG[:1])
    slow, fast = hub.join(Reader()), hub.join(Reader())
    slow.busy = True
    for entry in LOG[1:]:
        hub.send([entry])
    assert slow.got == [LOG[0].position]
    assert fast.view.text == "Hello world"
    slow.catch_up(hub.channel)
    assert slow.got == [LOG[0].position, LOG[3].position]
    assert slow.view.as_dict() == fast.view.as_dict()


def test_a_crowd_that_comes_at_once_costs_one_encode_per_piece() -> None:
    """A long history is sent in pieces of about 64 KiB, and each piece is encoded once for all."""
    log = LOG + entries(EPOCH, [Chunk("x" * (PIECE_BYTES // 4))] * 16, after=4)
    hub = Hub(log)
    wire = Wire()
    crowd = [hub.join(Reader(dialect=wire)) for _ in range(50)]
    assert 4 <= len(wire.encoded) <= 7
    assert all(reader.view.as_dict() == fold(log).as_dict() for reader in crowd)


def test_what_a_read_brings_goes_out_in_pieces_too() -> None:
    """A long outage is not one huge write to every follower."""
    hub = Hub(LOG)
    wire = Wire()
    crowd = [hub.join(Reader(dialect=wire)) for _ in range(50)]
    wire.encoded.clear()
    log = LOG + entries(EPOCH, [Chunk("x" * (PIECE_BYTES // 4))] * 16, after=4)
    hub.channel.want_read()
    hub.read(log)
    assert all(reader.position == LOG[3].position for reader in crowd)
    for reader in crowd:
        reader.catch_up(hub.channel)
    assert 4 <= len(wire.encoded) <= 7
    assert all(reader.view.as_dict() == fold(log).as_dict() for reader in crowd)


def test_a_large_message_goes_out_in_pieces_too() -> None:
    """Over the size of a piece a message isn't offered; the followers are woken and take it."""
    news = entries(EPOCH, [Chunk("x" * PIECE_BYTES), Chunk("y")], after=4)
    hub = Hub(LOG)
    reader = hub.join(Reader())
    hub.send(news)
    assert reader.position == LOG[3].position
    assert reader.wakes == 1
    assert reader.take(hub.channel)
    assert reader.position == news[0].position
    reader.catch_up(hub.channel)
    assert reader.position == news[1].position


def test_history_that_was_forgotten_is_read_again_when_asked_for() -> None:
    """Who is in the midst of it keeps it; who comes later waits for one whole read."""
    hub = Hub(LOG)
    slow = Reader(LOG[1].position, had=LOG[:2])
    hub.channel.followers.add(slow)
    assert slow.take(hub.channel)
    before = hub.channel.size
    hub.channel.forget_history()
    assert hub.channel.size < before
    assert not hub.channel.read_due
    early = hub.join(Reader())
    after = hub.channel.begin_read()
    assert after == START
    late = hub.join(Reader())
    hub.channel.load(read(LOG, after))
    assert hub.asked == 2
    for reader in (early, late):
        assert reader.wakes == 1
        reader.catch_up(hub.channel)
        assert reader.view.as_dict() == fold(LOG).as_dict()
    assert hub.channel.generation == 0


def test_history_that_is_forgotten_does_not_wait_to_be_read() -> None:
    """What nobody has looked at yet is held twice; giving memory back lets go of both."""
    hub = Hub(LOG[:1])
    hub.join(Reader())
    news = entries(EPOCH, [Chunk("Hello")], after=1)
    held = [sys.getrefcount(news[0])]
    hub.send(news)
    held.append(sys.getrefcount(news[0]))
    hub.channel.forget_history()
    held.append(sys.getrefcount(news[0]))
    assert held[0] == held[2] < held[1]
    assert hub.channel.view.text == "Hello"


def test_forgetting_keeps_what_a_slow_follower_still_needs() -> None:
    """Under memory pressure nobody who is behind has to wait for Redis."""
    hub = Hub(LOG[:2])
    slow = hub.join(Reader())
    slow.busy = True
    hub.send(LOG[2:])
    hub.channel.forget_history()
    slow.catch_up(hub.channel)
    assert slow.view.text == "Hello world"
    assert not hub.channel.read_due


def test_a_poll_gets_everything_at_once() -> None:
    """`since` hands out all that is missing, merged, and says when what was had before is void."""
    hub = Hub(LOG)
    poll = Reader(LOG[1].position, had=LOG[:2])
    answer = hub.channel.since(poll)
    assert answer is not None
    assert [entry.event for entry in answer[0]] == [Chunk(" world")]
    assert answer[1] is False
    assert poll.position == LOG[3].position
    assert hub.channel.since(poll) == ([], False)
    stranger = Reader(Position(1, 7))
    assert hub.channel.since(stranger) == ([LOG[0], *hub.channel.since(Reader())[0][1:]], True)  # type: ignore[index]


def test_a_follower_has_finished_when_it_was_given_the_end() -> None:
    """Not before, and at once for who comes back with the end's position."""
    hub = Hub(LOG)
    reader = hub.join(Reader())
    assert not hub.channel.finished(reader)
    reader.busy = True
    hub.send(ENDED[4:])
    assert not hub.channel.finished(reader)
    reader.catch_up(hub.channel)
    assert hub.channel.finished(reader)
    returned = hub.join(Reader(ENDED[4].position, had=ENDED))
    assert hub.channel.finished(returned)
    assert returned.got == []


# --- rule 5: positions that clients bring --------------------------------------------------------------


@pytest.mark.parametrize("seq", range(5))
def test_a_position_of_this_log_goes_on_from_there(seq: int) -> None:
    """Nothing is repeated; `<epoch>-0` is the position that a `reset` gives."""
    hub = Hub(LOG)
    had = LOG[:seq] or [Entry(Position(EPOCH, 0), Reset("other_log", 1), b"")]
    reader = hub.join(Reader(had[-1].position, had=had))
    assert reader.resets == 0
    assert reader.view.as_dict() == fold(LOG).as_dict()
    assert not hub.channel.read_due


def test_a_position_ahead_that_is_true_only_costs_a_read() -> None:
    """Another gateway was quicker: after the read the client goes on, without a reset."""
    hub = Hub(LOG[:2])
    reader = hub.join(Reader(LOG[2].position, had=LOG[:3]))
    assert hub.channel.read_due
    assert reader.got == []
    hub.read(LOG)
    reader.catch_up(hub.channel)
    assert reader.resets == 0
    assert reader.view.as_dict() == fold(LOG).as_dict()


@pytest.mark.parametrize("position", [Position(EPOCH, 99), Position(EPOCH + 1, 1)])
def test_a_position_ahead_of_the_log_is_reset_after_a_read(position: Position) -> None:
    """Only the log can say that there is no such event."""
    hub = Hub(LOG)
    reader = hub.join(Reader(position, had=[Entry(position, Chunk("lost"), b"")]))
    assert reader.view.text == "lost"
    hub.read(LOG)
    reader.catch_up(hub.channel)
    assert reader.got[0] == Position(EPOCH, 0)
    assert reader.view.as_dict() == fold(LOG).as_dict()
    assert not hub.channel.read_due


def test_a_read_that_had_begun_before_says_nothing_of_a_position() -> None:
    """It may have looked at the log before that event was written; the next one counts."""
    hub = Hub(LOG[:2])
    hub.channel.want_read()
    after = hub.channel.begin_read()
    answer = read(LOG[:2], after)
    reader = hub.join(Reader(LOG[2].position, had=LOG[:3]))
    hub.channel.load(answer)
    reader.catch_up(hub.channel)
    assert reader.resets == 0
    hub.read(LOG)
    reader.catch_up(hub.channel)
    assert reader.view.as_dict() == fold(LOG).as_dict()


def test_a_position_of_an_older_epoch_is_reset_at_once() -> None:
    """Epochs only rise, so no read is needed to know that it is void."""
    hub = Hub(OTHER)
    reader = hub.join(Reader(LOG[3].position, had=LOG))
    assert reader.resets == 1
    assert reader.view.as_dict() == fold(OTHER).as_dict()
    assert not hub.channel.read_due


def test_the_size_counts_history_and_view() -> None:
    """It grows with the log by at least its bytes, and shrinks by them when history is forgotten."""
    hub = Hub(LOG)
    news = entries(EPOCH, [Chunk("x" * 10_000)], after=4)
    before = hub.channel.size
    hub.send(news)
    assert hub.channel.size >= before + 2 * data_bytes(news)
    hub.channel.forget_history()
    assert hub.channel.size == data_bytes([*LOG, *news])


def test_what_all_channels_take_is_the_sum_of_their_sizes() -> None:
    """Replays and views that are kept count, too; a channel that was dropped doesn't, whatever comes."""
    taken = Taken()
    one, other = Hub(LOG, taken), Hub(OTHER, taken)
    one.join(Reader())
    before = other.channel.size
    body = other.channel.view_json()
    assert other.channel.size == before + len(body)
    assert taken.bytes == one.channel.size + other.channel.size > data_bytes([*LOG, *OTHER])
    one.channel.drop()
    assert taken.bytes == other.channel.size
    one.send(entries(EPOCH, [Chunk("late")], after=4))
    one.join(Reader())
    assert taken.bytes == other.channel.size
