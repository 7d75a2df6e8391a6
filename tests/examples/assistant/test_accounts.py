"""accounts: passwords, sessions, and what is stored of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from assistant import accounts

from tests.examples.assistant.backstage import Backstage

PASSWORD = "correct horse"


@pytest.fixture
def stage(tmp_path: Path) -> Backstage:
    """With one user, Ann."""
    stage = Backstage(tmp_path)
    with stage.database.connection() as db:
        accounts.set_password(db, "ann", PASSWORD)
    return stage


def test_the_right_password(stage: Backstage) -> None:
    """It begins a session, which says who it is."""
    with stage.database.connection() as db:
        token = accounts.log_in(db, "ann", PASSWORD)
        assert token is not None
        user = accounts.logged_in(db, token)
    assert user is not None
    assert (user.name, user.streaming) == ("ann", True)


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD), ("ann", ""), ("", "")]
)
def test_a_wrong_one(stage: Backstage, name: str, password: str) -> None:
    """It begins none, whoever it is."""
    with stage.database.connection() as db:
        assert accounts.log_in(db, name, password) is None


def test_who_reads_the_database_is_not_let_in(stage: Backstage) -> None:
    """Neither a password nor a session's token stands in it."""
    with stage.database.connection() as db:
        token = accounts.log_in(db, "ann", PASSWORD)
        assert token is not None
        dump = "\n".join(db.iterdump())
    assert "ann" in dump
    assert PASSWORD not in dump
    assert token not in dump
    assert token.encode().hex() not in dump.lower()


def test_the_same_password_twice(stage: Backstage) -> None:
    """Two users with one password have two hashes."""
    with stage.database.connection() as db:
        accounts.set_password(db, "bob", PASSWORD)
        hashes = {row["password"] for row in db.execute("SELECT password FROM users")}
    assert len(hashes) == 2


def test_logging_out(stage: Backstage) -> None:
    """The session is over, and others of the same user are not."""
    with stage.database.connection() as db:
        first, second = (accounts.log_in(db, "ann", PASSWORD) or "" for _ in range(2))
        accounts.log_out(db, first)
        assert accounts.logged_in(db, first) is None
        assert accounts.logged_in(db, second) is not None


def test_an_old_session(stage: Backstage) -> None:
    """One that has run out counts no more, and is gone with the next login."""
    with stage.database.connection() as db:
        token = accounts.log_in(db, "ann", PASSWORD) or ""
        db.execute("UPDATE sessions SET expires_at = '2020-01-01T00:00:00.000Z'")
        assert accounts.logged_in(db, token) is None
        accounts.log_in(db, "ann", PASSWORD)
    assert stage.count("sessions") == 1


def test_a_new_password(stage: Backstage) -> None:
    """It ends the sessions that the old one began, and the user stays the same."""
    with stage.database.connection() as db:
        token = accounts.log_in(db, "ann", PASSWORD) or ""
        before = accounts.logged_in(db, token)
        accounts.set_password(db, "ann", "another one")
        assert accounts.logged_in(db, token) is None
        assert accounts.log_in(db, "ann", PASSWORD) is None
        after = accounts.logged_in(db, accounts.log_in(db, "ann", "another one") or "")
    assert before == after


def test_streaming_is_a_choice(stage: Backstage) -> None:
    """It is each user's own."""
    bob = stage.user("bob")
    with stage.database.connection() as db:
        accounts.set_streaming(db, bob, False)
        streaming = {row["name"]: bool(row["streaming"]) for row in db.execute("SELECT * FROM users")}
    assert streaming == {"ann": True, "bob": False}
