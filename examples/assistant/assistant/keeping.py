"""Storing an answer that has ended, exactly once, whoever brings it.

Rules
-----
1. The worker brings its answer before its task ends on the bridge. So who sees the end and no message knows
   that storing failed or the worker was killed, and brings what the bridge has: that is `settle`.
2. The first one wins; what another brings for the same task is dropped, because it is the same. One
   exception: an answer that was given up (a worker that was silent for longer than its lease, a task that the
   bridge had forgotten, a message that seemed not to get through) makes way for what its worker has.
3. The message and the generation's state change in one transaction. A generation is running as long as it
   has no message, and its conversation takes no other question; a cancel ends it, also while it waits in
   the queue.
4. Storing may fail (a full disk, a lock held for too long): then nothing has changed, whoever asked is
   told, and the sweeper tries again as long as the bridge keeps the task (`BRIDGE_ENDED_TTL_SECONDS`, an
   hour).
5. A task that the bridge doesn't know may be one that isn't announced yet, or whose log is being repaired.
   Only one that stays unknown for `LOST_SECONDS`, longer than a lease, is lost. With the gateway away
   nothing is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from starlette.concurrency import run_in_threadpool

from assistant import conversations
from assistant.conversations import Generation, Message
from assistant.database import Database, now
from assistant.gateway import Gateway
from bridge.errors import ClientError, GatewayUnavailable, TaskNotFound
from bridge.sources.relay import Outcome

log = logging.getLogger(__name__)

LOST_SECONDS: Final = 60.0
ASK_SECONDS: Final = 2.0
"""So long the gateway is asked about one task at most."""
ENDED: Final = frozenset(("succeeded", "failed", "cancelled"))
_GIVEN_UP: Final = ("worker_lost", "unknown_task", "lost", "not_sent")

_now = time.monotonic
"""Time, in one place: a test has a faster one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a generation ended, and what it had written."""

    state: str
    content: str = ""
    error: Mapping[str, str] | None = None
    usage: Mapping[str, Any] | None = None
    provider: str | None = None
    model: str | None = None
    truncated: bool = False

    @classmethod
    def of_outcome(cls, outcome: Outcome) -> Self:
        """What a worker has."""
        return cls(outcome.state, outcome.text, outcome.error, outcome.usage, *_who(outcome.result))

    @classmethod
    def of_view(cls, view: Mapping[str, Any]) -> Self:
        """What the bridge has."""
        who = _who(view["result"])
        return cls(view["state"], view["text"], view["error"], view["usage"], *who, view["truncated"])

    @classmethod
    def failed(cls, code: str, message: str) -> Self:
        """One that came to nothing."""
        return cls("failed", error={"code": code, "message": message})

    def as_message(self, generation: Generation) -> Message:
        """As a message that isn't stored."""
        return Message(
            id=None,
            conversation_id=generation.conversation_id,
            role="assistant",
            content=self.content,
            created_at=now(),
            task_id=generation.task_id,
            partial=self.truncated or self.state != "succeeded",
            state=self.state,
            error=None if self.error is None else dict(self.error),
            usage=None if self.usage is None else dict(self.usage),
            provider=self.provider or generation.provider,
            model=self.model,
        )


LOST: Final = Answer.failed("lost", "The answer was lost. Please ask again.")


def keep(db: sqlite3.Connection, generation: Generation, answer: Answer) -> Message:
    """Store an answer, in the caller's transaction; what is stored of this generation now."""
    message = answer.as_message(generation)
    values = {name: getattr(message, name) for name in _COLUMNS}
    for name in ("error", "usage"):
        values[name] = None if values[name] is None else json.dumps(values[name])
    stored = db.execute(_KEEP, {**values, "given_up": json.dumps(_GIVEN_UP)})
    if stored.rowcount:
        db.execute("UPDATE generations SET state = ? WHERE task_id = ?", (answer.state, generation.task_id))
        db.execute(
            "UPDATE conversations SET updated_at = ? WHERE id = ?",
            (message.created_at, generation.conversation_id),
        )
    kept = conversations.answer_of(db, generation.task_id)
    assert kept is not None
    return kept


_COLUMNS: Final = (
    *("conversation_id", "role", "content", "created_at", "task_id", "partial"),
    *("state", "error", "usage", "provider", "model"),
)
# Rule 2. What was given up keeps its id and its place.
_KEEP: Final = f"""
INSERT INTO messages ({", ".join(_COLUMNS)}) VALUES ({", ".join(":" + name for name in _COLUMNS)})
ON CONFLICT (task_id) DO UPDATE SET content = excluded.content, partial = excluded.partial,
    state = excluded.state, error = excluded.error, usage = excluded.usage,
    provider = excluded.provider, model = excluded.model
WHERE messages.error ->> 'code' IN (SELECT value FROM json_each(:given_up))
    AND coalesce(excluded.error ->> 'code', '') NOT IN (SELECT value FROM json_each(:given_up))
"""  # noqa: S608 - the names of columns, from above


def keep_now(database: Database, generation: Generation, answer: Answer) -> Message:
    """`keep` in a transaction of its own."""
    with database.transaction() as db:
        return keep(db, generation, answer)


@dataclass(slots=True)
class Sweeper:
    """Stores what ended on the bridge and isn't here."""

    database: Database
    gateway: Gateway
    _unknown: dict[str, float] = field(default_factory=dict)
    """Since when the bridge says of a task that it doesn't know it."""

    async def run(self, seconds: float) -> None:
        """Sweep again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.sweep()
            except Exception:
                log.exception("a sweep failed, and is not the last")

    async def sweep(self, conversation_id: int | None = None) -> None:
        """Settle what is running here, in one conversation or in all, as far as that can be done now."""
        generations = await run_in_threadpool(self._running, conversation_id)
        if conversation_id is None:
            ids = {generation.task_id for generation in generations}
            self._unknown = {task_id: at for task_id, at in self._unknown.items() if task_id in ids}
        for generation in generations:
            try:
                await self.settle(generation)
            except GatewayUnavailable:
                return
            except (ClientError, sqlite3.Error) as error:
                log.warning("task %s isn't stored yet: %s", generation.task_id, error)

    async def settle(self, generation: Generation) -> Message | None:
        """Store one answer if it has ended on the bridge; None if it hasn't, or isn't known there yet.

        Raises `ClientError` where the gateway can't say, and `sqlite3.Error` where it can't be stored.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                view = await self.gateway.status(generation)
        except TimeoutError:
            raise GatewayUnavailable("the gateway gave no sign in time") from None
        except TaskNotFound:
            since = self._unknown.setdefault(generation.task_id, _now())
            if _now() - since < LOST_SECONDS:
                return None
            return await run_in_threadpool(keep_now, self.database, generation, LOST)
        self._unknown.pop(generation.task_id, None)
        if view["state"] not in ENDED:
            return None
        return await run_in_threadpool(keep_now, self.database, generation, Answer.of_view(view))

    def _running(self, conversation_id: int | None) -> list[Generation]:
        with self.database.connection() as db:
            return conversations.running(db, conversation_id)


def _who(result: Any) -> tuple[str | None, str | None]:
    said = result if isinstance(result, Mapping) else {}
    return said.get("provider"), said.get("model")
