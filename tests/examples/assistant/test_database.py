"""database: tables, transactions, and who waits for whom."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from assistant.database import Database, now, seconds_ago

from tests.examples.assistant.backstage import Backstage


def test_the_tables_are_made_once(tmp_path: Path) -> None:
    """A database that is there already keeps what is in it."""
    stage = Backstage(tmp_path)
    stage.user("ann")
    stage.database.create()
    assert stage.count("users") == 1


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """An older application says that it doesn't know these tables."""
    database = Backstage(tmp_path).database
    with database.connection() as db:
        db.execute("PRAGMA user_version = 1000")
    with pytest.raises(RuntimeError, match="newer"):
        database.create()


def test_all_or_nothing(tmp_path: Path) -> None:
    """What a block did before it raised is gone."""
    stage = Backstage(tmp_path)

    def twice() -> None:
        with stage.database.transaction() as db:
            for _ in range(2):
                db.execute("INSERT INTO users (name, password) VALUES ('ann', '')")

    with pytest.raises(sqlite3.IntegrityError):
        twice()
    assert stage.count("users") == 0


def test_readers_wait_for_nobody(tmp_path: Path) -> None:
    """While somebody writes, others see what was there before, at once."""
    stage = Backstage(tmp_path)
    with stage.database.transaction() as db:
        db.execute("INSERT INTO users (name, password) VALUES ('ann', '')")
        assert stage.count("users") == 0
    assert stage.count("users") == 1


def test_two_writers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose turn doesn't come in time is told so, and has done nothing."""
    stage = Backstage(tmp_path)
    monkeypatch.setattr("assistant.database.BUSY_SECONDS", 0.01)
    with stage.database.transaction():
        with pytest.raises(sqlite3.OperationalError, match="locked"), stage.database.transaction():
            raise AssertionError("two at once")


def test_times_sort_as_text() -> None:
    """An older time is the smaller text."""
    assert seconds_ago(0.002) < now()
    assert seconds_ago(86400) < seconds_ago(3600) < now()
    assert now().endswith("Z")


def test_a_database_that_cannot_be(tmp_path: Path) -> None:
    """Where no file can be, that is said at once."""
    with pytest.raises(sqlite3.OperationalError):
        Database(tmp_path / "no" / "folder.db").create()
