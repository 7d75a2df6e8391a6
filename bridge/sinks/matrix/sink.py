"""Shows tasks in Matrix rooms. What is to be sent is decided in `drafting`, and done here.

What it promises
----------------
1. One message per answer (more when it is long), also when processes die in between: its event ids, and what
   is about to be sent for the first time, are noted in Redis under a lease (`bridge.store.notes`).
2. A homeserver that can't be reached, or that says "too many", is tried again for as long as the task runs,
   and then for `PATIENCE_SECONDS`. What is sent then is the newest text.
3. What a homeserver refuses for good (a token that was revoked, a room that was left) ends the showing with
   `SinkRefused`. The task knows nothing of all this, and goes on.
4. Nothing is written into encrypted rooms: everybody in them would see that it isn't encrypted.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterable
from dataclasses import replace
from types import TracebackType
from typing import Self

import httpx

from bridge.errors import LeaseLost, SinkError, SinkRefused, SinkUnavailable, StoreError, TaskNotFound
from bridge.settings import Settings
from bridge.sinks.matrix.api import Homeserver
from bridge.sinks.matrix.drafting import UNKNOWN, Draft, Drafting, Request
from bridge.sinks.matrix.indicator import Indicator, Indicators
from bridge.sinks.matrix.memory import from_json, to_json
from bridge.sinks.matrix.message import Place, Style
from bridge.sinks.matrix.patience import Failures, insist
from bridge.sinks.newest import Newest
from bridge.store.notes import Hold, Notes
from bridge.view import View

log = logging.getLogger(__name__)


class MatrixSink:
    """One user of one homeserver, who shows tasks. Use it in an `async with` block, in one event loop.

    The address and the access token are settings. `http` brings an httpx client of your own; it is not
    closed. Raises `SettingsError` without them.
    """

    def __init__(
        self, settings: Settings, *, style: Style | None = None, http: httpx.AsyncClient | None = None
    ) -> None:
        self.homeserver = Homeserver(settings.matrix_homeserver, settings.matrix_token, http=http)
        self.notes = Notes(settings)
        self.style = style or Style()
        self._indicators = Indicators(self.homeserver)
        self._user = ""

    async def user(self) -> str:
        """Who shows: the user whose token it is."""
        if not self._user:
            self._user = await insist(self.homeserver.whoami)
        return self._user

    async def show(self, task_id: str, place: Place, views: AsyncIterable[View]) -> bool:
        """Show a task to its end, from where the last process that did so was; whether it is complete.

        False: another process shows it now; ask again later, `views` was not touched. True at once where it
        was shown completely before. Raises `SinkRefused`, also for encrypted rooms; `SinkUnavailable` when
        patience is over; `LeaseLost` when another process took over; `TaskNotFound` for a task that nobody
        knows, whose message, if there is any, stays as it is; and what `views` raises.
        """
        user = await self.user()
        place = replace(place, room=await insist(lambda: self.homeserver.room_id(place.room)))
        if await insist(lambda: self.homeserver.is_encrypted(place.room)):
            raise SinkRefused(f"{place.room} is encrypted, and this sink can't encrypt", "encrypted")
        hold = await self.notes.take(note_name(task_id, place, user))
        if hold is None:
            return False
        async with hold:
            draft = _read(hold)
            if not draft.done:
                drafting = Drafting(task_id, place, self.style, draft, time.monotonic(), _new_txn)
                async with Newest(views) as newest, self._indicators.shown(place.room, user) as indicator:
                    answer = _Answer(self.homeserver, hold, drafting, place.room)
                    await answer.follow(newest, indicator)
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        await self.homeserver.aclose()
        await self.notes.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Answer:
    """One answer on its way: sends what the drafting asks for, one request at a time."""

    def __init__(self, homeserver: Homeserver, hold: Hold, drafting: Drafting, room: str) -> None:
        self._homeserver = homeserver
        self._hold = hold
        self._drafting = drafting
        self._room = room
        self._failures = Failures()

    async def follow(self, newest: Newest, indicator: Indicator) -> None:
        """Until the task has ended and the room shows it."""
        while True:
            await self._hold.confirm()
            now, view = time.monotonic(), newest.view
            due = math.inf
            if view is not None:
                self._check_known(view)
                if indicator.due <= now and not view.ended:
                    await indicator.renew()
                    continue
                step = self._drafting.next(view, now)
                if isinstance(step, Request):
                    await self._perform(step, running=not view.ended)
                    continue
                if view.ended and step == math.inf:
                    self._drafting.finished()
                    await self._remember()
                    return
                due = step if view.ended else min(step, indicator.due)
            if newest.over and not (view is not None and view.ended):
                await newest.changed(0)  # raises what ended them
                raise SinkError("the views of the task ended before the task did")
            await newest.changed(due - now)

    def _check_known(self, view: View) -> None:
        """A task that nobody knows has nothing to show, and must not replace what its message shows."""
        if view.ended and view.error and view.error.get("code") == UNKNOWN and not view.text:
            raise TaskNotFound(f"nobody knows a task {view.task_id}, or not any more")

    async def _perform(self, request: Request, *, running: bool) -> None:
        drafting = self._drafting
        try:
            if request.begins:
                await self._hold.write(self._note())
            event_id = await self._send(request)
        except LeaseLost:
            raise
        except StoreError as error:
            now = time.monotonic()
            drafting.postponed(now, self._failures.wait(error, now, forever=running))
        except SinkUnavailable as error:
            now = time.monotonic()
            if error.limited:
                self._failures.bear(error, now, forever=running)
                log.info("%s; again in %.1f s", error, error.retry_seconds)
                drafting.limited(now, error.retry_seconds)
            else:
                drafting.unanswered(now, self._failures.wait(error, now, forever=running))
        except SinkRefused as error:
            if error.code != "M_TOO_LARGE":
                raise
            log.warning("%s; trying smaller messages", error)
            drafting.too_large(str(error))
        else:
            self._failures.forgive()
            drafting.accepted(event_id, time.monotonic())
            await self._remember()

    async def _send(self, request: Request) -> str:
        if request.content is not None:
            return await self._homeserver.send(self._room, request.txn, request.content)
        try:
            return await self._homeserver.redact(self._room, request.txn, request.target)
        except SinkRefused as error:
            log.warning("a message that is left over can't be removed: %s", error)
            return request.target

    async def _remember(self) -> None:
        """What isn't noted now is noted with the next request: until then its id leads to the event."""
        try:
            await self._hold.write(self._note())
        except LeaseLost:
            raise
        except StoreError as error:
            log.debug("an answer couldn't be noted: %s", error)

    def _note(self) -> bytes:
        return to_json(self._drafting.draft, time.monotonic(), time.time())


def _read(hold: Hold) -> Draft:
    try:
        return from_json(hold.note, time.monotonic(), time.time())
    except ValueError as error:
        raise SinkRefused(f"what was noted of this answer is of no use: {error}", "note") from error


def note_name(task_id: str, place: Place, user: str) -> str:
    """What an answer's note is found by: which task, for whom, and where."""
    parts = "\0".join((task_id, user, place.room, place.thread)).encode("utf-8", "surrogatepass")
    return f"matrix:{hashlib.sha256(parts).hexdigest()[:32]}"


def _new_txn() -> str:
    return f"bridge-{secrets.token_hex(12)}"
