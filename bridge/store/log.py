"""Reading logs and running scripts from asyncio: what the gateway knows of Redis besides its link.

A read takes the task's hash and the log in one MULTI, so that both belong together. Long logs are read in
pages; when the epoch changes between two pages, the read begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.asyncio
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ClusterCrossSlotError, NoScriptError, RedisError, ResponseError

from bridge.codec import KINDS, check_kind, decode
from bridge.entries import Entry
from bridge.errors import CorruptLog, InvalidEvent, InvalidPosition, StoreError, StoreUnavailable
from bridge.events import START, Position
from bridge.store.bulk import ask_all
from bridge.store.connect import ANSWER_SECONDS, cancellable
from bridge.store.keys import Keys
from bridge.store.scripts import Answer, Call, Calls, as_store_error

PAGE: Final = 1000
"""Entries per page. A chunk has at most 64 KiB, so a page has at most 64 MiB, and seldom more than 1."""


POLLER_TOKEN: Final = "upstream"  # noqa: S105 (it is a name, and no secret)
"""The token of every gateway that asks an app about a task: they are one writer, whoever of them asks. It is
also how all tell such a task from a worker's. No worker has a token of so few letters.
"""

SCRIPTS_AT_ONCE: Final = 4
"""Each takes a connection to Redis; a crowd of cancels waits in turn, instead of opening one each."""


@dataclass(frozen=True, slots=True)
class Head:
    """What Redis knows about a task beside its events.

    position: the newest event. bytes: the size of all event data of the epoch. lease: deadline in Redis
    time (ms), 0 when there is none. state: queued, running, or how it ended. polled: the events were not
    reported by a worker, but are what gateways found out by asking an app.
    """

    position: Position
    bytes: int
    state: str
    lease: int
    owner: str
    polled: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer to a read. `head` is None when the task is unknown; `now` is Redis time in ms.

    whole: `entries` begin with the first of the epoch, because the position asked for is not of this
    epoch, or ahead of the log, or because everything was asked for.
    """

    head: Head | None
    entries: list[Entry]
    whole: bool
    now: int


class Store:
    """The asynchronous side of Redis: `read`, `heads`, `run`. Raises `StoreError`s only."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self.client = client
        self._client: Any = client  # redis-py leaves execute_command untyped
        self.keys = keys
        self.calls = Calls(keys)
        self._running = asyncio.Semaphore(SCRIPTS_AT_ONCE)

    async def run(self, call: Call) -> Answer:
        """Run one script. Raises `StoreUnavailable` when Redis is away, `StoreError` when it refuses."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._running:
                raw = await self._evaluate(call)
        except (RedisError, OSError) as error:
            raise as_store_error(error) from error
        return Answer.parse(raw)

    async def _evaluate(self, call: Call) -> Any:
        with cancellable():
            try:
                return await self._client.execute_command(*call.by_sha())
            except NoScriptError:
                return await self._client.execute_command(*call.by_source())

    async def look(self) -> bool:
        """Ask the Sentinels, where there are any, who the master is; whether it is another than before. Then
        connections to the old one are closed. It may not even know yet that it isn't the master any more.
        """
        pool = self._client.connection_pool
        if not isinstance(pool, SentinelConnectionPool):
            return False
        before, ask = pool.master_address, cast("Any", pool).get_master_address
        try:
            with cancellable():
                return bool(before and await ask() != before)
        except (RedisError, OSError):
            return False  # the next round asks again

    async def probe(self, name: str, message: bytes) -> None:
        """Write something, and publish a message on the gateway's own channel, which has that name.

        Raises `StoreUnavailable`, also where Redis answers but refuses writes. It doesn't wait for `run`'s
        crowd: whoever probes is waiting for the answer.
        """
        try:
            await self._evaluate(self.calls.probe(name, message))
        except (RedisError, OSError) as error:
            raise as_store_error(error) from error

    async def claim(self, name: str, holder: str, lease_ms: int) -> bool:
        """Take, or keep, the lease that a hash of that name stands for; with 0 give it back. Whether the
        holder had it, or has it now. Raises `StoreError` like `run`.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool(await self._evaluate(self.calls.claim(name, holder, lease_ms)))
        except (RedisError, OSError) as error:
            raise as_store_error(error) from error

    async def moved(self, task_id: str) -> bool:
        """Whether this is another server than the one on which the task's epoch began, as the scripts mean
        it: the ids that would come next may have been given before. Raises `StoreError`.
        """
        pipeline: Any = self.client.pipeline(transaction=False)
        pipeline.execute_command("HGET", self.keys.task(task_id), "server")
        pipeline.execute_command("INFO", "replication")
        try:
            before, info = await self._execute(pipeline)
        except StoreUnavailable:
            raise
        except StoreError:
            return False  # a server that doesn't tell
        now = str(info.get("master_replid", "")) if isinstance(info, dict) else ""
        return bool(before and now) and before.decode() != now

    async def read(self, task_id: str, after: Position = START) -> Reading:
        """The task's head and its entries after a position.

        If `after` is of another epoch than the log's, or ahead of it, everything is read.
        """
        entries: list[Entry] = []
        start = after
        whole = after == START
        while True:
            head, now, page = await self._page(task_id, start)
            if head is None:
                return Reading(None, [], True, now)
            if start != START and (head.position.epoch != start.epoch or head.position < start):
                entries, start, whole = [], START, True
                continue
            if page and page[-1].position.epoch != head.position.epoch:
                # Both were read in one step, so that reading again would never end.
                raise CorruptLog(f"a log of epoch {page[-1].position.epoch} can't be that of {head.position}")
            entries += page
            if not page or page[-1].position >= head.position:
                return Reading(head, entries, whole, now)
            start = page[-1].position

    async def _page(self, task_id: str, after: Position) -> tuple[Head | None, int, list[Entry]]:
        first = "-" if after == START else f"({after}"
        pipeline: Any = self.client.pipeline(transaction=True)
        pipeline.execute_command("TIME")
        pipeline.execute_command("HMGET", self.keys.task(task_id), *_HEAD_FIELDS)
        pipeline.execute_command("XRANGE", self.keys.log(task_id), first, "+", "COUNT", PAGE)
        pipeline.execute_command("EXISTS", self.keys.log(task_id))
        time, fields, raw, exists = await self._execute(pipeline)
        head = _head(fields) if exists else None
        return head, _milliseconds(time), [_entry(item) for item in raw]

    async def heads(self, task_ids: Sequence[str]) -> tuple[list[Head | None], int]:
        """The heads of many tasks and Redis time (ms), in one pipeline, and another where a log is missing or
        logs can't be asked about together: a cluster's server refuses that, even if it has them all.

        None also stands for one that can't be read, or it would spoil the others: `read` says what is wrong.
        """
        task, log = self.keys.task, self.keys.log
        commands: list[tuple[str, ...]] = [("TIME",)]
        commands += [("HMGET", task(task_id), *_HEAD_FIELDS) for task_id in task_ids]
        logs = [log(task_id) for task_id in task_ids]
        if not logs:
            (time,) = await self._ask_all(commands)
            return [], _milliseconds(time)
        time, *replies, number = await self._ask_all([*commands, ("EXISTS", *logs)])
        heads = [_readable(fields) for fields in replies]
        if isinstance(number, ResponseError) or number < len(logs):
            exist = await self._ask_all([("EXISTS", name) for name in logs])
            heads = [head if exists else None for head, exists in zip(heads, exist, strict=True)]
        return heads, _milliseconds(time)

    async def _ask_all(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        pool = self._client.connection_pool
        seconds = pool.connection_kwargs.get("socket_timeout")
        try:
            with cancellable():
                answers = await ask_all(pool, commands, seconds)
            for answer in answers:
                if isinstance(answer, ResponseError) and not _is_about_keys(answer):
                    raise answer
        except (RedisError, OSError) as error:
            raise as_store_error(error) from error
        return answers

    async def _execute(self, pipeline: Any) -> list[Any]:
        try:
            with cancellable():
                result: list[Any] = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise as_store_error(error) from error
        return result


def parse_message(message: bytes) -> tuple[Position, list[Entry]]:
    """A published message: the position of its last event, and its events, unread (see `bridge.entries`).

    No events at all means that they were too large to be published; they are in the log.
    Raises `CorruptLog` for what no script of ours publishes, as far as that can be seen from outside.
    """
    header, *lines = message.split(b"\n")
    # As `Position.parse` does it, for bytes: this is done for every message.
    before, _, after = header.partition(b"-")
    if not (before.isdigit() and after.isdigit() and len(before) <= _DIGITS and len(after) <= _DIGITS):
        raise CorruptLog(f"a published message can't begin with {header[:60]!r}")
    last = Position(int(before), int(after))
    epoch, seq = last.epoch, last.seq - len(lines)
    if last.seq < 1 or seq < 0:
        raise CorruptLog(f"a published message that ends with {last} can't have {len(lines)} events")
    entries = []
    for line in lines:
        seq += 1
        name, _, data = line.partition(b" ")
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise CorruptLog(f"a published message has an event that is no JSON object: {line[:60]!r}")
        entries.append(Entry.unread(epoch, seq, _KIND_NAMES.get(name) or _other_kind(name), data))
    return last, entries


def _other_kind(name: bytes) -> str:
    """The name of a kind that this version doesn't know. Raises `CorruptLog` for what is none."""
    try:
        return check_kind(name.decode())
    except (InvalidEvent, UnicodeDecodeError) as error:
        raise CorruptLog(f"a published message can't be read: {error}") from None


_DIGITS: Final = 16
_KIND_NAMES: Final = {kind.encode(): kind for kind in KINDS}
"""One string for all events of a kind: they are kept."""


_POLLER_TOKEN: Final = POLLER_TOKEN.encode()
_HEAD_FIELDS: Final = ("epoch", "seq", "bytes", "state", "lease", "owner", "token")


def _head(fields: Sequence[Any]) -> Head | None:
    epoch, seq, size, state, lease, owner, token = fields
    if not epoch:
        return None
    try:
        return Head(
            Position(int(epoch), int(seq or b"")),
            int(size or b""),
            (state or b"").decode(),
            int(lease or 0),
            (owner or b"").decode(),
            token == _POLLER_TOKEN,
        )
    except ValueError as error:
        raise CorruptLog(f"a task's hash can't be read: {error}") from None


def _readable(fields: Sequence[Any] | ResponseError) -> Head | None:
    try:
        return None if isinstance(fields, ResponseError) else _head(fields)
    except CorruptLog:
        return None


def _is_about_keys(error: ResponseError) -> bool:
    """Whether an error says something of the keys that were asked about, and nothing of the server."""
    return isinstance(error, ClusterCrossSlotError) or str(error).startswith("WRONGTYPE ")


def _entry(item: Sequence[Any]) -> Entry:
    raw_id, fields = item
    try:
        position = Position.parse(raw_id.decode())
        data: bytes = fields[b"data"]
        return Entry(position, decode(fields[b"kind"].decode(), data), data)
    except (InvalidPosition, InvalidEvent, KeyError, UnicodeDecodeError) as error:
        raise CorruptLog(f"log entry {raw_id!r} can't be read: {error}") from None


def _milliseconds(time: Sequence[Any]) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000
