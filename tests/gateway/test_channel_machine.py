"""A channel against a model, with everything that a link, a log and readers can do to it, in any order.

The model is the log itself, a tuple of entries (`Redis`). Whatever happens, what a reader was given folds to
the same view as a beginning of that log, and when all has calmed down, as the whole of it.

The machine is the hub: it delivers messages, runs the reads that the channel asks for, and audits. Each of
these takes several steps, so that others fall between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import START, Chunk, Data, End, Event, Position, Progress, Reset, State
from bridge.gateway.channel import Channel
from bridge.gateway.history import PIECE_BYTES, data_bytes
from bridge.gateway.memory import Taken
from bridge.store.log import Head, Reading
from bridge.view import View
from tests.gateway.readers import TASK, Reader, Wire, fold, head, read

Log = tuple[Entry, ...]

MOST_WAITING = 256

times = st.integers(1, 9)
texts = st.text(max_size=6) | st.sampled_from([PIECE_BYTES // 2, PIECE_BYTES + 1]).map(
    lambda size: "x" * size
)
changes: st.SearchStrategy[Event] = st.one_of(
    st.builds(Chunk, texts, st.sampled_from(["text", "reasoning"]), st.none() | times),
    st.builds(Progress, st.none() | st.floats(0, 1), st.none() | st.text(max_size=3), times),
    st.builds(Data, st.sampled_from("ab"), st.integers(0, 9), times),
    st.builds(State, st.just("running"), st.integers(1, 3), st.booleans(), times, times, times),
    st.builds(Reset, st.just("retry"), st.integers(1, 3), times),
)


@dataclass(frozen=True, slots=True)
class Message:
    """Something published, as the link brings it."""

    last: Position
    entries: list[Entry]


class Redis:
    """The model: the log, every earlier state of it, and the newest log of each epoch."""

    def __init__(self) -> None:
        self.log: Log | None = None
        self.lives: list[Log] = []
        self.by_epoch: dict[int, Log] = {}
        self._sizes: set[tuple[Position, int]] = set()

    def write(self, epoch: int, events: Sequence[Event]) -> Message:
        """Append to the log, or begin one when the epoch is another."""
        log = self.log if self.log and self.log[-1].position.epoch == epoch else ()
        for event in events:
            log += (self._entry(log, Position(epoch, len(log) + 1), event),)
        self.become(log)
        return Message(log[-1].position, list(log[-len(events) :]))

    def become(self, log: Log | None) -> None:
        """The log is this one now."""
        self.log = log
        if log:
            self.lives.append(log)
            self.by_epoch[log[-1].position.epoch] = log

    def _entry(self, log: Log, position: Position, event: Event) -> Entry:
        """After lost writes, ids are given again to other events. The byte count tells them apart, or in the
        end a new epoch does; here the count always differs, by blanks after the JSON.
        """
        data = encode(event)
        while (position, size := data_bytes(log) + len(data)) in self._sizes:
            data += b" "
        self._sizes.add((position, size))
        return Entry(position, event, data)


class ChannelMachine(RuleBasedStateMachine):
    """What happens to one channel."""

    @initialize(known=st.sampled_from([True, True, False]))
    def begin(self, known: bool) -> None:
        self.redis = Redis()
        self.next_epoch = 1000
        self.link: deque[tuple[int, Message]] = deque()
        self.published = 0
        self.delivered: list[Message] = []
        self.lost_writes = False
        self.read_asked = False
        self.read_after: Position | None = None
        self.read_answer: Reading | None = None
        self.held = START
        self.audit: tuple[int, Position, Head | None] | None = None
        self.readers: list[Reader] = []
        self.checked: dict[View, Position] = {}
        self.dialects = (Wire(), Wire())
        self.taken = Taken()
        self.channel = Channel(TASK, self._want_read, taken=self.taken)
        self.channel.want_read()
        if known:
            self._new_epoch([State("running", 1, at=1)])
            self.begin_read(at_once=True)
            self._join(START)
            self.readers[0].catch_up(self.channel)

    def _want_read(self, channel: Channel) -> None:
        assert not self.read_asked, "asked twice for one read"
        assert not channel.reading, "asked for a read while another is under way"
        self.read_asked = True

    # --- what workers and Redis do --------------------------------------------------------------------

    def _publish(self, message: Message) -> None:
        self.published += 1
        self.link.append((self.published, message))

    def _new_epoch(self, events: list[Event]) -> Message:
        self.next_epoch += 10
        return self.redis.write(self.next_epoch, events)

    @precondition(lambda self: self.redis.log is None)
    @rule(heard=st.booleans())
    def create(self, heard: bool) -> None:
        message = self._new_epoch([State("queued", at=1)])
        if heard:
            self._publish(message)

    @property
    def running(self) -> bool:
        """Whether the log can grow."""
        return bool(self.redis.log) and not isinstance(self.redis.log[-1].event, End)  # type: ignore[index]

    @precondition(lambda self: self.running)
    @rule(
        events=st.lists(changes, min_size=1, max_size=3),
        how=st.sampled_from(["heard at once", "heard later", "too large to publish"]),
    )
    def append(self, events: list[Event], how: str) -> None:
        message = self.redis.write(self._epoch, events)
        self._publish(Message(message.last, []) if how == "too large to publish" else message)
        if how == "heard at once":
            self.deliver_all()

    @precondition(lambda self: self.redis.log)
    @rule(what=st.sampled_from(["end", "end", "retry", "restore", "vanished"]))
    def break_off(self, what: str) -> None:
        """The log doesn't go on as it was."""
        match what:
            case "end" if self.running:
                self._publish(self.redis.write(self._epoch, [End("succeeded", at=9)]))
            case "retry":
                self._publish(self._new_epoch([Reset("retry", 2, at=2), State("running", 2, at=2)]))
            case "restore":
                self._publish(self._new_epoch([State("running", 1, at=2), Chunk("restored")]))
            case "vanished":
                self.redis.become(None)

    @precondition(lambda self: self.redis.log)
    @rule(data=st.data(), unheard=st.lists(changes, max_size=3))
    def lose_writes(self, data: st.DataObject, unheard: list[Event]) -> None:
        """A failover, or a restart with old data: the log is an earlier one, and goes on from there."""
        self.redis.become(data.draw(st.sampled_from(self.redis.lives)))
        if self.running and unheard:
            self.redis.write(self._epoch, unheard)
        self.lost_writes = True
        # Who comes with a position of the lost text can't be told from who has the new one, until the
        # repair gives the log another epoch.
        self._leave([reader for reader in self.readers if reader.generation < 0])

    # --- the link -------------------------------------------------------------------------------------

    def _deliver(self, message: Message) -> None:
        before = [len(dialect.encoded) for dialect in self.dialects]
        self.channel.receive(message.last, message.entries)
        after = [len(dialect.encoded) for dialect in self.dialects]
        assert all(b <= a + 1 for a, b in zip(before, after, strict=True)), "encoded more than once"

    @precondition(lambda self: self.link)
    @rule()
    def deliver(self) -> None:
        _, message = self.link.popleft()
        self.delivered.append(message)
        self._deliver(message)

    @precondition(lambda self: self.link)
    @rule()
    def deliver_all(self) -> None:
        while self.link:
            self.deliver()

    @precondition(lambda self: self.link)
    @rule()
    def lose_message(self) -> None:
        self.link.popleft()

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self._deliver(data.draw(st.sampled_from(self.delivered)))

    @rule()
    def drop_link(self) -> None:
        """What was under way is lost; the hub has the logs read."""
        self.link.clear()
        self.channel.want_read()

    @precondition(lambda self: self.channel.reading and self.running)
    @rule()
    def flood(self) -> None:
        """More messages come during a read than can wait."""
        for _ in range(MOST_WAITING + 2):
            self.append([Chunk("z")], how="heard at once")

    # --- the hub --------------------------------------------------------------------------------------

    @precondition(lambda self: self.read_asked)
    @rule(at_once=st.sampled_from([False, False, True]))
    def begin_read(self, at_once: bool) -> None:
        self.read_asked = False
        self.held = self.channel.position
        self.read_after = self.channel.begin_read()
        if at_once:
            self.answer_read()
            self.load()

    @precondition(lambda self: self.read_after is not None and self.read_answer is None)
    @rule()
    def answer_read(self) -> None:
        assert self.read_after is not None
        self.read_answer = read(self.redis.log, self.read_after)

    @precondition(lambda self: self.read_answer is not None)
    @rule()
    def load(self) -> None:
        assert self.read_answer is not None
        answer, self.read_after, self.read_answer = self.read_answer, None, None
        self.channel.load(answer)

    @precondition(lambda self: self.read_after is not None)
    @rule()
    def fail_read(self) -> None:
        self.read_after = self.read_answer = None
        self.channel.read_failed()
        self.read_asked = True

    @rule()
    def begin_audit(self) -> None:
        log = self.redis.log
        self.audit = (self.published, self.channel.position, head(log) if log else None)

    @precondition(lambda self: self.audit is not None)
    @rule()
    def judge_audit(self) -> None:
        """All that was published before the comparison has arrived, or never will."""
        assert self.audit is not None
        (published, held, seen), self.audit = self.audit, None
        while self.link and self.link[0][0] <= published:
            self.deliver()
        self.channel.compare(seen, held)

    @rule()
    def forget_history(self) -> None:
        self.channel.forget_history()

    # --- readers --------------------------------------------------------------------------------------

    def _join(self, position: Position, had: Iterable[Entry] = (), busy: bool = False) -> None:
        dialect = self.dialects[len(self.readers) % 2]
        reader = Reader(position, had=had, dialect=dialect)
        reader.busy = busy
        self.readers.append(reader)
        self.channel.followers.add(reader)

    def _leave(self, readers: Iterable[Reader]) -> None:
        for reader in readers:
            self.readers.remove(reader)
            self.channel.followers.discard(reader)

    @rule(
        data=st.data(),
        whence=st.sampled_from(["the start", "this log", "this log", "another epoch", "ahead"]),
        busy=st.booleans(),
    )
    def join(self, data: st.DataObject, whence: str, busy: bool) -> None:
        """With nothing, or with a position; one of this log may be one that the channel doesn't know yet."""
        log = self.redis.log or ()
        others = [life for epoch, life in self.redis.by_epoch.items() if epoch != self._epoch]
        had: Log = ()
        match whence:
            case "this log" if log:
                void = Entry(Position(self._epoch, 0), Reset("other_log", 1), b"")
                had = data.draw(st.sampled_from([log[:count] or (void,) for count in range(len(log) + 1)]))
            case "another epoch" if others:
                had = data.draw(st.sampled_from(others))
            case "ahead":
                epoch = data.draw(st.sampled_from([self._epoch, 10**9]))
                had = (Entry(Position(epoch, 10**6), Chunk("never written"), b""),)
        self._join(had[-1].position if had else START, had, busy)

    @property
    def _epoch(self) -> int:
        return self.redis.log[-1].position.epoch if self.redis.log else 0

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), act=st.sampled_from(["take", "catch_up", "poll", "busy", "leave"]))
    def read_on(self, data: st.DataObject, act: str) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        if act == "busy":
            reader.busy = not reader.busy
        elif act == "leave":
            self._leave([reader])
        else:
            step: Callable[[Channel], Any] = getattr(reader, act)
            step(self.channel)

    # --- what always holds ----------------------------------------------------------------------------

    @invariant()
    def reads_are_counted(self) -> None:
        channel = self.channel
        assert channel.reads_done <= channel.reads_begun
        assert channel.reading == (self.read_after is not None)
        assert channel.read_due == self.read_asked
        assert channel.loaded or not channel.known

    @invariant()
    def memory_is_counted(self) -> None:
        channel = self.channel
        size = channel._history.bytes + channel._history.size + channel._content.size
        assert self.taken.bytes == channel.size == size

    @invariant()
    def nothing_changes_while_it_reads(self) -> None:
        assert not self.channel.reading or self.channel.position == self.held

    @invariant()
    def all_text_is_of_one_log(self) -> None:
        if self.lost_writes:
            return  # nobody can know it before the next audit
        self._check(self.channel.view)
        for reader in self.readers:
            if reader.generation >= 0:
                assert reader.position == reader.view.position
                self._check(reader.view)

    def _check(self, view: View) -> None:
        position = view.position
        if position.seq and self.checked.get(view) != position:
            self.checked[view] = position
            assert view.as_dict() == fold(self.redis.by_epoch[position.epoch][: position.seq]).as_dict()

    @rule()
    def settle(self) -> None:
        """When nothing else happens, everybody has the whole log after a few reads and audits."""
        for _ in range(10):
            self.deliver_all()
            if self.read_after is not None:
                self.read_answer or self.answer_read()
                self.load()
            for reader in self.readers:
                reader.catch_up(self.channel)
            if self.read_asked:
                self.begin_read(at_once=True)
                continue
            self.begin_audit()
            self.judge_audit()
            if not self.read_asked:
                break
        assert not self.channel.read_due
        assert not self.channel.reading
        assert self.channel.reads_done == self.channel.reads_begun
        assert self.channel.known == (self.redis.log is not None)
        if self.redis.log is not None:
            self.lost_writes = False
            self.delivered.clear()  # what was lost doesn't come from the wire any more
        self.checked.clear()
        self.all_text_is_of_one_log()
        if self.redis.log is not None:
            for reader in self.readers:
                assert reader.position == self.channel.position == self.redis.log[-1].position
                assert self.channel.finished(reader) == (not self.running)

    def teardown(self) -> None:
        if hasattr(self, "channel"):
            self.settle()


TestChannelMachine = ChannelMachine.TestCase
TestChannelMachine.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
