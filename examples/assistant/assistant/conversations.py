"""Conversations, their messages, and the generations that write answers: what the tables hold.

Plain functions on a connection. A conversation of somebody else's is none: every function that looks one up
is told for whom.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final, Self

from assistant.database import now

TITLE_LENGTH: Final = 60
CONTEXT_MESSAGES: Final = 10


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of the list. running: an answer is being written."""

    id: int
    title: str
    updated_at: str
    running: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said. The user's has neither a task nor anything after it; `id` is None for an answer
    that couldn't be stored yet. partial: it is not all that would have come.
    """

    id: int | None
    conversation_id: int
    role: str
    content: str
    created_at: str
    task_id: str | None = None
    partial: bool = False
    state: str = "succeeded"
    error: dict[str, str] | None = None
    usage: dict[str, Any] | None = None
    provider: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """A row of the table."""
        values = dict(row)
        for name in ("error", "usage"):
            values[name] = None if values[name] is None else json.loads(values[name])
        return cls(**{**values, "partial": bool(values["partial"])})


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer being written, or one that was. state: running, succeeded, failed or cancelled.

    message_id: the user's message that it answers. provider: who was asked for, None for whoever comes first.
    """

    task_id: str
    conversation_id: int
    user_id: int
    message_id: int
    provider: str | None
    created_at: str
    state: str

    @property
    def owner(self) -> str:
        """Whose its task is on the bridge."""
        return str(self.user_id)


def list_all(db: sqlite3.Connection, user_id: int) -> list[Conversation]:
    """All of a user's, the latest first."""
    rows = db.execute(
        "SELECT id, title, updated_at, EXISTS (SELECT 1 FROM generations WHERE conversation_id = c.id"
        " AND state = 'running') AS running FROM conversations c WHERE user_id = ?"
        " ORDER BY updated_at DESC, id DESC",
        (user_id,),
    )
    return [Conversation(row["id"], row["title"], row["updated_at"], bool(row["running"])) for row in rows]


def find(db: sqlite3.Connection, user_id: int, conversation_id: int) -> str | None:
    """A conversation's title, or None where this user has no such."""
    row = db.execute(
        "SELECT title FROM conversations WHERE id = ? AND user_id = ?", (conversation_id, user_id)
    ).fetchone()
    return None if row is None else row["title"]


def begin(db: sqlite3.Connection, user_id: int, content: str) -> tuple[int, str]:
    """A new conversation, named after its first words; its id and title."""
    words = " ".join(content.split())
    title = words if len(words) <= TITLE_LENGTH else words[: TITLE_LENGTH - 1] + "…"
    row = db.execute(
        "INSERT INTO conversations (user_id, title, updated_at) VALUES (?, ?, ?) RETURNING id",
        (user_id, title, now()),
    ).fetchone()
    return row["id"], title


def say(db: sqlite3.Connection, conversation_id: int, content: str) -> Message:
    """Add what the user says."""
    at = now()
    row = db.execute(
        "INSERT INTO messages (conversation_id, role, content, created_at) VALUES (?, 'user', ?, ?)"
        " RETURNING *",
        (conversation_id, content, at),
    ).fetchone()
    db.execute("UPDATE conversations SET updated_at = ? WHERE id = ?", (at, conversation_id))
    return Message.of(row)


def start(
    db: sqlite3.Connection, user_id: int, message: Message, task_id: str, provider: str | None
) -> Generation:
    """Note that a message is being answered. Raises IntegrityError while another of its conversation is."""
    row = db.execute(
        "INSERT INTO generations (task_id, conversation_id, user_id, message_id, provider, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
        (task_id, message.conversation_id, user_id, message.id, provider, now()),
    ).fetchone()
    return Generation(**dict(row))


def generation(db: sqlite3.Connection, task_id: str, user_id: int | None = None) -> Generation | None:
    """The generation of a task, if it is this user's; without a user, whosever it is."""
    row = db.execute(
        "SELECT * FROM generations WHERE task_id = ? AND user_id = coalesce(?, user_id)", (task_id, user_id)
    ).fetchone()
    return None if row is None else Generation(**dict(row))


def running(db: sqlite3.Connection, conversation_id: int | None = None) -> list[Generation]:
    """The generations that are not known to have ended, of one conversation or of all."""
    rows = db.execute(
        "SELECT * FROM generations WHERE state = 'running'"
        " AND conversation_id = coalesce(?, conversation_id)",
        (conversation_id,),
    )
    return [Generation(**dict(row)) for row in rows]


def messages(db: sqlite3.Connection, conversation_id: int) -> list[Message]:
    """All that was said, in order."""
    rows = db.execute("SELECT * FROM messages WHERE conversation_id = ? ORDER BY id", (conversation_id,))
    return [Message.of(row) for row in rows]


def answer_of(db: sqlite3.Connection, task_id: str) -> Message | None:
    """What a generation wrote, once it is stored."""
    row = db.execute("SELECT * FROM messages WHERE task_id = ?", (task_id,)).fetchone()
    return None if row is None else Message.of(row)


def context(db: sqlite3.Connection, generation: Generation) -> list[dict[str, str]]:
    """What the model is told: the last messages up to the one that it is to answer, the first of them a
    user's. Answers without a word are left out.
    """
    rows = db.execute(
        "SELECT role, content FROM messages WHERE conversation_id = ? AND id <= ? AND content != ''"
        " ORDER BY id DESC LIMIT ?",
        (generation.conversation_id, generation.message_id, CONTEXT_MESSAGES),
    ).fetchall()
    said = [{"role": row["role"], "content": row["content"]} for row in reversed(rows)]
    return said[1:] if said[0]["role"] == "assistant" else said
