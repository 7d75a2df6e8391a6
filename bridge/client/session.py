"""Following one task over as many connections as it takes. No I/O: bytes in, events and decisions out.

Rules
-----
1. **Nothing twice.** Within an epoch, an event at or before `view.position` was seen already and is dropped.
2. **A reset is believed.** The gateway announces another log by a `reset` with the id ``<epoch>-0``, and that
   epoch may be older than ours. So a reset only counts as seen when it is a numbered event of our own epoch.
   The `end` of a task that the gateway has forgotten has the id ``0-1`` and counts from anywhere too.
3. **Resume from what was complete.** The position moves with whole events only: bytes of one that was cut
   off are forgotten with their connection.
4. **Come back politely.** The first reconnect waits for what the server asked (its `retry:` is already
   jittered), or for a jittered second; each fruitless one after it waits twice as long, up to `LONGEST_WAIT`.
5. **Give up only when there is nobody.** A gateway that was never reached fails at once, so that a wrong
   address is noticed. One that was reached may be away for `patience_seconds`. One that opens streams is
   waited for as long as it takes: it says itself when there is nothing more to wait for.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.codec import KINDS, decode
from bridge.errors import BridgeError, ClientError, GatewayUnavailable, RequestRefused, TaskNotFound
from bridge.events import START, UNKNOWN_TASK_END, End, Event, Position, Reset, check_task_id
from bridge.sse import CONTENT_TYPE, Decoder, Frame
from bridge.view import View

FIRST_WAIT: Final = 1.0
"""Seconds before the first reconnect when the server asked for nothing; jittered down to half of it."""

LONGEST_WAIT: Final = 30.0
"""Seconds that backoff grows to."""

LONGEST_RETRY: Final = 300.0
"""Seconds that a server may ask for; more means this."""

STEADY: Final = 10.0
"""A connection that lasted so many seconds was a good one, even if nothing happened on it."""


Batch = list[tuple[Position, Event]]


class Session:
    """One task as followed by one reader: the view so far, and what to do next.

    Whoever does the I/O calls, per connection: `connect` for the request's headers, `answered` with the
    response's head, `receive` with each piece of its body, and, unless `done`, `dropped` for how long to
    wait before the next. With `after`, the view holds only what came after that position.
    """

    def __init__(
        self,
        task_id: str,
        *,
        after: Position | None = None,
        patience_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.view = View(check_task_id(task_id))
        self.view.position = after or START
        self.done = False
        self._patience = patience_seconds
        self._clock = clock
        self._jitter = jitter
        self._decoder = Decoder()
        self._retry: float | None = None
        self._retry_after = 0.0
        self._failures = 0
        self._last_contact: float | None = None
        self._opened: float | None = None

    def connect(self) -> dict[str, str]:
        """Begin a connection: the headers to ask for the stream with."""
        self._decoder = Decoder()
        self._opened = None
        self._retry_after = 0.0
        headers = {"Accept": CONTENT_TYPE, "Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        if self.view.position != START:
            headers["Last-Event-ID"] = str(self.view.position)
        return headers

    def answered(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """The response's head came; `body` only matters for errors. 204 means that there is nothing more.

        Raises `GatewayUnavailable` for what will pass (then ask `dropped`), another `ClientError` for what
        won't.
        """
        if status == 204:
            self.done = True
            return
        if status != 200:
            self._retry_after = _seconds(headers.get("retry-after", ""))
            raise refusal(status, body)
        kind = headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise ClientError(
                f"the answer is {kind or 'of no type'}, not an event stream: is this a gateway?"
            )
        self._opened = self._last_contact = self._clock()

    def receive(self, data: bytes) -> Batch:
        """Fold a piece of the body into the view; the events in it that are new.

        Raises `ClientError` for events that no gateway sends and `StreamTooLarge` for an endless one.
        """
        self._last_contact = self._clock()
        news: Batch = []
        for frame in self._decoder.feed(data):
            # Kinds that a newer gateway may send are skipped, as are unnamed events.
            if frame.event in KINDS and not self.done:
                self._take(frame, news)
        if news:
            self._failures = 0
        if self._decoder.retry_ms is not None:
            self._retry = min(self._decoder.retry_ms / 1000, LONGEST_RETRY)
        return news

    def _take(self, frame: Frame, news: Batch) -> None:
        try:
            position, event = Position.parse(frame.id), decode(frame.event, frame.data)
        except BridgeError as error:
            raise ClientError(f"the gateway sent an event that makes no sense: {error}") from error
        if self._is_new(position, event):
            self.view.apply(position, event)
            news.append((position, event))
            self.done = isinstance(event, End)

    def _is_new(self, position: Position, event: Event) -> bool:
        known = self.view.position
        if isinstance(event, Reset):
            return position > known or position.epoch != known.epoch or position.seq == 0
        if isinstance(event, End) and position == UNKNOWN_TASK_END:
            return True
        return position > known

    def dropped(self, trouble: GatewayUnavailable) -> float:
        """The connection failed or ended early: seconds to wait before the next.

        Raises `trouble` when it is time to give up (rule 5).
        """
        now = self._clock()
        if self._last_contact is None or now - self._last_contact > self._patience:
            raise trouble
        if self._opened is not None and now - self._opened >= STEADY:
            self._failures = 0
        self._failures += 1
        return max(self._backoff(), self._retry_after)

    def _backoff(self) -> float:
        asked = FIRST_WAIT if self._retry is None else self._retry
        if self._failures == 1 and self._retry is not None:
            return asked
        # Capped exponent: after an hour of failures 2**n would not fit into a float any more.
        grown = max(asked, 0.05) * 2.0 ** min(self._failures - 1, 16)
        wait = min(grown, LONGEST_WAIT) * (0.5 + self._jitter() / 2)
        return wait if self._retry is None else max(wait, asked)


def refusal(status: int, body: bytes) -> ClientError:
    """The error that a response with this status means. Quotes the gateway's JSON error if there is one."""
    said = _said(body)
    if status in (408, 425, 429) or status >= 500:
        return GatewayUnavailable(f"the gateway can't serve now: {said or 'no reason given'} ({status})")
    if status == 404:
        return TaskNotFound(f"{said or 'no such task, or no gateway at this address'} (404)")
    return RequestRefused(f"the gateway refused: {said or 'no reason given'} ({status})")


def _said(body: bytes) -> str:
    """The message of a JSON error, on one line and not too long; empty for anything else."""
    try:
        answer: Any = json.loads(body)
        message = answer["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return " ".join(message.split())[:300] if isinstance(message, str) else ""


def _seconds(retry_after: str) -> float:
    """A `Retry-After` in seconds; the form with a date is for caches and counts as none."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return 0.0
    return LONGEST_RETRY if len(retry_after) > 6 else min(float(retry_after), LONGEST_RETRY)
