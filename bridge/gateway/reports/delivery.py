"""One request of a worker on its way to Redis, piece by piece. Promises what `report.lua` promises.

Rules
-----
1. One call at a time. While it is under way the request's body isn't read, so what waits here is what was
   read at once, and no more.
2. A call is repeated, the same to the byte, while Redis is away, for `outage_wait_seconds` at most. Every
   request has a name for that, its own or one made here, so a repetition is never applied twice.
3. What is known already of a body that was sent again is passed over.
4. Content beyond `max_task_bytes` is cut there, at a character, and left out from there on. The end says so
   (`truncated`), and so does every answer. That is no error: the work goes on, as it does with the hook.
5. `answer` is what Redis said last, also after an error.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import monotonic
from typing import Final

from bridge.codec import encode, utf8
from bridge.errors import BridgeError, CorruptLog, InvalidEvent, StoreUnavailable
from bridge.events import Chunk, Data, Progress
from bridge.gateway.hub import Hub
from bridge.gateway.reports.bodies import Unit
from bridge.merge import split_text
from bridge.store.piece import Ending, Piece
from bridge.store.scripts import Answer, Call
from bridge.worker.attempt import LOG_FACTOR
from bridge.worker.batch import BATCH_BYTES, BATCH_EVENTS

_PAUSES: Final = (0.05, 1.0)
"""Between two tries: the first, and the longest, in seconds."""


class ReportRefused(BridgeError):
    """Redis didn't take it. The last answer's verdict says why."""


@dataclass(slots=True)
class _Content:
    """What of some units is to be appended, merged (see `bridge.merge`), as far as there is room for it."""

    events: list[bytes | str]
    lengths: dict[str, int]
    size: int
    cut: bool


class Delivery:
    """Takes the units of one request's body. `request` is an empty piece: it says whose they are."""

    def __init__(self, hub: Hub, task_id: str, request: Piece) -> None:
        self._hub = hub
        self._task_id = task_id
        self._request = request
        self._units: deque[Unit] = deque()
        self._sent = 0
        self._skip = 0
        self._truncated = False
        self.waiting = 0
        """Bytes that wait to be sent."""
        self.answer: Answer | None = None
        self.done = False
        """Whether the whole request is in the log."""

    def add(self, unit: Unit) -> None:
        """The next unit. Raises `InvalidEvent` when the body isn't the one that was sent before."""
        if self._skip:
            known = min(self._skip, unit.size)
            rest = unit.after(known)
            self._sent += known
            self._skip -= known
            if rest is None:
                return
            unit = rest
        self._units.append(unit)
        self.waiting += _weight(unit)

    async def send(self, *, whole: bool = False, end: Ending | None = None) -> Answer:
        """Send all that waits; with nothing a sign of life. `whole`: the body ends here.

        Raises `ReportRefused`, `StoreError`, and `InvalidEvent` as `add` does.
        """
        while self.answer is None or not self.done:
            units = self._take()
            last = whole and len(units) == len(self._units)
            self.answer = await self._deliver(units, last, end if last else None)
            if not self._units and not whole:
                break
        return self.answer

    async def _deliver(self, units: Sequence[Unit], whole: bool, end: Ending | None) -> Answer:
        """Send these units, the first of those that wait, and drop what is there afterwards."""
        stop = self._sent + sum(unit.size for unit in units)
        room: int | None = 0 if self._truncated else None
        while True:
            content = _content(units, room)
            piece = replace(
                self._request,
                start=self._sent,
                stop=stop,
                whole=whole,
                truncated=content.cut or self._request.truncated,
                lengths=content.lengths,
                content=content.size,
                events=content.events,
                end=end,
            )
            answer = self.answer = await self._run(piece)
            self._truncated = answer.truncated
            if answer.verdict != "full":
                break
            # What there is room for may be less by the time it is sent; nothing at all is always taken.
            room = answer.room if room is None else -1
        if answer.verdict not in ("applied", "seen"):
            raise ReportRefused(answer.verdict)
        if answer.verdict == "seen" and 0 <= answer.part <= self._sent:
            raise CorruptLog("a report was seen that wasn't")
        if answer.verdict == "applied":
            self._sent = stop
            for _ in units:
                self.waiting -= _weight(self._units.popleft())
        elif answer.part >= 0:
            self._skip_to(answer.part, whole)
        self.done = answer.part < 0
        return answer

    def _skip_to(self, known: int, whole: bool) -> None:
        """Pass over what somebody else has brought there already."""
        waiting, self._units, self.waiting = self._units, deque(), 0
        self._skip = known - self._sent
        for unit in waiting:
            self.add(unit)
        if self._skip and whole:
            raise InvalidEvent("this is not the body that was sent with this number before: it is shorter")

    def _take(self) -> list[Unit]:
        """As many of those that wait as one call may carry."""
        units: list[Unit] = []
        size = 0
        for unit in self._units:
            size += _weight(unit)
            if len(units) == BATCH_EVENTS or (units and size > BATCH_BYTES):
                break
            units.append(unit)
        return units

    async def _run(self, piece: Piece) -> Answer:
        settings, store = self._hub.settings, self._hub.store
        most = settings.max_task_bytes
        call = store.calls.report(self._task_id, piece, most=most, limit=most * LOG_FACTOR)
        return await write_patiently(self._hub, self._task_id, lambda: call)


async def write_patiently(hub: Hub, task_id: str, make: Callable[[], Call]) -> Answer:
    """Run a script that may be repeated; while Redis is away, again and again, as rule 2 says."""
    give_up = monotonic() + hub.settings.outage_wait_seconds
    pause, longest = _PAUSES
    while True:
        try:
            return await hub.write(task_id, make())
        except StoreUnavailable:
            if hub.draining or monotonic() + pause > give_up:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


def _weight(unit: Unit) -> int:
    return len(unit.event.text) if isinstance(unit.event, Chunk) else len(unit.data)


def _content(units: Sequence[Unit], room: int | None) -> _Content:
    """What is to be appended: at most `room` bytes of content, nothing at all for -1, all for None."""
    merged = _merged(units)
    if room is not None and room < 0:
        return _Content([], {}, 0, bool(merged))
    content = _Content([], {}, 0, False)
    left = math.inf if room is None else room
    for unit in merged:
        event, data = unit.event, unit.data
        if isinstance(event, Progress):
            content.events += (event.kind, data)
            continue
        if isinstance(event, Chunk):
            data = utf8(event.text)
        size = len(data)
        if size > left:
            # No text follows, because it would close up to the gap; nor data, which may belong to it.
            data = data[: int(left)].decode(errors="ignore").encode() if isinstance(event, Chunk) else b""
            size, left, content.cut = len(data), 0, True
        else:
            left -= size
        content.size += size
        if isinstance(event, Data):
            content.events += (event.kind, data) if data else ()
        elif data:
            content.lengths[event.field] = content.lengths.get(event.field, 0) + size
            for text in split_text(data.decode()):
                content.events += (event.kind, encode(Chunk(text, event.field)))
    return content


def _merged(units: Sequence[Unit]) -> list[Unit]:
    """Without progress and data that a later one replaces, and with adjacent text of a field joined."""
    kept: list[Unit] = []
    replaced = set()
    for unit in reversed(units):
        event = unit.event
        if not isinstance(event, Chunk):
            name = event.name if isinstance(event, Data) else None
            if name in replaced:
                continue
            replaced.add(name)
        kept.append(unit)
    merged: list[Unit] = []
    for field, run in groupby(reversed(kept), key=_text_field):
        if field is None:
            merged += run
        else:
            text = "".join(unit.event.text for unit in run if isinstance(unit.event, Chunk))
            merged += [Unit(Chunk(text, field), 0)] if text else []
    return merged


def _text_field(unit: Unit) -> str | None:
    return unit.event.field if isinstance(unit.event, Chunk) else None
