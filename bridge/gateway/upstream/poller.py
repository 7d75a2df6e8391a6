"""The poller of one task: asks the app as long as somebody follows, and writes down what has changed.

Rules
-----
1. It is wanted while somebody besides itself follows the task, the log doesn't know the task or has it from a
   poller, and the task isn't over. When it isn't wanted any more, it asks nothing, and is done.
2. It asks only while it holds the task's lease. Who doesn't get the lease tries again, three times in its
   length: the holder may die. Meanwhile the events come through Redis, as all do. An answer that comes when
   the lease is gone is dropped, because another may have told a newer one; and an ETag from before is not
   sent again.
3. What the app doesn't know is written nowhere: streams wait for it as for any unknown task. A task that has
   been told of, and that the app says 404 of for `unknown_task_wait_seconds`, ends as `failed/unknown_task`.
4. When two questions in a row come to nothing, followers are told: `data` with the name `upstream`, whose
   value says `{"answers": false, "reason": …}`, and `{"answers": true}` when it is over. The text and the
   state stay as they are. For that the log of a task may be begun that nobody has ever seen; it is `queued`
   then.
5. Without Redis nothing can be written, so nothing is asked. After trouble with it the app is asked for
   everything, not for what has changed since an answer that may not be in the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Final

from bridge.errors import StoreError
from bridge.gateway.channel import Channel
from bridge.gateway.hub import Hub
from bridge.gateway.status import PollFollower
from bridge.gateway.upstream.asking import Questions, Said, Unchanged
from bridge.gateway.upstream.lease import Lease
from bridge.gateway.upstream.recorder import Recorder, Taken
from bridge.sources.mapping_file import UPSTREAM
from bridge.sources.pace import Pace
from bridge.sources.polling import Absent, Snapshot, Trouble

log = logging.getLogger("bridge.gateway")

_TOLD_AFTER: Final = 2
"""One question that comes to nothing is nothing to worry people with."""
_AFTER_TROUBLE_SECONDS: Final = 1.0

_NO_SUCH_TASK: Final = {"code": "unknown_task", "message": "The app does not know this task."}


class Poller:
    """One task's poller in one gateway. `run` is its life; `wake` makes it look whether it is wanted."""

    def __init__(self, hub: Hub, questions: Questions, task_id: str, holder: str) -> None:
        self.task_id = task_id
        self.looked = asyncio.Event()
        """Set when the app was asked once, or another gateway turned out to ask it, or nobody need."""
        self.ending = False
        """Set when it was told to end; it still has to give the lease back."""
        self._hub = hub
        self._questions = questions
        self._follower = PollFollower()
        self._lease = Lease(hub.store, task_id, holder, hub.settings.lease_seconds, self.wake)
        self._channel: Channel
        self._recorder: Recorder
        self._etag: bytes | None = None
        self._absent_since: float | None = None

    def wake(self) -> None:
        """Something may have changed about rule 1 or 2."""
        self._follower.wake()

    @property
    def alone(self) -> bool:
        """Whether it is there, but nobody else."""
        channel = self._hub.channel(self.task_id)
        return channel is not None and channel.followers == {self._follower}

    @property
    def wanted(self) -> bool:
        """Rule 1."""
        channel, head = self._channel, self._channel.head
        if self._follower.leaving or channel.followers <= {self._follower}:
            return False
        return not channel.known or (head is not None and head.polled and not channel.view.ended)

    async def run(self) -> None:
        """Until it isn't wanted."""
        with self._hub.attach(self.task_id, self._follower) as self._channel:
            self._recorder = Recorder(self._hub, self._channel, self._follower)
            self._etag = self._absent_since = None
            try:
                while self.wanted:
                    await self._try()
            except Taken:
                self._channel.want_read()  # who has it is known from the log
            finally:
                self.looked.set()

    async def _try(self) -> None:
        """Ask under the lease as long as both last, or wait for it a while."""
        try:
            await self._hub.fresh(self._channel, self._follower)
            if not self.wanted:
                return
            if await self._lease.take():
                self._etag = None
                async with self._lease.kept():
                    await self._ask_on()
            else:
                self.looked.set()
                await self._pause(self._lease.seconds / 3 * random.uniform(0.5, 1.0))
        except StoreError as error:
            log.debug("task %s: not asked about: %s", self.task_id, error)
            self.looked.set()  # and nobody can
            self._etag = None
            await self._pause(_AFTER_TROUBLE_SECONDS * random.uniform(0.5, 1.0))

    async def _ask_on(self) -> None:
        settings = self._hub.settings
        pace = Pace(settings.upstream_shortest_seconds, settings.upstream_longest_seconds, random.random)
        while self.wanted and self._lease.held:
            said = await self._questions.status(self.task_id, self._etag)
            if not self._lease.held:
                return
            pause = await self._take_in(said, pace)
            if not self.looked.is_set():
                await self._recorder.arrive()
                self.looked.set()
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """For so long, but not longer than it is wanted; and one that lost its lease doesn't wait for
        nothing.
        """
        held = self._lease.held
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.wanted and self._lease.held == held:
                    await self._follower.changed()

    # --- what the app said ----------------------------------------------------------------------------

    async def _take_in(self, said: Said, pace: Pace) -> float:
        """Write down what has changed; how long to wait now."""
        self._etag = said.etag
        if not isinstance(said.what, Absent):
            self._absent_since = None
        match said.what:
            case Trouble(reason):
                pause = pace.failed(said.retry_after)
                if pace.failures >= _TOLD_AFTER:
                    await self._tell_trouble(reason)
                return pause
            case Unchanged():
                if not self._recorder.intact:
                    self._etag = None
                changed = await self._recover(Snapshot())
            case Absent():
                changed = await self._miss()
            case snapshot:
                changed = await self._recover(snapshot)
        return pace.answered(changed=changed, retry_after=said.retry_after)

    async def _recover(self, snapshot: Snapshot) -> bool:
        """Write down a snapshot; if followers were told of trouble, also that it is over."""
        if self._told.get("answers") is False:
            snapshot = replace(snapshot, data={**snapshot.data, UPSTREAM: {"answers": True}})
        return snapshot != Snapshot() and await self._recorder.record(snapshot)

    async def _tell_trouble(self, reason: str) -> None:
        if self._told.get("answers") is False:
            return
        state = None if self._channel.known else "queued"
        trouble = {"answers": False, "reason": reason}
        await self._recorder.record(Snapshot(state, data={UPSTREAM: trouble}))

    async def _miss(self) -> bool:
        """Rule 3."""
        if not self._channel.known:
            return False
        if self._absent_since is None:
            self._absent_since = monotonic()
        patience = self._hub.settings.unknown_task_wait_seconds
        if monotonic() - self._absent_since < patience:
            return await self._recover(Snapshot())
        return await self._recorder.record(Snapshot("failed", error=_NO_SUCH_TASK))

    @property
    def _told(self) -> Mapping[str, Any]:
        """What followers were told of the app the last time."""
        value = self._channel.view.data.get(UPSTREAM)
        return value if isinstance(value, dict) else {}
