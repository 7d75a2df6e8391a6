"""What the tests of channels share: logs as plain lists, what Redis would say of them, and a reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge import sse
from bridge.codec import decode, encode
from bridge.entries import Entry
from bridge.events import START, Event, Position, Reset
from bridge.gateway.channel import Channel
from bridge.gateway.follower import Batch
from bridge.gateway.history import Dialect, data_bytes
from bridge.store.log import Head, Reading
from bridge.view import View

TASK = "job-42"


def entries(epoch: int, events: Iterable[Event], *, after: int = 0) -> list[Entry]:
    """Events as they stand in a log of that epoch, behind `after` others."""
    return [Entry(Position(epoch, seq), event, encode(event)) for seq, event in enumerate(events, after + 1)]


def head(log: Sequence[Entry]) -> Head:
    """What the task's hash says of a log."""
    return Head(log[-1].position, data_bytes(log), "running", 0, "")


def read(log: Sequence[Entry] | None, after: Position = START) -> Reading:
    """What `Store.read` answers about a log; None is a task that Redis doesn't know."""
    if log is None:
        return Reading(None, [], True, 0)
    last = log[-1].position
    whole = after.epoch != last.epoch or after > last
    return Reading(head(log), list(log if whole else log[after.seq :]), whole, 0)


def fold(log: Iterable[Entry]) -> View:
    """The view of a log."""
    view = View(TASK)
    view.apply_all(log)
    return view


class Wire:
    """A dialect that counts its work: the native stream's frames."""

    def __init__(self) -> None:
        self.encoded: list[tuple[Position, Position]] = []

    def __call__(self, entries: Sequence[Entry]) -> bytes:
        self.encoded.append((entries[0].position, entries[-1].position))
        return b"".join(
            sse.frame(entry.data, event=entry.event.kind, id=str(entry.position)) for entry in entries
        )


class Reader:
    """A follower that folds what it is given, and fails where ids don't strictly increase.

    `had` is what it got before, from elsewhere. While `busy` it takes no batch.
    """

    def __init__(
        self, position: Position = START, *, had: Iterable[Entry] = (), dialect: Wire | None = None
    ) -> None:
        self.position = position
        self.generation = -1
        self.read_awaited = 0
        self.dialect: Dialect = dialect or Wire()
        self.busy = False
        self.wakes = 0
        self.resets = 0
        self.got: list[Position] = []
        self.view = fold(had)

    def offer(self, batch: Batch) -> bool:
        """Take a batch unless busy."""
        if not self.busy:
            self._receive(batch.frames(self.dialect))
        return not self.busy

    def restarted(self) -> None:
        """It is told by a `reset`."""

    def wake(self) -> None:
        """Count it; the test decides when the reader looks."""
        self.wakes += 1

    def tick(self, now: float) -> float:
        """Nothing to do."""
        return now

    def drain(self) -> None:
        """Nothing to do."""

    def cut(self) -> bool:
        """There is no connection."""
        return False

    def take(self, channel: Channel) -> bool:
        """Take one piece as a stream does. False: there was nothing."""
        piece = channel.take(self)
        if piece is not None:
            self._receive(piece)
        return piece is not None

    def poll(self, channel: Channel) -> None:
        """Take everything at once as a long poll does."""
        answer = channel.since(self)
        if answer is None:
            return
        news, restarted = answer
        if restarted:
            self.view = View(TASK)
            self.resets += 1
        for entry in news:
            self._apply(entry.position, entry.event)

    def catch_up(self, channel: Channel) -> None:
        """Take pieces until there are none."""
        while self.take(channel):
            pass

    def _receive(self, frames: bytes) -> None:
        for frame in sse.Decoder().feed(frames):
            self._apply(Position.parse(frame.id), decode(frame.event, frame.data))

    def _apply(self, position: Position, event: Event) -> None:
        if isinstance(event, Reset):
            self.resets += 1
        else:
            assert position > self.view.position, "handed out twice, or out of order"
            assert position.epoch == self.view.position.epoch or self.view.position == START, "glued"
        self.got.append(position)
        self.view.apply(position, event)
