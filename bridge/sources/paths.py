"""Paths of an app: filled with a task's id, or as patterns that requests are compared with. Pure.

Patterns
--------
1. A pattern is compared with the path as the client sent it, segment by segment: what is between two slashes.
   A segment is `*` or holds something in braces (any one segment), or is text, which is compared after
   percent decoding. `**` at the end is all that is below, and the path itself.
2. A path that may lead elsewhere than it says (`..`, also in disguise: `%2e`, `%2f`, a backslash) matches no
   pattern. Who named `/api/**` did not mean `/admin`, whatever the app makes of `/api/../admin`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_PLAIN: Final = re.compile(r"/[\x21-\x7e]*", re.ASCII)
PART_SEPARATOR: Final = "~"
"""Between the parts of an id that stands for several of the app's: `{1}` and `{2}` are its parts."""


def fill(path: str, task_id: str) -> str | None:
    """The path with the task's id in it, percent-encoded. None when the id has not the parts that it asks
    for. `..` is no part: as a segment it would lead to another path, asked with the poller's credentials.
    """
    parts = task_id.split(PART_SEPARATOR)
    numbers = {int(name) for name in _BRACES.findall(path) if name.isdigit()}
    if numbers and (len(parts) != max(numbers) or not {"", ".", ".."}.isdisjoint(parts)):
        return None

    def replaced(match: re.Match[str]) -> str:
        return quote(task_id if match[1] == "task_id" else parts[int(match[1]) - 1], safe="")

    return _BRACES.sub(replaced, path)


def wrong_path(path: str) -> str:
    """What is wrong with a path that is to be filled, so that "… must" can stand in front; or nothing."""
    if not _PLAIN.fullmatch(path) or path.startswith("//") or "#" in path:
        return f"be a path such as /api/jobs/{{task_id}}, perhaps with a query (got {path[:60]!r})"
    names = _BRACES.findall(path)
    if not names or any(name != "task_id" and not re.fullmatch("[1-9]", name) for name in names):
        wanted = "hold {task_id}, or {1}, {2} … for the parts of an id, and nothing else in braces"
        return f"{wanted} (got {path[:60]!r})"
    if re.search(r"[{}]", _BRACES.sub("", path)):
        return f"close its braces (got {path[:60]!r})"
    return ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern of paths."""

    segments: tuple[bytes | None, ...]
    """None for any."""
    below: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern; a query is left out. Raises ValueError for what is none."""
        path = text.partition("?")[0]
        if not _PLAIN.fullmatch(path) or "#" in path:
            raise ValueError(f"a path pattern looks like /api/jobs/* (got {text[:60]!r})")
        below = path.endswith("/**")
        segments = path.removesuffix("/**").split("/")[1:]
        if any("*" in segment and segment != "*" for segment in segments):
            raise ValueError(f"a * stands for a whole segment, and ** only at the end (got {text[:60]!r})")
        return cls(tuple(None if _any(segment) else unquote_to_bytes(segment) for segment in segments), below)

    def matches(self, raw_path: bytes) -> bool:
        """Whether a path, as the client sent it and without its query, is one of these."""
        if not raw_path.startswith(b"/") or leads_astray(raw_path):
            return False
        segments = raw_path.split(b"/")[1:]
        if len(segments) < len(self.segments) or (len(segments) > len(self.segments) and not self.below):
            return False
        return all(
            wanted is None or wanted == unquote_to_bytes(given)
            for wanted, given in zip(self.segments, segments, strict=False)
        )


def leads_astray(raw_path: bytes) -> bool:
    """Whether a path holds steps up, or what some server may take for them (rule 2)."""
    steps = unquote_to_bytes(raw_path).replace(b"\\", b"/").split(b"/")
    return any(step.partition(b";")[0] in (b"..", b".") for step in steps)


def _any(segment: str) -> bool:
    return segment == "*" or bool(_BRACES.search(segment))
