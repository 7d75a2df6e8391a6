"""Names and lifetimes of everything that the bridge keeps in Redis. Spelled here and nowhere else.

Both keys and the channel of a task carry the hash tag ``{task_id}``, so a cluster keeps them on one node;
a task id can't hold braces itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.settings import Settings


@dataclass(frozen=True, slots=True)
class Keys:
    """Names under one prefix in one database, and the TTLs in milliseconds."""

    prefix: str
    database: int
    live_ttl_ms: int
    ended_ttl_ms: int

    @classmethod
    def from_settings(cls, settings: Settings, database: int) -> Keys:
        """`database` is the number of the Redis database that the connection uses."""
        return cls(
            settings.prefix,
            database,
            int(settings.live_ttl_seconds * 1000),
            int(settings.ended_ttl_seconds * 1000),
        )

    def task(self, task_id: str) -> str:
        """The hash with what the scripts must know about the task."""
        return f"{self.prefix}{{{task_id}}}:task"

    def log(self, task_id: str) -> str:
        """The stream that holds the task's events."""
        return f"{self.prefix}{{{task_id}}}:log"

    def channel(self, task_id: str) -> str:
        """The pub/sub channel. It names the database, because pub/sub itself ignores it."""
        return f"{self.prefix}{{{task_id}}}:live:{self.database}"

    def poller(self, task_id: str) -> str:
        """The hash that says which gateway asks an app about this task."""
        return f"{self.prefix}{{{task_id}}}:poller"

    def probe(self, gateway: str) -> str:
        """The pub/sub channel on which a gateway sends messages to itself, and the hash that it writes to."""
        return f"{self.prefix}probe:{gateway}:{self.database}"

    def note(self, name: str) -> str:
        """What a sink keeps of something that it does; `name` is of letters, digits, `-` and `:`."""
        return f"{self.prefix}note:{{{name}}}"

    def note_lease(self, name: str) -> str:
        """Which process does that now."""
        return f"{self.prefix}note:{{{name}}}:lease"

    def note_holder(self, name: str) -> str:
        """Which process did so last, whether or not it still does."""
        return f"{self.prefix}note:{{{name}}}:holder"
