"""The scripts that write: one fact, one writer, one atomic step each. Beside this file, in Lua.

`common.lua` stands in front of each script that is about a task, and these answer alike (`Answer`). The
gateways' `probe` and `claim` and the sinks' `hold` are about none. The constructors below are the only place
that knows the order of a script's arguments; what they return is a `Call`, which the gateway runs through
`bridge.store.log.Store` and the worker's pump puts into pipelines with `run_pipeline`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, NamedTuple

import redis
from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from bridge.codec import dumps, encode
from bridge.errors import CorruptLog, StoreError, StoreUnavailable
from bridge.events import Event, Position
from bridge.store.keys import Keys
from bridge.store.packing import pack
from bridge.store.piece import Ending, Piece

_ABOUT_TASKS: Final = (
    "create",
    "open",
    "append",
    "renew",
    "close",
    "cancel",
    "expire",
    "restore",
    "conclude",
    "report",
)
NAMES: Final = (*_ABOUT_TASKS, "probe", "claim", "hold")
_WITH_SHORT_WAY: Final = ("append",)
"""The ground reads and prepares what any script may need. Where that would cost too much, a short way for the
ordinary case stands in front of it."""

MAX_JOINED_BYTES: Final = 16 * 1024 * 1024
"""What `open` assumes that one attempt may write, if it isn't told."""

_AT_ONCE: Final = 32
"""So many calls are written with one system call."""

_TEMPORARY: Final = (NoScriptError, ReadOnlyError, ClusterDownError, TryAgainError, OutOfMemoryError)
_TEMPORARY_CODE: Final = re.compile(r"(^|: )(BUSY|MISCONF|NOREPLICAS) ")
"""Refusals that pass by themselves: a server that loads, fails over, or is out of memory or disk. redis-py
has classes for some, and takes the code out of their text; a pipeline puts the command in front."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script's source and the SHA-1 by which Redis knows it."""

    name: str
    source: str
    sha: str


def _load(name: str) -> Script:
    folder = files(__name__)
    quick = (folder / f"{name}_quick.lua").read_text() if name in _WITH_SHORT_WAY else ""
    ground = (folder / "common.lua").read_text() if name in _ABOUT_TASKS else ""
    source = f"{quick}{ground}\n{(folder / f'{name}.lua').read_text()}"
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


SCRIPTS: Final = {name: _load(name) for name in NAMES}


class Answer(NamedTuple):
    """What a script says, after it ran. A tuple, because the pump makes one with each event.

    verdict
        applied: done. seen: was done before, or nothing to do. ended: the task is over (see `state`,
        `code`). fenced: a newer attempt has the task. lost: Redis has forgotten the task. gap: the batch
        number skips ahead of `batch`. full: the log would become too large. unknown: no such task.
        alive: its lease is not over. late: the call lay about too long to be believed. taken: by an attempt
        that has a name. crowded: too many fields.
    position
        The newest event's.
    batch
        The last batch number applied.
    code
        The error code of an end that was not the worker's own, else "".
    now
        Redis time, ms since 1970.
    owner, created_at
        Of the task: whose it is ("" for nobody's), and when it was first heard of (ms since 1970).
    watchers
        How many subscribers of this server follow the task, usually gateways; -1 where that isn't said.
    part, room, truncated, lease_ms
        Of `report` only. How far its request has come, -1 when it is whole. full: how many bytes of content
        there is room for, -1 when for nothing at all. Whether content of the attempt was left out. Its lease.
    """

    verdict: str
    position: Position
    attempt: int
    batch: int
    cancel_requested: bool
    state: str
    code: str
    now: int
    owner: str = ""
    created_at: int = 0
    watchers: int = -1
    part: int = 0
    room: int = 0
    truncated: bool = False
    lease_ms: int = 0

    @classmethod
    def parse(cls, raw: Sequence[Any]) -> Answer:
        """From a script's reply, with or without `decode_responses`.

        Raises `CorruptLog` for what only a damaged hash can have made a script say.
        """
        try:
            verdict, epoch, seq, attempt, batch, cancel, state, code, now, owner, created, watchers, *more = (
                raw
            )
            known = (
                *(_text(verdict), Position(int(epoch), int(seq)), int(attempt), int(batch)),
                *(_text(cancel) == "1", _text(state), _text(code), int(now), _text(owner)),
                *(int(created), int(watchers)),
            )
            if not more:
                return cls(*known)
            part, room, truncated, lease_ms = more
            return cls(*known, int(part), int(room), _text(truncated) == "1", int(lease_ms))
        except (TypeError, ValueError) as error:
            raise CorruptLog(f"a script's answer can't be read: {error}") from error


def _text(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


@dataclass(frozen=True, slots=True)
class Call:
    """One script with its keys and arguments, ready to be sent."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[bytes | str | int, ...]

    def by_sha(self) -> tuple[Any, ...]:
        """The EVALSHA command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def by_source(self) -> tuple[Any, ...]:
        """The EVAL command, for a server that hasn't seen the script."""
        return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.args)


@dataclass(frozen=True, slots=True)
class Calls:
    """Builds calls for tasks under `keys`. Times are in milliseconds, lengths are JSON bytes."""

    keys: Keys

    def _call(self, name: str, task_id: str, *args: bytes | str | int) -> Call:
        keys = self.keys
        fixed = (keys.channel(task_id), keys.live_ttl_ms, keys.ended_ttl_ms)
        return Call(SCRIPTS[name], (keys.task(task_id), keys.log(task_id)), (*fixed, *args))

    def create(self, task_id: str, *, owner: str, creation: str, age_ms: int = 0) -> Call:
        """Announce a task. `creation` names this call, `age_ms` says how long ago it was first made."""
        return self._call("create", task_id, owner, creation, age_ms)

    def open(
        self, task_id: str, *, token: str, lease_ms: int, room: int = MAX_JOINED_BYTES, polite: bool = False
    ) -> Call:
        """Begin an attempt; a lease of 0 means none. A log of more than `room` bytes is begun anew. One that
        is polite begins only where nobody else has the task, or had it: else it is fenced.
        """
        return self._call("open", task_id, token, lease_ms, room, int(polite))

    def append(
        self,
        task_id: str,
        *,
        token: str,
        batch: int,
        length: bytes,
        limit: int,
        events: Sequence[bytes | str],
    ) -> Call:
        """The next batch; `events` is kind, data, kind, data … (see `wire`)."""
        return self._call("append", task_id, token, batch, length, limit, *events)

    def renew(self, task_id: str, *, token: str, lease_ms: int) -> Call:
        """Prolong the lease."""
        return self._call("renew", task_id, token, lease_ms)

    def close(
        self,
        task_id: str,
        *,
        token: str,
        batch: int,
        length: bytes,
        limit: int,
        state: str,
        code: str,
        end: bytes,
        events: Sequence[bytes | str] = (),
    ) -> Call:
        """The last batch and the end; with the state "queued" the end of the attempt only."""
        return self._call("close", task_id, token, batch, length, limit, state, code, end, *events)

    def cancel(self, task_id: str) -> Call:
        """Ask the task to stop."""
        return self._call("cancel", task_id)

    def expire(self, task_id: str, *, sent_at: int) -> Call:
        """End the task if its lease is over. `sent_at` is Redis time as the caller knows it."""
        return self._call("expire", task_id, sent_at)

    def restore(
        self,
        task_id: str,
        *,
        token: str,
        attempt: int,
        name: str,
        reason: str,
        batch: int,
        known_epoch: int,
        lease_ms: int,
        length: bytes,
        cancel_requested: bool,
        created_at: int,
        started_at: int,
        events: Sequence[bytes | str],
        owner: str = "",
    ) -> Call:
        """Write the attempt's whole content anew, in a new epoch. `name` makes a repeated call harmless."""
        return self._call(
            "restore", task_id, token, attempt, name, reason, batch, known_epoch, lease_ms, length,
            int(cancel_requested), created_at, started_at, owner, *events,
        )  # fmt: skip

    def conclude(
        self, task_id: str, *, place: str, state: str, code: str = "", message: str = "", age_ms: int = 0
    ) -> Call:
        """Say how the attempt ended whose token begins with `place`; with "", how the task did that waited.

        state: failed, cancelled, or queued when it will be begun again. `age_ms` says how long ago that was
        first said.
        """
        # The script puts both between quotes.
        inside = (dumps(text)[1:-1] for text in (code, message))
        return self._call("conclude", task_id, place, state, *inside, age_ms)

    def claim(self, name: str, holder: str, lease_ms: int) -> Call:
        """Take or keep the lease that the key of that name stands for; 0 gives it back. Has no `Answer`."""
        return Call(SCRIPTS["claim"], (name,), (holder, lease_ms))

    def report(self, task_id: str, piece: Piece, *, most: int, limit: int) -> Call:
        """A piece of what a worker says over HTTP. An attempt may have `most` bytes of content, a log
        `limit`.
        """
        end = piece.end or Ending("", "", b"{}")
        lease = "" if piece.lease_ms is None else piece.lease_ms
        return self._call(
            "report", task_id, piece.token, piece.own_token, piece.number, piece.name, piece.start,
            piece.stop, int(piece.whole), lease, most, limit, int(piece.truncated),
            dumps(dict(piece.lengths)), piece.content, end.state, end.code, end.data, *piece.events,
        )  # fmt: skip

    def probe(self, name: str, message: bytes) -> Call:
        """Write to the key of that name, and publish on the channel of that name. Has no `Answer`."""
        return Call(SCRIPTS["probe"], (name,), (name, message))

    def hold(
        self, name: str, token: str, lease_ms: int, note: bytes | None = None, *, take: bool = False
    ) -> Call:
        """Take (`take`) or prolong the lease of that name, or, with 0, give it back; and note something.
        Answers whether the lease is, or was, `token`'s, and the note.
        """
        keys = (self.keys.note_lease(name), self.keys.note(name), self.keys.note_holder(name))
        args = (token, lease_ms, self.keys.live_ttl_ms, int(take))
        return Call(SCRIPTS["hold"], keys, args if note is None else (*args, note))


def wire(events: Sequence[Event]) -> list[bytes | str]:
    """Events as the scripts take them: kind, data, kind, data …"""
    flat: list[bytes | str] = []
    for event in events:
        flat += (event.kind, encode(event))
    return flat


def run_pipeline(client: redis.Redis, calls: Sequence[Call]) -> list[Answer | StoreError]:
    """Run scripts in one round trip, in order; a script that Redis refuses answers with its error,
    and so does one whose answer can't be read: a damaged task must not hold up those beside it.

    Raises `StoreUnavailable` when the connection fails: then any of them may have run or not, and all
    of them can be repeated.
    """
    try:
        replies = _send(client, calls)
        missing = {
            call.script
            for call, reply in zip(calls, replies, strict=True)
            if isinstance(reply, NoScriptError)
        }
        if missing:
            # The server was restarted or is new to us. Repeating every call keeps their order, and is
            # harmless for those that did run.
            for script in missing:
                client.script_load(script.source)
            replies = _send(client, calls)
    except (RedisError, OSError) as error:
        raise as_store_error(error) from error
    return [_read(reply) for reply in replies]


def _read(reply: Any) -> Answer | StoreError:
    if isinstance(reply, Exception):
        return as_store_error(reply)
    try:
        return Answer.parse(reply)
    except StoreError as error:
        return error


def _send(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """Write all calls, read all answers. redis-py's own pipeline does the same, but so much else with each
    command, for the sake of those unlike ours, that it takes twice as long.
    """
    pool: Any = client.connection_pool  # redis-py's own types are too loose
    # Whether this one is still connected, and has no old answers in it, is looked at here.
    connection = pool.get_connection()
    try:
        for start in range(0, len(calls), _AT_ONCE):
            # Redis begins with these while the next are packed.
            some = calls[start : start + _AT_ONCE]
            connection.send_packed_command([b"".join([pack(call.by_sha()) for call in some])])
        return [_receive(connection) for _ in calls]
    finally:
        pool.release(connection)


def _receive(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def as_store_error(error: Exception) -> StoreError:
    """Sort a Redis error: unavailable (try again later), or refused."""
    if (
        isinstance(error, ResponseError)
        and not isinstance(error, _TEMPORARY)
        and not _TEMPORARY_CODE.search(str(error))
    ):
        return StoreError(f"Redis refused: {error}")
    return StoreUnavailable(f"Redis can't be used now: {str(error) or type(error).__name__}")
