"""One task on one server, with every script call checked for what must hold after all of them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import redis

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import Chunk, End, Event, Position, Progress
from bridge.settings import Settings
from bridge.store.connect import keys_for
from bridge.store.log import _entry, parse_message
from bridge.store.piece import Ending, Piece
from bridge.store.scripts import SCRIPTS, Answer, Call, Calls, run_pipeline, wire
from bridge.view import View
from tests.waiting import eventually

LEASE_MS = 30_000
LIMIT = 16 * 1024 * 1024
PUBLISH_LIMIT = 1024 * 1024
FRESH_MS = -60_000
"""The age of a call that isn't old, however long it is under way on a busy machine."""
_MARK = b"-- nothing after this"


class Bench:
    """Runs scripts for one task id, listens to its channel, and looks at what is kept of it.

    `run` compares before and after: the log only grows or begins a new, greater epoch; what is published
    is what was appended, to the byte; the hash says what the log says; both keys live equally long.
    """

    def __init__(self, url: str, task_id: str = "job-1") -> None:
        self.task_id = task_id
        self.settings = Settings(redis_url=url)
        client: Any = redis.Redis.from_url(url, protocol=2)
        self.client = client  # redis-py's own types are too loose
        for script in SCRIPTS.values():
            # fakeredis closes a connection after any error that it answers, also after NOSCRIPT.
            self.client.script_load(script.source)
        self.keys = keys_for(self.settings, self.client)
        self.calls = Calls(self.keys)
        self.epoch = 0
        self.lives = 0
        self.folded = View(task_id)
        """What the log says since the last call."""
        self._reports = 0
        self._pubsub: Any = self.client.pubsub()
        self._pubsub.subscribe(self.keys.channel(task_id))
        eventually(lambda: self._pubsub.get_message(timeout=1.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pubsub.close()
        self.client.close()

    # The scripts, with what a test seldom wants to choose

    def create(self, creation: str = "c1", owner: str = "", age_ms: int = 0) -> Answer:
        return self.run(self.calls.create(self.task_id, owner=owner, creation=creation, age_ms=age_ms))

    def open(self, token: str, lease_ms: int = LEASE_MS, room: int = LIMIT) -> Answer:
        return self.run(self.calls.open(self.task_id, token=token, lease_ms=lease_ms, room=room))

    def append(
        self, token: str, batch: int, *events: Event, length: bytes = b"{}", limit: int = LIMIT
    ) -> Answer:
        return self.run(
            self.calls.append(
                self.task_id, token=token, batch=batch, length=length, limit=limit, events=wire(events)
            )
        )

    def renew(self, token: str, lease_ms: int = LEASE_MS) -> Answer:
        return self.run(self.calls.renew(self.task_id, token=token, lease_ms=lease_ms))

    def close(
        self,
        token: str,
        batch: int,
        *events: Event,
        end: End | None = None,
        limit: int = LIMIT,
        code: str = "",
    ) -> Answer:
        end = end or End("succeeded", length={})
        return self.run(
            self.calls.close(
                self.task_id, token=token, batch=batch, length=b"{}", limit=limit, state=end.state, code=code,
                end=encode(end), events=wire(events),
            )
        )  # fmt: skip

    def requeue(self, token: str, batch: int, *events: Event) -> Answer:
        """The attempt gives the task back."""
        return self.run(
            self.calls.close(
                self.task_id, token=token, batch=batch, length=b"{}", limit=LIMIT, state="queued", code="",
                end=b"", events=wire(events),
            )
        )  # fmt: skip

    def conclude(self, place: str, state: str = "failed", *, age_ms: int = 0, **error: str) -> Answer:
        return self.run(self.calls.conclude(self.task_id, place=place, state=state, age_ms=age_ms, **error))

    def cancel(self) -> Answer:
        return self.run(self.calls.cancel(self.task_id))

    def expire(self, age_ms: int = FRESH_MS) -> Answer:
        """`age_ms`: how long the call lay about before it ran."""
        return self.run(self.calls.expire(self.task_id, sent_at=self.now() - age_ms))

    def restore(self, token: str, attempt: int, *events: Event, **more: Any) -> Answer:
        arguments = {
            "name": "r1", "reason": "log_lost", "batch": 0, "known_epoch": 0, "lease_ms": LEASE_MS,
            "length": b"{}", "cancel_requested": False, "created_at": 0, "started_at": self.now(), **more,
        }  # fmt: skip
        return self.run(
            self.calls.restore(self.task_id, token=token, attempt=attempt, events=wire(events), **arguments)
        )

    def report(
        self,
        token: str,
        *events: Event,
        number: int = 0,
        name: str = "",
        part: tuple[int, int] = (0, 1),
        whole: bool = True,
        lease_ms: int | None = None,
        end: str = "",
        most: int = LIMIT,
        limit: int = LIMIT,
        truncated: bool = False,
    ) -> Answer:
        """What a gateway sends for a worker over HTTP. A request without a number or a name is a new one."""
        self._reports += 1
        lengths: Counter[str] = Counter()
        content = 0
        for event in events:
            size = len(event.text.encode()) if isinstance(event, Chunk) else len(encode(event))
            content += 0 if isinstance(event, Progress) else size
            if isinstance(event, Chunk):
                lengths[event.field] += size
        data = encode(End(end)).partition(b',"length"')[0] + b"}" if end else b""
        piece = Piece(
            token, f"~{self._reports}", number, "" if number else name or f"n{self._reports}", *part, whole,
            lease_ms, truncated, lengths, content, wire(events), Ending(end, "", data) if end else None,
        )  # fmt: skip
        return self.run(self.calls.report(self.task_id, piece, most=most, limit=limit))

    # What the environment does

    def lose(self, *names: str) -> None:
        """Redis forgets "task", "log" or both; the clock goes on meanwhile."""
        self.client.delete(*(self._key(name) for name in names))
        while self.now() <= self.epoch:
            pass  # a millisecond is over sooner than `eventually` asks again

    def set_field(self, name: str, value: int) -> None:
        """Let time pass, as far as the task is concerned."""
        self.client.hset(self._key("task"), name, str(value))

    def let_lease_end(self) -> None:
        self.set_field("lease", 1)

    def tick(self) -> int:
        """Wait until the clock of Redis shows another millisecond."""
        before = now = self.now()
        while now <= before:
            now = self.now()
        return now

    # What is there

    def now(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def log(self) -> list[Entry]:
        return [_entry(item) for item in self.client.xrange(self._key("log"))]

    def events(self) -> list[Event]:
        """The log without positions and times."""
        return [_timeless(entry.event) for entry in self.log()]

    def hash(self) -> dict[str, str]:
        return {
            name.decode(): value.decode() for name, value in self.client.hgetall(self._key("task")).items()
        }

    def view(self) -> View:
        view = View(self.task_id)
        view.apply_all(self.log())
        return view

    def ttl_ms(self) -> int:
        return int(self.client.pttl(self._key("task")))

    def heard(self) -> list[bytes]:
        """The messages published since the last call."""
        self.client.publish(self.keys.channel(self.task_id), _MARK)
        return self._until_mark()

    def _until_mark(self) -> list[bytes]:
        messages: list[bytes] = []
        while True:
            message = eventually(lambda: self._pubsub.get_message(timeout=1.0))
            if message["data"] == _MARK:
                return messages
            messages.append(message["data"])

    # The checks

    def run(self, call: Call) -> Answer:
        before = self.log()
        (answer,) = run_pipeline(self.client, [call])
        if isinstance(answer, Exception):
            raise answer
        self.check(before, answer)
        return answer

    def check(self, before: list[Entry], answer: Answer) -> None:
        # In one go: the machines call this some thousand times.
        pipeline = self.client.pipeline(transaction=False)
        pipeline.xrange(self._key("log"))
        pipeline.hgetall(self._key("task"))
        pipeline.pexpiretime(self._key("task"))
        pipeline.pexpiretime(self._key("log"))
        pipeline.publish(self.keys.channel(self.task_id), _MARK)
        items, fields, *ends, _ = pipeline.execute()
        log = [_entry(item) for item in items]
        new_life = bool(log) and (not before or log[0].position.epoch != before[0].position.epoch)
        if new_life:
            assert log[0].position.epoch > self.epoch
            self.epoch = log[0].position.epoch
            self.lives += 1
        else:
            assert log[: len(before)] == before
        self._check_published(log if new_life else log[len(before) :])
        assert [entry.position.seq for entry in log] == list(range(1, len(log) + 1))
        assert all(entry.event.kind != "end" for entry in log[:-1])
        self._check_times(log)
        self.folded = View(self.task_id)
        self.folded.apply_all(log)
        if log and fields:
            fields = {name.decode(): value.decode() for name, value in fields.items()}
            self._check_hash(log, fields)
            assert answer.position == log[-1].position
            assert (answer.state, answer.attempt) == (fields["state"], int(fields["attempt"]))
        self._check_ttls(*ends)

    def _check_published(self, fresh: list[Entry]) -> None:
        messages = self._until_mark()
        assert len(messages) == bool(fresh)
        if messages:
            last, entries = parse_message(messages[0])
            assert last == fresh[-1].position
            large = sum(len(entry.data) for entry in fresh) > PUBLISH_LIMIT
            assert entries == ([] if large else fresh)

    def _check_times(self, log: list[Entry]) -> None:
        """Every event but a chunk carries the time; of chunks the first, and then one a second."""
        last_chunk = None
        for entry in log:
            if not isinstance(entry.event, Chunk):
                assert entry.event.at is not None
            elif entry.event.at is not None:
                last_chunk = entry.event.at
            else:
                assert last_chunk is not None

    def _check_hash(self, log: list[Entry], fields: dict[str, str]) -> None:
        view = self.folded
        assert Position(int(fields["epoch"]), int(fields["seq"])) == view.position
        assert int(fields["bytes"]) == sum(len(entry.data) for entry in log)
        assert (fields["state"], fields["attempt"]) == (view.state, str(view.attempt))
        assert fields["cancel"] == str(int(view.cancel_requested))
        assert int(fields["created"]) == (view.created_at or 0)
        assert int(fields["started"]) == (view.started_at or 0)
        if view.state != "running":
            assert fields["lease"] == "0"

    def _check_ttls(self, *ends: int) -> None:
        """Both keys end in the same millisecond; one that is alone still has its end."""
        times = {time for time in ends if time != -2}
        assert len(times) <= 1 or len(self.client.keys(f"*{{{self.task_id}}}*")) == 1
        assert -1 not in times

    def _key(self, name: str) -> str:
        return self.keys.task(self.task_id) if name == "task" else self.keys.log(self.task_id)


def _timeless(event: Event) -> Event:
    members = {name: getattr(event, name) for name in event.__slots__}
    members.update({name: None for name in ("at", "created_at", "started_at") if name in members})
    return type(event)(**members)
