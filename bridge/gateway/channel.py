"""A channel: the gateway's copy of one task's log, and the followers that read it.

Rules
-----
1. A channel holds a prefix of the log of one epoch, without holes: it is only ever extended, by messages
   from the link (`receive`) and by what was read from the log (`load`). Both are plain calls on the event
   loop; nothing here waits, and nothing here talks to Redis.
2. A message that fits is appended and handed out at once, without what a read has brought already. One that
   doesn't (a hole before it, another epoch, too large to carry its events, the same position with other text)
   makes the channel ask for a read. While a read is under way messages wait in a bounded list; what doesn't
   fit in is in the log. What a read brings is not handed out: the followers are woken, and take it in merged
   pieces.
3. When the log turns out not to continue what the channel holds (a new epoch, or Redis lost writes), the
   whole history is replaced and the channel's `generation` goes up. A follower of an older generation gets
   `reset` and then everything: never text of one life of the log glued to text of another. Redis counts the
   bytes of a log, so a count that differs gives lost writes away even where the ids go on without a hole.
4. A follower is a cursor: the position up to which it was given everything. A batch is encoded once per
   dialect, and the same bytes go to every follower that is up to date and takes them. One that is busy is
   left behind; it comes for what it missed with `take`, in merged pieces (`history.PIECE_BYTES`). So a slow
   reader costs no memory, and loses nothing.
5. What comes over the link is handed on unread: nobody needs to know what a chunk says to pass it on. The
   view takes it in when somebody asks for it. What can't be read then makes the channel read the whole log.
6. A position from a client that is ahead of the channel is not an error: another gateway may be quicker.
   The channel first reads the log; only what is still ahead then, or of another epoch, is reset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import START, Position, Reset
from bridge.gateway.content import Content
from bridge.gateway.counts import Counts, Heal
from bridge.gateway.follower import Batch, Follower
from bridge.gateway.history import PIECE_BYTES, History, data_bytes
from bridge.gateway.memory import Taken
from bridge.gateway.reads import Reads
from bridge.store.log import Head, Reading
from bridge.view import View

_WAITING_MESSAGES: Final = 256
"""So many messages wait while a read is under way, each of at most `PIECE_BYTES`."""


class Channel(Reads):
    """One task. The hub calls `receive` with every message. When a read can and should begin, the channel
    calls `want_read` (which must only note it); a reader answers with `begin_read` and then with `load` or
    `read_failed`. After `read_failed` it tries again unasked. `loaded`, not `known`: there is no such task.

    owner: whose the events are that are held: "" for nobody's, None when there are none. It is not simply the
    head's, which may already be of a later epoch, and another's.
    """

    def __init__(
        self,
        task_id: str,
        want_read: Callable[[Channel], None],
        counts: Counts | None = None,
        taken: Taken | None = None,
    ) -> None:
        super().__init__()
        self.task_id = task_id
        self.position = START
        """Of the newest event held; `START` when there is none."""
        self.written = START
        """What this gateway itself has brought to the log since the last read began, or `START`."""
        self.head: Head | None = None
        self.owner: str | None = None
        self.followers: set[Follower] = set()
        self.generation = 0
        self.known = False
        self.idle_since = 0.0
        self.dropped = False
        self.size = 0
        """About how many bytes of memory it takes: view and history. It is part of what all have `taken`."""
        self._told_owner = (0, "")
        """Whose the task is, and in which epoch, if this gateway was told since the last read began."""
        self._want_read = want_read
        self._content = Content(task_id)
        self._counts = counts or Counts()
        self._taken = taken or Taken()
        self._history = History()
        self._waiting: list[tuple[Position, list[Entry]]] = []

    # --- what the hub, its readers and its audit call -------------------------------------------------

    @property
    def view(self) -> View:
        """The fold of all that is held."""
        self.read_all()
        return self._content.view

    @property
    def ended(self) -> bool:
        """Whether the `end` is held."""
        return self._content.ended

    def view_json(self) -> bytes:
        """The view as JSON, encoded once per change however many poll."""
        self.read_all()
        body = self._content.json()
        self._measure()
        return body

    @property
    def heads(self) -> dict[int, bytes]:
        """What polls keep of their answers' heads, by status; emptied whenever the view changes."""
        return self._content.heads

    def read_all(self) -> None:
        """Rule 5. Merging needs it as well."""
        if not self._content.read():
            self.heal("unreadable", whole=True)

    def heal(self, why: Heal, *, whole: bool = False) -> None:
        """Ask for a read, because what is held isn't all there is, or, with `whole`, isn't right."""
        before = self._read_wanted
        if self.want_read(whole=whole) != before:
            self._counts.heals[why] += 1

    def begin_read(self) -> Position:
        """A read begins now; from here on messages wait. Returns the position to read after."""
        self.written = START
        self._told_owner = (0, "")
        return START if self._begin() else self.position

    def read_failed(self) -> None:
        """The read that was begun came to nothing: another is due. What waited will be read then."""
        self._waiting.clear()
        self._failed()

    def load(self, reading: Reading) -> None:
        """Take in what a read brought, then the messages that came meanwhile."""
        self._done()
        self.head = head = reading.head and self._owned(reading.head)
        waiting, self._waiting = self._waiting, []
        if self._take_reading(reading, head):
            for last, entries in waiting:
                self._take_in(last, entries)
        else:
            self.want_read(whole=True)
        self._measure()
        self._wake_all()

    def receive(self, last: Position, entries: list[Entry]) -> None:
        """A message from the link."""
        if not self.reading:
            self._take_in(last, entries)
        elif len(self._waiting) < _WAITING_MESSAGES and data_bytes(entries) <= PIECE_BYTES:
            self._waiting.append((last, entries))
        else:
            self.heal("backlog")

    def compare(self, head: Head | None, held: Position) -> None:
        """The audit: `head` was read from Redis so long ago that every message before it must have arrived
        by now, and so lately that the channel had already come to `held`.
        """
        if self.reading or not self.loaded:
            return
        if head is None:
            if self.known:
                self.heal("audit")
            return
        self.head = head = self._owned(head)
        self._owned_by(head.owner, head.position)
        if head.position.epoch != self.position.epoch or not held <= head.position <= self.position:
            self.heal("audit")
        elif head.position == self.position and head.bytes != self._history.bytes:
            self.heal("conflict", whole=True)

    def wrote(self, position: Position, owner: str) -> None:
        """This gateway has run a script about the task, and was told the newest position, and whose it is."""
        self.written = max(self.written, position)
        if owner:
            self._told_owner = (position.epoch, owner)
            self.head = self.head and self._owned(self.head)
            self._owned_by(owner, position)

    def forget_history(self) -> None:
        """Give memory back: drop the events that no follower is in the midst of. They can be read again."""
        self.read_all()  # what waits to be read would keep them
        needed = [f.position.seq for f in self.followers if f.generation == self.generation]
        self._history.forget(min(needed, default=self._history.seq))
        self._measure()

    def drop(self) -> None:
        """Nobody needs it any more. Whatever is still done with it, it counts no longer."""
        self._taken.bytes -= self.size
        self.size = 0
        self.dropped = True

    # --- what followers call --------------------------------------------------------------------------

    def take(self, follower: Follower) -> bytes | None:
        """The next piece for a follower that isn't up to date, and move its cursor. None: nothing now.

        Nothing is also the answer while a read must come first; the follower is woken when it is there.
        """
        had = follower.position
        self.read_all()
        restarted = self._resolve(follower)
        if restarted is None:
            return None
        prefix = self._reset_frame(follower, had) if restarted else b""
        if follower.position.seq == self._history.seq:
            return prefix or None
        stop, piece = self._history.piece(follower.position.seq, follower.dialect)
        self._measure()
        follower.position = Position(self.position.epoch, stop)
        return prefix + piece

    def since(self, follower: Follower) -> tuple[list[Entry], bool] | None:
        """All entries after the follower's cursor, merged, and move it. None as in `take`.

        The flag, or a `Reset` among the entries, means: forget what you had.
        """
        self.read_all()
        restarted = self._resolve(follower)
        if restarted is None:
            return None
        entries = self._history.after(follower.position.seq)
        follower.position = self.position
        return entries, restarted

    def finished(self, follower: Follower) -> bool:
        """Whether the follower was given the end."""
        return self.ended and follower.generation == self.generation and follower.position == self.position

    def _resolve(self, follower: Follower) -> bool | None:
        """Bring the cursor into this generation. True: it was put back to before the first event, and what
        the follower has is void. None: a read must come first.
        """
        keeps = self._keeps(follower) if self.known else None
        if keeps is None:
            return None
        if not self._history.reaches(follower.position.seq if keeps else 0):
            if not self._whole_read_awaited:
                self.want_read(whole=True)
            return None
        follower.generation = self.generation
        if keeps:
            return False
        has_something = follower.position != START
        if has_something:
            follower.restarted()
        follower.position = Position(self.position.epoch, 0)
        return has_something

    def _keeps(self, follower: Follower) -> bool | None:
        """Whether what the follower has is the beginning of this log. None: a read must tell (rule 6)."""
        position = follower.position
        if follower.generation >= 0:
            return follower.generation == self.generation
        if position.epoch == self.position.epoch and position.seq <= self._history.seq:
            return True
        return False if position < self.position or self.confirmed(follower) else None

    def confirmed(self, follower: Follower) -> bool:
        """Rule 6: whether a read that began after the follower came has been taken in."""
        if not follower.read_awaited:
            follower.read_awaited = self.want_read()
        return self.reads_done >= follower.read_awaited

    def _reset_frame(self, follower: Follower, had: Position) -> bytes:
        """The `reset` for a follower that was put back; none where the log itself says `reset` anyway, unless
        the client would take that one for an event that it `had` already.
        """
        newest = self._history.last_reset
        if newest and had < Position(self.position.epoch, newest):
            return b""
        reset = Reset("other_log", self.view.attempt)
        return follower.dialect([Entry(follower.position, reset, encode(reset))])

    # --- inside ---------------------------------------------------------------------------------------

    def _ask_for_read(self) -> None:
        self._want_read(self)

    def _owned(self, head: Head) -> Head:
        """A head that may have been read before this gateway was told whose the task is."""
        epoch, owner = self._told_owner
        return head if head.owner or head.position.epoch != epoch else replace(head, owner=owner)

    def _owned_by(self, owner: str, position: Position) -> None:
        """Whose the task is, at a position. One that ran before it was announced gets its owner without an
        event.
        """
        if position.epoch == self.position.epoch and owner != self.owner:
            self.owner = owner
            self._wake_all()

    def _wake_all(self) -> None:
        for follower in tuple(self.followers):
            follower.wake()

    def _take_in(self, last: Position, entries: list[Entry]) -> None:
        """Take a message, or ask for a read where it doesn't fit."""
        if not self.known:
            self.want_read()
        elif last.epoch != self.position.epoch:
            self.heal("epoch")
        elif entries and entries[0].seq == self._history.seq + 1:
            self._hand_out(last, entries)
        elif any(self._history.differs(entry) for entry in entries):
            self.heal("conflict", whole=True)
        elif last > self.position:
            new = entries[self._history.seq - last.seq :]
            if len(new) == last.seq - self._history.seq:
                self._hand_out(last, new)  # it begins with what a read has brought already
            else:
                self.heal("gap" if entries else "too_large")

    def _hand_out(self, position: Position, entries: Sequence[Entry]) -> None:
        """Append a message, and give it to every follower that is up to date and not busy."""
        before, generation = self.position, self.generation
        in_pieces = self._extend(position, entries) > PIECE_BYTES
        self._measure()
        batch = Batch(entries, last=entries[-1].kind == "end")
        for follower in tuple(self.followers):
            # Mostly it is the same object: who was given the last batch got its position.
            if follower.position is not before and follower.position != before:
                continue
            if follower.generation != generation:
                continue
            if in_pieces:
                follower.wake()
            elif follower.offer(batch):
                follower.position = position

    def _take_reading(self, reading: Reading, head: Head | None) -> bool:
        """Extend or replace what is held. False: writes were lost, and only the whole log tells which."""
        entries = reading.entries
        if head is None:
            self._vanish()
            return True
        if reading.whole:
            same_epoch = head.position.epoch == self.position.epoch
            if not (same_epoch and self._history.begins(entries)):
                self._vanish()
            held = self._history.seq
            self._history.remember(entries[:held])
            entries = entries[held:]
        elif self._history.bytes + data_bytes(entries) != head.bytes:
            return False
        self.known = True
        self.owner = head.owner
        if entries:
            self._extend(entries[-1].position, entries)
        return True

    def _extend(self, position: Position, entries: Sequence[Entry]) -> int:
        """Append entries, the last of which stands at `position`. How many bytes of data they have."""
        added = self._history.extend(entries)
        self.position = position
        if not self._content.extend(entries):
            self.heal("unreadable", whole=True)
        return added

    def _measure(self) -> None:
        """Keep `size` true. Done wherever it may have changed: to look at all channels would cost more."""
        if not self.dropped:
            size = self._history.bytes + self._history.size + self._content.size
            self._taken.bytes += size - self.size
            self.size = size

    def _vanish(self) -> None:
        if self.known:
            self.generation += 1
        self.known = False
        self.owner = None
        self.position = START
        self._content = Content(self.task_id)
        self._history = History()
