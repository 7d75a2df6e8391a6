"""What the events say that a channel holds: their fold, brought up to date when somebody asks for it.

Most events are handed on by a gateway that nobody asks what they say, so they wait here unread. Only those
that can change more than what the view shows (the end above all) are read at once, with all before them. No
more wait than are read in a few milliseconds, in which nothing else goes out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from bridge.codec import dumps
from bridge.entries import Entry
from bridge.errors import InvalidEvent
from bridge.view import View

log = logging.getLogger("bridge.gateway")

_ONLY_SHOWN: Final = frozenset({"chunk", "progress", "data"})
"""Kinds of events that change nothing but what the view shows."""
_MOST_UNREAD: Final = 1000


class Content:
    """The view of one task, and the events that it lacks."""

    def __init__(self, task_id: str) -> None:
        self.view = View(task_id)
        """Up to what was read. After `read` it is all."""
        self.heads: dict[int, bytes] = {}
        """The heads of answers that show the view, by status. Whoever makes one keeps it here: it is good as
        long as the view is.
        """
        self._unread: list[Entry] = []
        self._json: bytes | None = None

    @property
    def ended(self) -> bool:
        """Whether the `end` is there. It never waits to be read."""
        return self.view.ended

    @property
    def size(self) -> int:
        """About how many bytes it takes beside the view."""
        return len(self._json or b"")

    def json(self) -> bytes:
        """The view as JSON, encoded once per change however many poll. To be called after `read`."""
        if self._json is None:
            self._json = dumps(self.view.as_dict())
        return self._json

    def extend(self, entries: Sequence[Entry]) -> bool:
        """Take in the events that come next. False: as `read`."""
        self._json = None
        self.heads.clear()
        self._unread += entries
        if len(self._unread) >= _MOST_UNREAD:
            return self.read()
        for entry in entries:
            if entry.kind not in _ONLY_SHOWN:
                return self.read()
        return True

    def read(self) -> bool:
        """Bring the view up to date. False: some event can't be read, and counts as one of unknown kind."""
        if not self._unread:
            return True
        well, unread, self._unread = True, self._unread, []
        for entry in unread:
            try:
                event = entry.event
            except InvalidEvent as error:
                log.error("task %s: %s; its log is read again", self.view.task_id, error)
                event, well = entry.give_up(), False
            self.view.apply(entry.position, event)
        return well
