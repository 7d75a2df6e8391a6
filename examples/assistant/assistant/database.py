"""The SQLite file: its tables, connections and transactions.

Rules
-----
1. A connection is for one piece of work, and closed after it: to open one costs less than a millisecond,
   and nothing of one request is left to another. The web application and its workers share the file alone.
2. Whoever writes says so at once (`BEGIN IMMEDIATE`). It then waits for its turn, at most `BUSY_SECONDS`,
   and never has to give up in the middle. What wasn't its turn in time is `sqlite3.OperationalError`.
3. Readers wait for nobody (write-ahead log), and see the whole of a transaction or nothing of it.
4. Between the begin and the end of a transaction there is no network, so nobody waits for long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

BUSY_SECONDS: Final = 5.0

SCHEMA: Final = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    streaming INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_at TEXT NOT NULL
) STRICT;
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    title TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX conversations_of_user ON conversations (user_id, updated_at);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    conversation_id INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    content TEXT NOT NULL,
    created_at TEXT NOT NULL,
    task_id TEXT UNIQUE, -- the generation that wrote it: each writes one
    partial INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'succeeded',
    error TEXT, -- JSON, as are the tokens used
    usage TEXT,
    provider TEXT,
    model TEXT
) STRICT;
CREATE INDEX messages_of_conversation ON messages (conversation_id, id);
CREATE TABLE generations (
    task_id TEXT PRIMARY KEY,
    conversation_id INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    message_id INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE, -- what it answers
    provider TEXT, -- who was asked for; NULL: whoever comes first
    created_at TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'running'
) STRICT;
-- Who asks twice at once finds out here.
CREATE UNIQUE INDEX one_running ON generations (conversation_id) WHERE state = 'running';
CREATE INDEX generations_of_user ON generations (user_id, created_at);
"""
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Database:
    """Where it is. Any thread of any process may use it."""

    path: Path

    def create(self) -> None:
        """Make the tables, unless they are there. Raises RuntimeError for those of a newer version."""
        with self.connection() as db:
            db.execute("PRAGMA journal_mode = WAL")  # the file remembers it
        with self.transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise RuntimeError(f"{self.path} was made by a newer version of this application")
            if version == 0:
                for statement in SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for the length of the block; each statement is a transaction of its own."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA foreign_keys = ON")
            yield db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that the block does, or nothing of it where it raises."""
        with self.connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def now() -> str:
    """The time as it is stored: UTC, in a form that sorts as text."""
    return stamp(datetime.now(UTC))


def seconds_ago(seconds: float) -> str:
    """What `now` said so many seconds ago."""
    return stamp(datetime.now(UTC) - timedelta(seconds=seconds))


def stamp(time: datetime) -> str:
    """A time in UTC as it is stored."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
