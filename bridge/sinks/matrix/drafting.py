"""What a room still lacks of an answer: the next request, or when to look again. Pure; told the time.

Rules
-----
1. **One request at a time**, and the newest text wins: what is sent is made of the view at that moment.
2. **Equal text is not sent.** Each message remembers what it shows.
3. **In order.** An earlier message is brought up to date before a later one: it is complete, and says so,
   when the next begins.
4. **Nobody knows whether a request arrived** when its answer didn't. The very same one is repeated, with its
   transaction id, until there is an answer: the server does it once. Any other request gets an id of its own.
5. **A message is begun only after its request was noted** where another process finds it (`Request.begins`),
   so whoever takes over repeats it (rule 4), and learns of the event that may be there already.
6. A task that begins anew shows its new text in the messages that are there. Those left over at the end are
   removed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridge.errors import SinkRefused
from bridge.sinks.matrix.layout import PLACEHOLDER, Limits, arrange, thinking
from bridge.sinks.matrix.message import Body, Content, Place, Style, edit, first
from bridge.sinks.matrix.pace import LONGEST, Pace
from bridge.view import View

UNKNOWN: Final = "unknown_task"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is in the room. shown: what it says (a `digest`). born: seconds. edits: live ones."""

    event_id: str
    shown: str
    born: float
    edits: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request about message `index`. `target` is the event that it edits or removes; empty: it begins the
    message. `content` is None for a removal.
    """

    index: int
    txn: str
    content: Content | None
    shown: str
    target: str = ""
    live: bool = False

    @property
    def begins(self) -> bool:
        """Whether a new event comes of it, which must never be there twice."""
        return not self.target


@dataclass(frozen=True, slots=True)
class Draft:
    """What is kept of an answer: its messages, and the request that may or may not have arrived."""

    messages: tuple[Message, ...] = ()
    pending: Request | None = None
    done: bool = False


class Drafting:
    """One answer on its way into a room."""

    def __init__(
        self, task_id: str, place: Place, style: Style, draft: Draft, now: float, new_txn: Callable[[], str]
    ) -> None:
        self.draft = draft
        self._task_id = task_id
        self._place = place
        self._style = style
        self._pace = Pace(style.interval_seconds)
        self._limits = Limits()
        self._began = now
        self._may_be_there = draft.pending is not None
        """Whether the pending request may have arrived at some time (rule 4)."""
        self._new_txn = new_txn
        self._quiet_until = -math.inf
        """Until then no live edit may go, so views that come meanwhile aren't laid out; that takes a while
        for long ones.
        """

    def next(self, view: View, now: float) -> Request | float:
        """The request to send now, or when to ask again (infinity: not before the view changes).

        When the view has ended, and this is infinity, the answer is complete.
        """
        if self.draft.pending is not None:
            due = self._pace.due()
            return self.draft.pending if due <= now else due
        if not view.ended and now < self._quiet_until:
            return self._quiet_until
        bodies = arrange(view, self._style, self._limits)
        if not bodies:
            if not self.draft.messages and (wait := self._thinking_at(view)) > now:
                return wait
            bodies = [thinking(view, self._style, self._limits)]
        return self._lacking(bodies, now, ended=view.ended)

    def _thinking_at(self, view: View) -> float:
        return self._began + self._style.thinking_seconds if self._style.thinking else math.inf

    def _lacking(self, bodies: Sequence[Body], now: float, *, ended: bool) -> Request | float:
        messages = self.draft.messages
        for index, body in enumerate(bodies):
            if index == len(messages):
                due = self._pace.due()
                return self._begin(index, body) if due <= now else due
            message = messages[index]
            if message.shown != digest(body):
                due = self._pace.live_due(message.born, message.edits) if body.live else self._pace.due()
                if due <= now:
                    return self._edit(index, body)
                if body.live:
                    due = self._quiet_until = min(due, now + LONGEST)
                return due
        return self._left_over(len(bodies), now, ended=ended)

    def _left_over(self, wanted: int, now: float, *, ended: bool) -> Request | float:
        """What to do about messages that the text doesn't need, or not yet (rule 6)."""
        messages, due = self.draft.messages, self._pace.due()
        if ended and len(messages) > wanted:
            return self._remove() if due <= now else due
        emptied = Body(PLACEHOLDER, live=True)
        for index in range(wanted, len(messages)):
            if messages[index].shown != digest(emptied):
                return self._edit(index, emptied) if due <= now else due
        return math.inf

    def _begin(self, index: int, body: Body) -> Request:
        previous = self.draft.messages[index - 1].event_id if index else ""
        content = first(body, self._place, self._style, self._task_id, index, previous)
        return self._remember(Request(index, self._new_txn(), content, digest(body), live=body.live))

    def _edit(self, index: int, body: Body) -> Request:
        target = self.draft.messages[index].event_id
        content = edit(body, target, self._place, self._style, self._task_id, index)
        return self._remember(Request(index, self._new_txn(), content, digest(body), target, body.live))

    def _remove(self) -> Request:
        index = len(self.draft.messages) - 1
        return self._remember(Request(index, self._new_txn(), None, "", self.draft.messages[index].event_id))

    def _remember(self, request: Request) -> Request:
        self.draft = replace(self.draft, pending=request)
        self._may_be_there = False
        return request

    # --- what became of the request -------------------------------------------------------------------

    def accepted(self, event_id: str, now: float) -> None:
        """The pending request was answered well; `event_id` is what came of it."""
        request = self.draft.pending
        assert request is not None
        messages = list(self.draft.messages)
        if request.begins:
            messages.append(Message(event_id, request.shown, now))
        elif request.content is None:
            messages.pop()
        else:
            before = messages[request.index]
            messages[request.index] = replace(before, shown=request.shown, edits=before.edits + request.live)
        self.draft = replace(self.draft, messages=tuple(messages), pending=None)
        self._pace.sent(now)

    def limited(self, now: float, seconds: float) -> None:
        """The server did nothing, and names a time to come back. Then it is made of the newest text."""
        self._forget()
        self._pace.limited(now, seconds)

    def postponed(self, now: float, seconds: float) -> None:
        """It was not sent this time."""
        self._forget()
        self._pace.failed(now, seconds)

    def unanswered(self, now: float, seconds: float) -> None:
        """Nobody knows whether it arrived: it is repeated in so many seconds."""
        self._may_be_there = True
        self._pace.failed(now, seconds)

    def too_large(self, reason: str) -> None:
        """Its size is refused: smaller ones are tried. Raises `SinkRefused` if there are none."""
        limits = self._limits.smaller()
        if limits is None:
            raise SinkRefused(f"even the smallest message is too large: {reason}", "M_TOO_LARGE")
        self._limits = limits
        self.draft = replace(self.draft, pending=None)

    def _forget(self) -> None:
        """Make another instead, unless this one may have arrived before."""
        if not self._may_be_there:
            self.draft = replace(self.draft, pending=None)

    def finished(self) -> None:
        """The answer is complete."""
        self.draft = replace(self.draft, done=True)


def digest(body: Body) -> str:
    """Names what a body says. Whether it has HTML beside its text makes no difference."""
    said = "\0".join((body.text, body.opening, body.note, "live" if body.live else ""))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]
