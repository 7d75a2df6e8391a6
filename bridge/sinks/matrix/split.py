"""Cuts a text into pieces that each fit into one message. Pure.

Rules
-----
1. **Nothing is lost.** The pieces, joined, are the text.
2. **Each fits**: as a JSON string it has at most `limit` bytes.
3. **They stay.** While a text grows at its end, only its last piece changes, and is cut when it is too long.
   So a message that is followed by another needs no further edit.
4. **At a good place**: after a blank line, else after a line, else after a space, as long as that isn't in
   the first half of what fits.
5. **Code stays code.** A cut in the middle of a fenced block of Markdown gives the next piece the `opening`
   line of that block, which isn't part of its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bridge.codec import dumps

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")
_LONGEST_OPENING: Final = 100


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text. `opening` is the line that opened the code block in which it begins, or empty."""

    text: str
    opening: str = ""


def json_size(text: str) -> int:
    """The bytes of `text` as a JSON string."""
    return len(dumps(text))


def split(text: str, limit: int, most: int) -> tuple[list[Piece], int]:
    """The first `most` pieces of a text, and how many characters come after them.

    limit: bytes of JSON, at least 16. An empty text has no pieces.
    """
    pieces: list[Piece] = []
    start, opening = 0, ""
    while start < len(text) and len(pieces) < most:
        end = start + _fitting(text[start : start + limit], limit)
        if end < len(text):
            end = start + _good_place(text[start:end])
        piece = Piece(text[start:end], opening)
        pieces.append(piece)
        opening = _open_fence(piece)
        start = end
    return pieces, len(text) - start


def _fitting(text: str, limit: int) -> int:
    """How many characters at the beginning of `text` fit."""
    if json_size(text) <= limit:
        return len(text)
    fits, too_many = 1, len(text)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if json_size(text[:middle]) <= limit:
            fits = middle
        else:
            too_many = middle
    return fits


def _good_place(text: str) -> int:
    """Where to cut a text, all of which fits, when more follows."""
    for mark in ("\n\n", "\n", " "):
        place = text.rfind(mark) + len(mark)
        if place >= len(mark) and place > len(text) // 2:
            return place
    return len(text)


def _open_fence(piece: Piece) -> str:
    """The line that opened the code block in which the piece ends, or nothing."""
    opening = piece.opening
    for line in piece.text.split("\n"):
        found = _FENCE.fullmatch(line.rstrip("\r"))
        if found is None:
            continue
        fence, rest = found[1], found[2]
        if not opening:
            # Backticks in the rest of a line make it inline code.
            if fence[0] == "~" or "`" not in rest:
                opening = line.strip()[:_LONGEST_OPENING]
        elif fence.startswith(_fence_of(opening)) and not rest.strip():
            opening = ""
    return opening


def _fence_of(opening: str) -> str:
    found = _FENCE.match(opening)
    return found[1] if found else ""
