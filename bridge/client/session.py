"""Following one task over as many requests as it takes. No I/O: bytes in, events and decisions out.

Rules
-----
1. **Nothing twice.** Within an epoch, an event at or before `view.position` was seen already and is dropped.
2. **A reset is believed.** The gateway announces another log by a `reset` with the id ``<epoch>-0``, and that
   epoch may be older than ours. So a reset only counts as seen when it is a numbered event of our own epoch.
   The `end` of a task that the gateway has forgotten has the id ``0-1`` and counts from anywhere too.
3. **Resume from what was complete.** The position moves with whole events only: bytes of one that was cut
   off are forgotten with their connection.
4. **Come back politely.** Whatever the way, what failed is tried again after the one `Backoff`, but never
   before a `Retry-After`. What went well ends the row of failures: an event, a poll, a stream that lasted.
5. **Give up only when there is nobody.** A gateway that was never reached fails at once, so that a wrong
   address is noticed. One that was reached may be away for `patience_seconds`, counted from the first failure
   that was noticed: whoever reads slowly, or a stream that may be silent for longer, is no reason to leave.
   One that answers is waited for as long as it takes, also while it says of itself that it can't serve now:
   it says when there is nothing more to wait for. A way that fails while there is another decides nothing: a
   mute stream, a long poll, a stream tried between polls.
6. **The best way that gets through**: a stream, long polls or polls. `Ways` decides. Only after a mute
   stream is there no pause, since nothing has failed yet but the way. The first long poll of a row doesn't
   wait: it brings what there is, and tells that polls get through.
7. **A poll is folded like a stream.** `polled` makes events of it. 404 is a task that nobody has created yet,
   or that is forgotten; after `UNKNOWN_WAIT` of nothing but 404 it ends here as the gateway ends a stream.
   (404 for a stream comes from somebody who is no gateway.)
8. **Begin with the present**, if asked to: who comes with a position knows no more of the task than that. One
   poll shows all the rest, also at that very position; then the way is as ever.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bridge.client.answers import is_passing, json_object, refusal, retry_after
from bridge.client.backoff import LONGEST_RETRY, Backoff
from bridge.client.polling import polled
from bridge.client.ways import Trouble, Way, Ways
from bridge.codec import KINDS, decode
from bridge.errors import ClientError, GatewayUnavailable, InvalidInput, StreamTooLarge
from bridge.events import START, UNKNOWN_TASK_END, End, Event, Position, Reset, check_task_id
from bridge.sse import CONTENT_TYPE, Decoder, Frame
from bridge.view import View

OPEN_SECONDS: Final = 5.0
"""How long a stream may take to bring its first byte. The gateway sends its `retry:` at once."""

SILENCE_SECONDS: Final = 45.0
"""How long a stream may be silent. The gateway's heartbeats come every 15 seconds."""

ANSWER_SECONDS: Final = 10.0
"""How long a poll may take, beyond the wait of a long poll."""

LONG_POLL_SECONDS: Final = 25
"""The wait of a long poll; many proxies cut a request off at 30 seconds."""

POLL_EVERY: Final = 2.0
"""Seconds between two polls when the gateway says nothing else."""

NEWS_PAUSE: Final = 0.5
"""Seconds between a long poll that brought something and the next: text comes in pieces, not in letters."""

UNKNOWN_WAIT: Final = 600.0
"""Seconds that a task which nobody knows is polled for."""

STEADY: Final = 10.0
"""A stream that lasted so many seconds was a good one, even if nothing happened on it."""

Batch = list[tuple[Position, Event]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask next: ``GET /tasks/{id}/{what}``. Without a byte in `answer_seconds` it is `mute`; after
    that, without one in `silence_seconds`, it is `silent`.
    """

    way: Way
    query: Mapping[str, str]
    headers: Mapping[str, str]
    answer_seconds: float
    silence_seconds: float

    @property
    def what(self) -> Literal["events", "status"]:
        """The last step of the path."""
        return "events" if self.way == "stream" else "status"


class Session:
    """One task as followed by one reader: the view so far, and what to do next.

    Whoever does the I/O asks `next` for each request. For a stream, `answered` is told the response's head
    and `receive` each piece of its body; for a poll, `polled` is told all at once, and `pause` says how long
    to wait. What goes wrong, and a stream that ends before the session is `done`, goes to `failed`, which
    says how long to wait too. With `after`, the view holds only the text that came after that position; what
    it has else is that of the events since, or, with `look_first`, what a poll before them shows.
    """

    def __init__(
        self,
        task_id: str,
        *,
        after: Position | None = None,
        look_first: bool = False,
        open_seconds: float = OPEN_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        patience_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.view = View(check_task_id(task_id))
        self.view.position = after or START
        self.done = False
        self._open_seconds = open_seconds
        self._silence = silence_seconds
        self._patience = patience_seconds
        self._clock = clock
        self._ways = Ways()
        self._backoff = Backoff(jitter)
        self._decoder = Decoder()
        self._pause = 0.0
        self._retry_after = 0.0
        self._asked = 0.0
        self._looking = look_first and self.view.position != START
        self._waits = False
        self._on_polls = False
        """Whether the latest request was a poll that was answered."""
        self._opened: float | None = None
        self._reached = False
        self._away_since: float | None = None
        self._unknown_since: float | None = None

    @property
    def way(self) -> Way:
        """The way of the latest request."""
        return self._ways.way

    def next(self) -> Request:
        """Begin a request."""
        self._asked = self._clock()
        self._opened = None
        self._retry_after = 0.0
        way = self._ways.look() if self._looking else self._ways.choose(self._asked)
        self._waits = way == "long_poll" and self._on_polls
        self._on_polls = False
        position = self.view.position
        headers = {"Cache-Control": "no-cache"}
        if way == "stream":
            self._decoder = Decoder()
            headers |= {"Accept": CONTENT_TYPE, "Accept-Encoding": "identity"}
            if position != START:
                headers["Last-Event-ID"] = str(position)
            return Request(way, {}, headers, self._open_seconds, self._silence)
        headers["Accept"] = "application/json"
        query = {"after": "0" if position == START else str(position)}
        if not self._waits:
            return Request(way, query, headers, ANSWER_SECONDS, ANSWER_SECONDS)
        query["wait"] = str(LONG_POLL_SECONDS)
        return Request(way, query, headers, LONG_POLL_SECONDS + ANSWER_SECONDS, ANSWER_SECONDS)

    def _contact(self) -> float:
        """Somebody is there, at this time."""
        self._reached, self._away_since = True, None
        return self._clock()

    # --- a stream -------------------------------------------------------------------------------------

    def answered(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """A stream's head came; `body` only matters for errors. 204 means that there is nothing more.

        Raises `GatewayUnavailable` for what will pass, another `ClientError` for what won't.
        """
        if status == 204:
            self.done = True
            return
        self._refuse(status, headers, body)
        kind = headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise ClientError(
                f"the answer is {kind or 'of no type'}, not an event stream: is this a gateway?"
            )
        self._opened = self._contact()

    def receive(self, data: bytes) -> Batch:
        """Fold a piece of the body into the view; the events in it that are new.

        Raises `ClientError` for events that no gateway sends, and for an endless one.
        """
        self._contact()
        try:
            frames = self._decoder.feed(data)
        except StreamTooLarge as error:
            raise ClientError(str(error)) from error
        news: Batch = []
        for frame in frames:
            # Kinds that a newer gateway may send are skipped, as are unnamed events.
            if frame.event in KINDS and not self.done:
                self._take(frame, news)
        if news:
            self._backoff.forgive()
            self._ways.stream_brought()
            self._unknown_since = None
        if self._decoder.retry_ms is not None:
            self._backoff.wish = min(self._decoder.retry_ms / 1000, LONGEST_RETRY)
        return news

    def _take(self, frame: Frame, news: Batch) -> None:
        try:
            position, event = Position.parse(frame.id), decode(frame.event, frame.data)
        except InvalidInput as error:
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

    # --- a poll ---------------------------------------------------------------------------------------

    def polled(self, status: int, headers: Mapping[str, str], body: bytes) -> Batch:
        """A poll was answered: fold it into the view; the events that it stands for.

        Raises `GatewayUnavailable` for what will pass, another `ClientError` for what won't.
        """
        asked = retry_after(headers.get("retry-after", ""))
        if status != 404:
            self._refuse(status, headers, body)
        now = self._contact()
        self._backoff.forgive()
        looked, self._looking, self._on_polls = self._looking, False, True
        if status == 404:
            self._pause = 0.0 if looked else asked or POLL_EVERY
            return self._unknown(now)
        self._unknown_since = None
        try:
            poll = polled(self.view, json_object(body), look=looked)
        except InvalidInput as error:
            raise ClientError(f"the gateway sent a view that makes no sense: {error}") from error
        poll.fold(self.view)
        self.done = poll.ended
        if looked:
            self._pause = 0.0
        elif self.way == "poll":
            self._pause = asked or POLL_EVERY
        elif poll.news:
            self._pause = NEWS_PAUSE
        else:
            # Whoever answers early with nothing new ignores `wait`: that is a poll like any other.
            early = self._waits and now - self._asked < LONG_POLL_SECONDS / 2
            self._pause = POLL_EVERY if early else 0.0
        return [(poll.position, event) for event in poll.events]

    def pause(self) -> float:
        """Seconds to wait after a poll that was answered."""
        return self._pause

    def _unknown(self, now: float) -> Batch:
        """Nobody knows the task: nothing, or its end when that has been so for too long."""
        if self._unknown_since is None:
            self._unknown_since = now
        if now - self._unknown_since < UNKNOWN_WAIT:
            return []
        message = "There is no such task." if self.view.position == START else "The task is no longer known."
        end = End("failed", {"code": "unknown_task", "message": message})
        self.view.apply(UNKNOWN_TASK_END, end)
        self.done = True
        return [(UNKNOWN_TASK_END, end)]

    # --- what goes wrong ------------------------------------------------------------------------------

    def failed(self, error: ClientError, trouble: Trouble = "broken") -> float:
        """The request failed, or the stream ended early: seconds to wait before the next.

        Raises `error` when it won't pass, or when it is time to give up (rule 5).
        """
        if not isinstance(error, GatewayUnavailable):
            raise error
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        away = not self._reached or now - self._away_since > self._patience
        if away and self._decides(trouble):
            raise error
        self._ways.failed(trouble, now)
        if self.way == "stream" and trouble == "mute":
            return 0.0
        if self._opened is not None and now - self._opened >= STEADY:
            self._backoff.forgive()
        return max(self._backoff.failed(), self._retry_after)

    def _decides(self, trouble: Trouble) -> bool:
        """Whether there is no other way left to try (rule 5)."""
        if self.way == "stream":
            return trouble != "mute" and not self._ways.trial
        return self.way == "poll"

    def _refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if status != 200:
            self._retry_after = retry_after(headers.get("retry-after", ""))
            if is_passing(status, body):
                self._contact()
            raise refusal(status, body)
