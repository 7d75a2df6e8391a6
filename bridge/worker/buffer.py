"""What one task has reported and the pump hasn't fetched yet.

Rules
-----
1. The reporting side never waits: a few assignments under a lock that is held for no longer by anyone. The
   lock is reentrant, because a signal handler or a finalizer may report in the middle of a report.
2. Order is kept. Adjacent text of one field is one run. A progress that is still here is replaced by a newer
   one, and so is data of the same name that nothing stands after: within one batch no reader could ever see
   the older.
3. It is bounded twice. `limit` is what the whole attempt may write: UTF-8 bytes of text plus the JSON of
   data. Text is cut exactly there, at a character; data that doesn't fit is left out; either sets
   `truncated`, and the work goes on. And when the pump hangs in Redis for long, so that very many small
   events gather, they are folded to what a reader would see after all of them.
4. `closed` is looked at before the lock, too: after a fork the lock may be held by a thread that isn't there.
5. `level` says how soon the pump should come: see the constants. It is told each time the level rises.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final

from bridge.codec import encode, utf8
from bridge.events import Progress
from bridge.worker.fold import Fact, Piece, chunks

EMPTY: Final = 0
PROGRESS: Final = 1
"""Only a progress waits: it goes `PROGRESS_SECONDS` after whatever went last, but not too often."""
TEXT: Final = 2
"""Text waits: it goes when `flush_milliseconds` are over since the last time, and takes a progress along."""
URGENT: Final = 3
"""There is data, or much text, or this is the end: at once."""

PROGRESS_SECONDS: Final = 0.02
"""A progress may come with every turn of a fast loop, so it doesn't go at once."""
PROGRESS_INTERVAL_SECONDS: Final = 0.25
"""A progress that goes alone comes so long after the one before: each stays in the log, and few see more."""

MAX_FIELDS: Final = 100
"""Text fields of one attempt; the text of further ones is left out."""
MAX_NAMES: Final = 1000
"""Names of data of one attempt; data under further ones is left out."""

_PARTS_PER_BLOCK: Final = 1024
_CROWD: Final = 1000


class _Run:
    """Adjacent texts of one field. Parts are joined now and then, so that tiny ones don't fill the memory."""

    __slots__ = ("blocks", "field", "parts")

    def __init__(self, field: str) -> None:
        self.field = field
        self.blocks: list[str] = []
        self.parts: list[str] = []

    def extend(self, other: _Run) -> None:
        self.blocks += ("".join(self.parts), *other.blocks)
        self.parts = other.parts


_Item = _Run | Progress | Fact | None  # None: was replaced by a newer one


class Buffer:
    """Filled by the work's threads, emptied by the pump; also how the pump tells the work to stop."""

    __slots__ = (
        "_crowd", "_fields", "_flush_bytes", "_fraction", "_items", "_lock", "_message", "_names", "_pending",
        "_progress_at", "_room", "_run",
        "cancel_requested", "closed", "go_on", "left_behind", "level", "signal", "told_to_stop", "truncated",
        "watchers",
    )  # fmt: skip

    def __init__(self, limit: int, flush_bytes: int) -> None:
        self._lock = threading.RLock()
        self.signal: Callable[[], None] = _nobody
        self._flush_bytes = flush_bytes
        self._room = limit
        self._items: list[_Item] = []
        self._run: _Run | None = None
        self._progress_at = -1
        self._pending = 0
        self._crowd = _CROWD
        self._fields: set[str] = set()
        self._names: set[str] = set()
        self._fraction: float | None = None
        self._message: str | None = None
        self.level = EMPTY
        self.truncated = False
        self.closed = False
        self.left_behind = False
        self.go_on = True
        self.cancel_requested = False
        self.told_to_stop = False
        self.watchers: tuple[int, float] | None = None
        """How many Redis counted last, and when that was (monotonic clock)."""

    @classmethod
    def nowhere(cls) -> Buffer:
        """One that takes nothing and never says stop: for reports outside any task."""
        buffer = cls(0, 1)
        buffer.closed = True
        return buffer

    # The reporting side.

    def add_text(self, text: str, field: str) -> None:
        """Append text to a field. Lone surrogates, which UTF-8 can't carry, become U+FFFD."""
        if self.closed or not text:
            return
        if text.isascii():
            size = len(text)
        else:
            try:
                size = len(text.encode())
            except UnicodeEncodeError:
                data = utf8(text)
                text, size = data.decode(), len(data)
        with self._lock:
            if self.closed:  # by another thread, since the look above
                return
            if size > self._room:
                text, size = self._cut(text)
                if not size:
                    return
            run = self._run
            if run is None or run.field != field:
                if not self._admit(field, self._fields, MAX_FIELDS):
                    return
                run = _Run(field)
                self._append(run)
                self._run = run
            self._room -= size
            self._pending += size
            run.parts.append(text)
            if len(run.parts) >= _PARTS_PER_BLOCK:
                run.blocks.append("".join(run.parts))
                run.parts.clear()
            if self._pending >= self._flush_bytes:
                if self.level < URGENT:
                    self._rise(URGENT)
            elif self.level < TEXT:
                self._rise(TEXT)

    def add_progress(self, fraction: float | None, message: str | None) -> None:
        """Set the fraction or the status line; what is None stays as it was."""
        if self.closed:
            return
        with self._lock:
            if self.closed:
                return
            self._fraction = self._fraction if fraction is None else fraction
            self._message = self._message if message is None else message
            event = Progress(self._fraction, self._message)
            if self._progress_at >= 0 and self._progress_at == len(self._items) - 1:
                self._items[-1] = event
                return
            if self._progress_at >= 0:
                self._items[self._progress_at] = None
            self._append(event)
            self._progress_at = len(self._items) - 1
            if self.level < PROGRESS:
                self._rise(PROGRESS)
            elif self.level == TEXT:
                self.signal()  # it may be due before the text

    def add_data(self, name: str, data: bytes) -> None:
        """Set a named value; `data` is the JSON of the whole event."""
        if self.closed:
            return
        with self._lock:
            if self.closed:
                return
            if not self._admit(name, self._names, MAX_NAMES):
                return
            if len(data) > self._room:
                self.truncated = True
                return
            self._room -= len(data)
            self._pending += len(data)
            last = self._items[-1] if self._items else None
            if isinstance(last, Fact) and last.name == name:
                self._items[-1] = Fact("data", name, data)
            else:
                self._append(Fact("data", name, data))
            if self.level < URGENT:
                self._rise(URGENT)

    def close(self, *, go_on: bool = False) -> None:
        """Take nothing more: the task is over. `go_on`: that is no reason for the work to stop."""
        with self._lock:
            self.closed = True
            self.go_on = go_on

    def leave_behind(self) -> None:
        """In a forked child: this belongs to the parent. Its lock may be held by a thread that isn't here."""
        self._lock = threading.RLock()
        self.signal = _nobody
        self._items = []
        self.closed = self.left_behind = self.go_on = True

    # The pump's side.

    def connect(self, signal: Callable[[], None]) -> None:
        """From now on `signal` is called whenever the level rises. It must neither block nor raise."""
        self.signal = signal

    def request_cancel(self) -> None:
        """Somebody asked the task to stop: the next report says so."""
        self.cancel_requested = True
        self.go_on = False

    def truncate(self) -> None:
        """Redis takes no more of this attempt's content."""
        with self._lock:
            self.truncated = True
            self._room = 0
            self._clear()

    def discard(self) -> None:
        """Forget what is here."""
        with self._lock:
            self._clear()

    def hurry(self) -> None:
        """What is here is urgent now."""
        with self._lock:
            if EMPTY < self.level < URGENT:
                self._rise(URGENT)

    def due(self, last_flush: float, flush_seconds: float, last_progress: float = -math.inf) -> float:
        """When the content should be fetched, if it was fetched last at `last_flush`, and last with a
        progress in it at `last_progress`.
        """
        if self.level == URGENT:
            return -math.inf
        due = last_flush + flush_seconds if self.level == TEXT else math.inf
        if self._progress_at >= 0:
            soon = last_flush + min(flush_seconds, PROGRESS_SECONDS)
            due = min(due, max(soon, last_progress + PROGRESS_INTERVAL_SECONDS))
        return due

    def take(self) -> list[Piece]:
        """All that is here, in order, merged, and cut to the size of chunks."""
        with self._lock:
            items = self._items
            self._clear()
        pieces: list[Piece] = []
        for item in _merged(items):
            if isinstance(item, _Run):
                pieces += chunks(item.field, (*item.blocks, *item.parts))
            elif isinstance(item, Progress):
                pieces.append(Fact(item.kind, "", encode(item)))
            else:
                pieces.append(item)
        return pieces

    def size(self) -> int:
        """Bytes of text and data that wait here."""
        return self._pending

    # Under the lock.

    def _rise(self, level: int) -> None:
        self.level = level
        self.signal()

    def _clear(self) -> None:
        self._items = []
        self._run = None
        self._progress_at = -1
        self._pending = 0
        self._crowd = _CROWD
        self.level = EMPTY

    def _append(self, item: _Item) -> None:
        if len(self._items) >= self._crowd:
            self._thin_out()
        self._items.append(item)
        self._run = None

    def _admit(self, name: str, known: set[str], most: int) -> bool:
        if name not in known:
            if len(known) >= most:
                self.truncated = True
                return False
            known.add(name)
        return True

    def _cut(self, text: str) -> tuple[str, int]:
        """What of the text still has room; no text follows it, because it would close up to the gap."""
        data = text.encode()[: self._room].decode(errors="ignore").encode()
        self._room = len(data)
        self.truncated = True
        return data.decode(), len(data)

    def _thin_out(self) -> None:
        runs: dict[str, _Run] = {}
        facts: dict[str, Fact] = {}
        progress: Progress | None = None
        for item in self._items:
            if isinstance(item, _Run):
                if item.field in runs:
                    runs[item.field].extend(item)
                else:
                    runs[item.field] = item
            elif isinstance(item, Fact):
                facts[item.name] = item
            else:
                progress = item or progress
        self._items = [*runs.values(), *facts.values()]
        self._progress_at = -1
        if progress is not None:
            self._progress_at = len(self._items)
            self._items.append(progress)
        # Many fields or names can't be thinned out. The next time comes only after as many again.
        self._crowd = 2 * len(self._items) + _CROWD


def _merged(items: list[_Item]) -> list[_Run | Progress | Fact]:
    """Without the replaced ones, and with runs joined that stand beside each other now."""
    merged: list[_Run | Progress | Fact] = []
    for item in items:
        last = merged[-1] if merged else None
        if isinstance(item, _Run) and isinstance(last, _Run) and last.field == item.field:
            last.extend(item)
        elif item is not None:
            merged.append(item)
    return merged


def _nobody() -> None:
    """Nobody listens: the task hasn't started, or belongs to another process."""
