"""Where something stands in a JSON document: a path of names and numbers. Pure.

Two spellings: `task.output.0.text`, whose names hold no dots, or a JSON Pointer (RFC 6901), which begins with
a slash: `/task/output/0/text`. A dot alone is the whole document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Self

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""As RFC 6901, 4 has it: no leading zeros, which would be the name of a member."""
_ESCAPE: Final = re.compile(r"~(.?)", re.DOTALL)
_ESCAPED: Final = {"0": "~", "1": "/"}


@dataclass(frozen=True, slots=True)
class Place:
    """One path, and its spelling, for messages."""

    steps: tuple[str, ...]
    spelling: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read either spelling. Raises ValueError for what is neither."""
        if text == ".":
            return cls((), text)
        if text.startswith("/"):
            return cls(tuple(_ESCAPE.sub(_unescape, step) for step in text[1:].split("/")), text)
        steps = tuple(text.split("."))
        if not all(steps):
            raise ValueError(f"a path looks like result.text or /result/text (got {text[:60]!r})")
        return cls(steps, text)

    def find(self, document: Any) -> Any:
        """What stands there. None also where nothing does: to us both say nothing."""
        for step in self.steps:
            if isinstance(document, dict):
                document = document.get(step)
            elif isinstance(document, list) and _INDEX.fullmatch(step) and int(step) < len(document):
                document = document[int(step)]
            else:
                return None
        return document


def _unescape(match: re.Match[str]) -> str:
    try:
        return _ESCAPED[match[1]]
    except KeyError:
        raise ValueError("in a JSON Pointer a ~ is written ~0, and a / within a name ~1") from None
