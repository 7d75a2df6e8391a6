"""The text that is streamed: tokens that say when they were reported. Pure.

A token is 13 characters: the microseconds of the system's monotonic clock, which all processes of a
machine share, and a space. The last token of a task has `LAST` instead of the space. That character stands
nowhere else on the wire, so one look at a piece of bytes tells whether somebody has everything.
"""

from __future__ import annotations

import time
from typing import Final

LAST: Final = b"~"
SIZE: Final = 13
_DIGITS: Final = SIZE - 1


def token(*, last: bool = False) -> str:
    """A token reported now."""
    return f"{time.monotonic_ns() // 1000:0{_DIGITS}d}{'~' if last else ' '}"


def reported_at(text: str) -> list[int]:
    """When the tokens of a text were reported, in microseconds. Raises ValueError for any other text."""
    if len(text) % SIZE:
        raise ValueError(f"half a token at the end of {text[-2 * SIZE :]!r}")
    return [int(text[start : start + _DIGITS]) for start in range(0, len(text), SIZE)]
