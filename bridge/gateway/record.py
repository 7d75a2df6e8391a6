"""What remains of a stream when it is over: one line in the log, and its part in the counts.

The line is on the logger `bridge.streams`: which task, for how long, how much, whether the client came with a
position, and why it is over. Never who the client was, nor what it had for credentials.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Protocol

from bridge.gateway.counts import Counts, Ending, Sending

log = logging.getLogger("bridge.streams")


class Stream(Sending, Protocol):
    """A stream as it is recorded. `began` is monotonic time; `ending` is None until somebody knows it."""

    began: float
    resumed: bool
    ending: Ending | None


class Recorded:
    """Around all of a stream's life. One that doesn't say why it is over has failed."""

    __slots__ = ("_counts", "_stream", "_task_id")

    def __init__(self, counts: Counts, task_id: str, stream: Stream) -> None:
        self._counts = counts
        self._task_id = task_id
        self._stream = stream

    def __enter__(self) -> None:
        """It begins."""
        self._counts.open.add(self._stream)

    def __exit__(self, *_: object) -> None:
        """It is over."""
        stream = self._stream
        self._counts.close(stream)
        _over(
            self._counts,
            reason=stream.ending or "failed",
            task=self._task_id,
            seconds=round(monotonic() - stream.began, 3),
            bytes=stream.bytes_sent,
            events=stream.events_sent,
            resumed=stream.resumed,
        )


def turned_away(counts: Counts, task_id: str, why: Ending, *, resumed: bool) -> None:
    """A stream that was over before it began."""
    _over(counts, reason=why, task=task_id, seconds=0.0, bytes=0, events=0, resumed=resumed)


def _over(counts: Counts, *, reason: Ending, **more: object) -> None:
    counts.streams[reason] += 1
    log.info("a stream is over", extra={"reason": reason, **more})
