"""The vocabulary: task ids, positions, events, and the two rules about events.

This module is pure. Everybody else (worker, store, gateway, clients) speaks in these terms.

Rules
-----
1. **Merge.** Adjacent chunks of one field are the same as one chunk with their texts joined and the
   position of the last. Of several `progress` events, and of several `data` events of one name, only the
   last matters, so the others may be left out. What stands before a `reset` may be left out.
   `bridge.merge` applies all of this; it never changes what a fold over the events gives.
2. **Terminal.** `end` is the last event of its epoch.

So that rule 1 keeps the time of the last change as well, every event but a chunk carries `at`; of chunks
at most one a second does, and a merged chunk carries the last one's.

An event's data is one JSON object, and it is the same bytes everywhere: in the log, in the published
message and in the `data:` line of the stream. Readers ignore members and kinds that they don't know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Self

from bridge.errors import InvalidPosition, InvalidTaskId

TASK_ID: Final = re.compile(r"[A-Za-z0-9._:~-]{1,200}", re.ASCII)
_POSITION: Final = re.compile(r"(\d{1,16})-(\d{1,16})", re.ASCII)
MAX_CHUNK_BYTES: Final = 65_536
"""A chunk event's text is at most this many UTF-8 bytes, in the log as well as in a merged replay."""

MAIN_FIELD: Final = "text"
"""The field of a chunk that doesn't say another."""

TERMINAL_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
STATES: Final = frozenset({"queued", "running"}) | TERMINAL_STATES
RESERVED_CODES: Final = frozenset({"worker_lost", "unknown_task"})
"""Error codes of ends that no worker writes."""
RESET_REASONS: Final = frozenset(
    {"retry", "log_lost", "worker_returned", "compacted", "rewritten", "other_log"}
)


def check_task_id(task_id: str) -> str:
    """Return `task_id` if it can name a task, else raise `InvalidTaskId`, or TypeError for what is no string.

    `.` and `..` can't: in a URL they are steps in the path, which clients take before they send it.
    """
    if not isinstance(task_id, str):
        raise TypeError(f"a task id is a string, not {type(task_id).__name__}: {task_id!r:.60}")
    if not TASK_ID.fullmatch(task_id) or task_id in (".", ".."):
        shown = repr(task_id[:60])
        raise InvalidTaskId(
            f"a task id is 1-200 characters of A-Z a-z 0-9 . _ : ~ - but not . or .. alone (got {shown})"
        )
    return task_id


class Position(NamedTuple):
    """The id of an event: `epoch` (ms since 1970, one life of the log) and `seq` (1, 2, 3 … within it).

    Positions are ordered as numbers; as text they would not be (``…-9`` and ``…-10``). A tuple, not a
    dataclass: each batch compares one with the cursor of every follower, and tuples are compared in C.
    """

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<epoch>-<seq>``. Raises `InvalidPosition` for anything else."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise InvalidPosition(f"a position looks like 1763650000000-17 (got {text[:60]!r})")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START: Final = Position(0, 0)
"""Before every event of every epoch."""

UNKNOWN_TASK_END: Final = Position(0, 1)
"""The id of the `end` that a stream of a task nobody ever created gets."""


@dataclass(frozen=True, slots=True)
class State:
    """The task is queued or running, as the n-th attempt. Times in ms since 1970."""

    kind: ClassVar = "state"
    state: str
    attempt: int = 0
    cancel_requested: bool = False
    created_at: int | None = None
    started_at: int | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text to be appended to a field."""

    kind: ClassVar = "chunk"
    text: str
    field: str = MAIN_FIELD
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is: a fraction 0.0-1.0 and a status line, either may be unknown. The latest wins."""

    kind: ClassVar = "progress"
    progress: float | None = None
    message: str | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """A named JSON value beside the text. The latest of each name wins."""

    kind: ClassVar = "data"
    name: str
    value: Any
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget text, data, progress and end: what follows tells the task anew. See `RESET_REASONS`."""

    kind: ClassVar = "reset"
    reason: str
    attempt: int = 0
    at: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The task is over. `length` is the UTF-8 byte length of each field, so that a reader can check."""

    kind: ClassVar = "end"
    state: str
    error: Mapping[str, str] | None = None
    result: Any = None
    usage: Mapping[str, Any] | None = None
    length: Mapping[str, int] = field(default_factory=dict)
    truncated: bool = False
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a kind that this version doesn't know. It is passed on, and changes no view."""

    kind: str
    members: Mapping[str, Any]
    at: int | None = None


Event = State | Chunk | Progress | Data | Reset | End | Unknown
