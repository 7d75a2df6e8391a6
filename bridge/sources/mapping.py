"""A mapping: how to read the status endpoint of an app that isn't ours. Values only; `mapping_file.py` reads
files.

A snapshot of the app is an HTTP status and a JSON body. The mapping says what a status means, in which place
the body tells the state and by which words, and where text, progress and everything else stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bridge.events import STATES
from bridge.sources.places import Place

Meaning = Literal["body", "unknown", "queued", "running", "succeeded", "failed", "cancelled"]
"""Of an HTTP status. body: the body names the state. unknown: there is no such task. A state: this one,
unless the body names another.
"""

MEANINGS: Final = frozenset({"body", "unknown"}) | STATES

OTHERS: Final = "*"
"""Stands for every word that isn't listed."""

WORDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("pending", "queued", "scheduled", "waiting", "created", "received", "starting"), "queued"
    ),
    **dict.fromkeys(("running", "started", "processing", "in_progress", "active", "working"), "running"),
    **dict.fromkeys(
        ("succeeded", "success", "successful", "completed", "complete", "done", "finished", "ok"), "succeeded"
    ),
    **dict.fromkeys(("failed", "failure", "error", "errored", "timeout"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "revoked", "aborted", "stopped"), "cancelled"),
}
"""What apps call their states, in lower case. A mapping's own words go before these."""

Places = tuple[Place, ...]
"""Alternatives: the first that holds something of the right type counts."""


@dataclass(frozen=True, slots=True)
class Fraction:
    """A progress: what stands at `part`, divided by a number or by what stands at `of`."""

    part: Place
    of: Place | float = 1.0


@dataclass(frozen=True, slots=True)
class Where:
    """Where things stand. Empty means that the app doesn't tell them."""

    texts: Mapping[str, Places] = field(default_factory=dict)
    """By field; the main text is the field `text`."""
    progress: tuple[Fraction, ...] = ()
    message: Places = ()
    result: Places = ()
    error: Places = ()
    error_code: Places = ()
    usage: Places = ()
    data: Mapping[str, Places] = field(default_factory=dict)

    def before(self, other: Where) -> Where:
        """These places first, then the other's."""
        return Where(
            _joined(self.texts, other.texts),
            self.progress + other.progress,
            self.message + other.message,
            self.result + other.result,
            self.error + other.error,
            self.error_code + other.error_code,
            self.usage + other.usage,
            _joined(self.data, other.data),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the app: a method, and a path with `{task_id}` in it."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class StatusMapping:
    """How one app tells of its tasks.

    status: the path of its status endpoint. cancel: what asks it to stop a task, if it can. passed: further
    paths that are passed through to it. headers: what every question needs besides credentials. codes: by
    status, such as 417; `2xx` and the like for all that aren't named. where: by state, what holds in that
    state.
    """

    name: str
    status: str = ""
    cancel: Request | None = None
    passed: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    codes: Mapping[str, Meaning] = field(default_factory=dict)
    state: Places = ()
    words: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Where] = field(default_factory=dict)

    def meaning(self, status: int) -> Meaning | None:
        """What an HTTP status means; None for one that says nothing about the task."""
        return self.codes.get(str(status)) or self.codes.get(f"{status // 100}xx")

    def state_of(self, word: str) -> str | None:
        """Our state for the app's word; None for a word that nobody explained."""
        word = word.casefold()
        return self.words.get(word) or WORDS.get(word) or self.words.get(OTHERS)


def found(places: Places, document: Any) -> Iterator[tuple[Place, Any]]:
    """What stands at those places that hold anything, in order."""
    for place in places:
        value = place.find(document)
        if value is not None:
            yield place, value


def _joined(first: Mapping[str, Places], second: Mapping[str, Places]) -> dict[str, Places]:
    return {name: first.get(name, ()) + second.get(name, ()) for name in (*first, *second)}
