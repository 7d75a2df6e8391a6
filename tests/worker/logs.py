"""Looking at what a worker's reports have become in Redis."""

from __future__ import annotations

import json
from typing import Any

import redis

from bridge.codec import decode
from bridge.entries import Entry
from bridge.events import End, Event, Position
from bridge.settings import Settings
from bridge.store.scripts import Answer, Call
from bridge.store.writer import Writer
from bridge.view import View


def read_log(client: redis.Redis, task_id: str) -> list[Entry]:
    """All entries of a task's log."""
    raw: Any = client.xrange(f"bridge:{{{task_id}}}:log")
    return [
        Entry(Position.parse(key.decode()), decode(entry[b"kind"].decode(), entry[b"data"]), entry[b"data"])
        for key, entry in raw
    ]


def events(client: redis.Redis, task_id: str) -> list[Event]:
    """All events of a task's log."""
    return [entry.event for entry in read_log(client, task_id)]


def read_view(client: redis.Redis, task_id: str) -> View:
    """The fold of a task's log. It fails if the log has holes or an end that isn't its last event."""
    entries = read_log(client, task_id)
    assert [entry.position.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert not any(isinstance(entry.event, End) for entry in entries[:-1])
    view = View(task_id)
    view.apply_all(entries)
    return view


def end_of(client: redis.Redis, task_id: str) -> End:
    """A task's end, which must be there; its lengths agree with the fold."""
    found = read_log(client, task_id)
    assert found, "there is no log"
    end, view = found[-1].event, read_view(client, task_id)
    assert isinstance(end, End)
    texts = {"text": view.text, **view.fields}
    assert end.length == {field: len(text.encode()) for field, text in texts.items() if text}
    return end


def fields(client: redis.Redis, task_id: str) -> dict[str, str]:
    """A task's hash."""
    raw: Any = client.hgetall(f"bridge:{{{task_id}}}:task")
    return {key.decode(): value.decode() for key, value in raw.items()}


def change(client: redis.Redis, task_id: str, **values: str | int) -> None:
    """Tamper with a task's hash."""
    client.hset(f"bridge:{{{task_id}}}:task", items=[part for pair in values.items() for part in pair])


def call(settings: Settings, name: str, task_id: str, **arguments: Any) -> Answer:
    """Run one script as somebody else."""
    writer = Writer(settings)
    made: Call = getattr(writer.calls, name)(task_id, **arguments)
    (reply,) = writer.send([made])
    writer.disconnect()
    assert isinstance(reply, Answer), reply
    return reply


def scripts_run(client: redis.Redis) -> int:
    """How many scripts the server has run by their SHA since its statistics began."""
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def as_json(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))
