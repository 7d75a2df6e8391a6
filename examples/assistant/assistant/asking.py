"""The one way in: a user's message becomes a task.

Rules
-----
1. All that may be refused is refused before anything is stored, in this order: a conversation that isn't
   there or somebody else's, no provider, too many messages, an answer that is being written already.
2. The checks, the user's message and the generation are one transaction. Of two who ask at the same moment
   in the same conversation the second is refused, and no limit is passed by asking in parallel.
3. Only then is it sent (announced on the bridge, published to the workers): no worker begins what isn't
   stored, and what it is to do it reads from the database, by its own task's id.
4. What can't be sent is kept as failed, so that the user sees it and may ask again. Should the message have
   got through after all, the worker finds that nobody waits for it; one that has begun by then is not in
   vain (`keeping`).
5. If this process dies between storing and sending, the sweeper finds a task that nobody knows. One that was
   announced and not published looks like one that waits: its user may stop it.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Final

from assistant import conversations, keeping
from assistant.accounts import User
from assistant.config import Config
from assistant.conversations import Generation, Message
from assistant.database import Database, now, seconds_ago
from assistant.errors import Refused
from assistant.providers import Providers

log = logging.getLogger(__name__)

MINUTE: Final = 60.0


class NotSent(Exception):
    """The queue can't be reached."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks. Without a conversation one is begun, without a provider any is asked."""

    content: str
    conversation_id: int | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of it: stored and on its way."""

    conversation_id: int
    title: str
    user: Message
    generation: Generation


@dataclass(frozen=True, slots=True)
class Desk:
    """Where questions are put. May be used from any thread."""

    config: Config
    database: Database
    providers: Providers
    send: Callable[[Generation], None]
    """Announces a generation, and gives it to a worker. Raises `NotSent`."""

    def ask(self, user: User, question: Question) -> Asked:
        """Store a question and have it answered. Raises `Refused`, and `sqlite3.Error`."""
        with self.database.transaction() as db:
            asked = self._store(db, user, question)
        try:
            self.send(asked.generation)
        except NotSent as error:
            log.error("task %s can't be sent: %s", asked.generation.task_id, error)
            keeping.keep_now(self.database, asked.generation, _NOT_SENT)
            raise Refused(503, "not_sent", _SORRY, {"Retry-After": "5"}) from error
        return asked

    def _store(self, db: sqlite3.Connection, user: User, question: Question) -> Asked:
        place = question.conversation_id
        title = None if place is None else conversations.find(db, user.id, place)
        if place is not None and title is None:
            raise Refused(404, "not_found", "There is no such conversation.")
        if not self.providers.knows(question.provider):
            raise Refused(409, "no_provider", _no_provider(question.provider))
        self._limit(db, user)
        if place is None or title is None:
            place, title = conversations.begin(db, user.id, question.content)
        message = conversations.say(db, place, question.content)
        try:
            generation = conversations.start(db, user.id, message, str(uuid.uuid4()), question.provider)
        except sqlite3.IntegrityError:
            raise Refused(409, "busy", "An answer is being written in this conversation.") from None
        return Asked(place, title, message, generation)

    def _limit(self, db: sqlite3.Connection, user: User) -> None:
        """Refuse what is one too many in the last minute."""
        limit = self.config.messages_per_minute
        oldest = db.execute(
            "SELECT created_at FROM generations WHERE user_id = ? AND created_at > ?"
            " ORDER BY created_at DESC LIMIT 1 OFFSET ?",
            (user.id, seconds_ago(MINUTE), limit - 1),
        ).fetchone()
        if oldest is None:
            return
        age = datetime.fromisoformat(now()) - datetime.fromisoformat(oldest["created_at"])
        wait = max(ceil(MINUTE - age.total_seconds()), 1)
        message = f"At most {limit} messages a minute; the next may come in {wait} seconds."
        raise Refused(429, "too_many", message, {"Retry-After": str(wait)})


_SORRY: Final = "The question was stored, but can't be answered at this moment. Please ask again later."
_NOT_SENT: Final = keeping.Answer.failed("not_sent", _SORRY)


def _no_provider(name: str | None) -> str:
    if name is None:
        return "No provider is configured. Set the key of one, or start with --demo-model."
    return f"No provider named {name[:50]!r} is configured."
