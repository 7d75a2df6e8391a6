"""What a worker says over HTTP, on its way to Redis: one piece of one request. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker says that its task ends. data: of the `end`, without length and truncated."""

    state: str
    code: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of one request of a worker that speaks HTTP; `report.lua` says what becomes of it.

    token
        The attempt's; "" for the one that nobody named, which would be opened under `own_token`.
    number, name
        What the request is called: its number within the attempt, or, where that is 0, a word.
    start, stop, whole
        Which part of the request's body this is, and whether the body ends with it.
    lease_ms
        The lease from now on, 0 for none; None: as before.
    truncated
        Some of the content was left out.
    lengths, content
        How many bytes of text it adds to each field, and how many bytes of content in all.
    """

    token: str
    own_token: str
    number: int
    name: str
    start: int
    stop: int
    whole: bool
    lease_ms: int | None
    truncated: bool = False
    lengths: Mapping[str, int] = field(default_factory=dict)
    content: int = 0
    events: Sequence[bytes | str] = ()
    end: Ending | None = None
