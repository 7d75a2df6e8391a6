"""The kinds of tasks that the demonstration can start, with the words that the page shows for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `name` is for programs, `title` for a button, `about` for who hesitates to press it."""

    name: str
    title: str
    about: str


KINDS: Final = (
    Kind("typed", "Typed answer", "Text token by token, as a language model writes it."),
    Kind("command", "Command output", "A real command on this machine: it measures how long imports take."),
    Kind("slow", "Slow task", "Long silences, a few status lines, and a short text at the very end."),
    Kind("failing", "Failing task", "Writes a part of its text, then fails. The part is kept."),
)

ENDLESS: Final = "endless"
"""The kind of the demonstration's own task, which answers for ever. Nobody starts another."""
