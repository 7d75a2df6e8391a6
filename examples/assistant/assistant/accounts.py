"""Users, and who is logged in.

A password is stored as its scrypt hash, a session's token as its SHA-256: who reads the database can log in
as nobody. Somebody who isn't there is refused as slowly as a wrong password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from assistant.database import now, stamp

SESSION_DAYS: Final = 30
_COST: Final = {"n": 2**14, "r": 8, "p": 1}
"""What RFC 7914 proposes for interactive logins: 16 MB, some 50 ms."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a login. streaming: whether their answers stream."""

    id: int
    name: str
    streaming: bool


def set_password(db: sqlite3.Connection, name: str, password: str) -> None:
    """Add a user, or give one a new password, which ends their sessions."""
    db.execute(
        "INSERT INTO users (name, password) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET password = excluded.password",
        (name, _hashed(password, secrets.token_bytes(16))),
    )
    db.execute("DELETE FROM sessions WHERE user_id = (SELECT id FROM users WHERE name = ?)", (name,))


def log_in(db: sqlite3.Connection, name: str, password: str) -> str | None:
    """A new session's token, or None where name and password don't belong together."""
    row = db.execute("SELECT id, password FROM users WHERE name = ?", (name,)).fetchone()
    stored: str = row["password"] if row else _NOBODY
    salt = bytes.fromhex(stored.partition("$")[0])
    right = hmac.compare_digest(stored, _hashed(password, salt))
    if not right or row is None:
        return None
    token = secrets.token_urlsafe(32)
    ends = stamp(datetime.now(UTC) + timedelta(days=SESSION_DAYS))
    db.execute("DELETE FROM sessions WHERE expires_at < ?", (now(),))
    db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_digest(token), row["id"], ends))
    return token


def log_out(db: sqlite3.Connection, token: str) -> None:
    """End a session."""
    db.execute("DELETE FROM sessions WHERE token_hash = ?", (_digest(token),))


def logged_in(db: sqlite3.Connection, token: str) -> User | None:
    """Whose session it is, or None for none or one that has run out."""
    row = db.execute(
        "SELECT users.id, name, streaming FROM sessions JOIN users ON users.id = user_id"
        " WHERE token_hash = ? AND expires_at > ?",
        (_digest(token), now()),
    ).fetchone()
    return None if row is None else User(row["id"], row["name"], bool(row["streaming"]))


def set_streaming(db: sqlite3.Connection, user: User, streaming: bool) -> None:
    """Whether this user's answers stream."""
    db.execute("UPDATE users SET streaming = ? WHERE id = ?", (streaming, user.id))


def _hashed(password: str, salt: bytes) -> str:
    return f"{salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **_COST).hex()}"


def _digest(token: str) -> bytes:
    # A token is random and long: nobody finds it by trying, so one quick round is enough.
    return hashlib.sha256(token.encode()).digest()


_NOBODY: Final = f"{'00' * 16}$"
