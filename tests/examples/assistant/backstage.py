"""The assistant's parts without its processes: a real database, and people and questions in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from assistant import conversations
from assistant.accounts import User
from assistant.asking import Asked, Desk, Question
from assistant.config import Config
from assistant.conversations import Generation, Message
from assistant.database import Database
from assistant.providers import Providers


@dataclass
class Backstage:
    """A database, and a desk whose questions go nowhere but into `sent`."""

    folder: Path
    messages_per_minute: int = 100
    sent: list[Generation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = Config(
            database=self.folder / "assistant.db",
            messages_per_minute=self.messages_per_minute,
            demo_model=True,
        )
        self.database = Database(self.config.database)
        self.database.create()
        self.desk = Desk(self.config, self.database, Providers(self.config, {}), self.sent.append)

    def user(self, name: str) -> User:
        """Somebody new, whom no password lets in: to make one takes longer than most tests."""
        with self.database.connection() as db:
            row = db.execute("INSERT INTO users (name, password) VALUES (?, '$') RETURNING id", [name])
            return User(row.fetchone()["id"], name, streaming=True)

    def ask(self, user: User, content: str = "Why?", conversation_id: int | None = None) -> Asked:
        """A question of theirs that may be asked."""
        return self.desk.ask(user, Question(content, conversation_id))

    def messages(self, conversation_id: int) -> list[Message]:
        """All that is stored of a conversation."""
        with self.database.connection() as db:
            return conversations.messages(db, conversation_id)

    def generation(self, task_id: str) -> Generation:
        """As it is now."""
        with self.database.connection() as db:
            found = conversations.generation(db, task_id)
        assert found is not None
        return found

    def count(self, table: str) -> int:
        """How many rows there are."""
        with self.database.connection() as db:
            (number,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(number)

    def refuse_answers(self) -> None:
        """From now on no answer can be stored."""
        with self.database.connection() as db:
            db.execute(
                "CREATE TRIGGER refused BEFORE INSERT ON messages WHEN NEW.role = 'assistant' "
                "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            )

    def take_answers(self) -> None:
        """It works again."""
        with self.database.connection() as db:
            db.execute("DROP TRIGGER refused")
