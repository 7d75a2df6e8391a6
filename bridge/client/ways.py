"""Which way a task is followed: the best that gets through. Pure; told the time, never asking for it.

Rules
-----
1. **Down.** A stream is given up for long polls at once when nothing comes of it (`mute`: somebody between
   holds it back), after the second in a row that fell silent, and after the third in a row that failed
   otherwise; a stream that brought an event begins a new row. A long poll that fails is followed by polls,
   and a poll that fails by streams again.
2. **Up.** While polls of either kind are the way, one stream is tried after `STREAM_AGAIN` seconds, and
   after twice as long each time that it brought no event, up to `LONGEST_AGAIN`. One that brought an event
   is the way again. A trial that failed, however it did, leads back to the polls that were the way before.
"""

from __future__ import annotations

from typing import Final, Literal

Way = Literal["stream", "long_poll", "poll"]
Trouble = Literal["mute", "silent", "broken"]
"""`mute`: no byte of a body came in `answer_seconds`. `silent`: none for `silence_seconds` after some had
come. `broken`: everything else: refused, reset, closed too early, a status that says "later"."""

STREAM_AGAIN: Final = 60.0
LONGEST_AGAIN: Final = 600.0
_MOST_SILENT: Final = 2
_MOST_BROKEN: Final = 3


class Ways:
    """What is the way now, and what comes after a failure on it."""

    def __init__(self) -> None:
        self.way: Way = "stream"
        self._polls: Way | None = None
        """Which polls are the way, while streams don't get through."""
        self._again_at = 0.0
        self._again_in = STREAM_AGAIN
        self._brought = False
        self._silent = self._broken = 0

    @property
    def trial(self) -> bool:
        """Whether this is one stream between two polls."""
        return self.way == "stream" and self._polls is not None

    def choose(self, now: float) -> Way:
        """Begin the next request; the way that it takes."""
        self._brought = False
        self.way = self._polls if self._polls is not None and now < self._again_at else "stream"
        return self.way

    def look(self) -> Way:
        """One poll before anything else, which decides nothing about the ways; the way that it takes."""
        self.way = "poll"
        return self.way

    def stream_brought(self) -> None:
        """The stream brought an event: streams get through."""
        self._polls = None
        self._brought = True
        self._again_in = STREAM_AGAIN
        self._silent = self._broken = 0

    def failed(self, trouble: Trouble, now: float) -> None:
        """The request failed, or a stream ended before the task did."""
        if self.way == "long_poll":
            self._polls = "poll"
        elif self.way == "poll":
            self._polls = None
        elif self.trial:
            self._again_in = min(2 * self._again_in, LONGEST_AGAIN)
            self._again_at = now + self._again_in
        elif not self._brought:
            self._silent += trouble == "silent"
            self._broken += trouble == "broken"
            if trouble == "mute" or self._silent == _MOST_SILENT or self._broken == _MOST_BROKEN:
                self._polls = "long_poll"
                self._again_at = now + self._again_in
                self._silent = self._broken = 0
