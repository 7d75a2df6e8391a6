"""Pieces of a task's content, and their fold, as the pump holds it to repair a log that Redis lost.

The fold says the same as `bridge.view.View`, but keeps data and progress as the JSON that was sent, because
all that it is ever asked for is to be sent again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.codec import dumps, encode, utf8
from bridge.events import MAX_CHUNK_BYTES, Chunk
from bridge.merge import split_text


@dataclass(frozen=True, slots=True)
class Fact:
    """A `data` or `progress` event, encoded. `name` is the data's; progress has none."""

    kind: str
    name: str
    data: bytes


Piece = Chunk | Fact


def chunks(field: str, parts: Iterable[str]) -> Iterable[Chunk]:
    """The text of one field, cut to what one chunk may hold."""
    for text in split_text("".join(parts), MAX_CHUNK_BYTES):
        yield Chunk(text, field)


def encoded(piece: Piece) -> bytes:
    """The JSON of a piece."""
    return piece.data if isinstance(piece, Fact) else encode(piece)


class Fold:
    """What an attempt has written, as Redis has acknowledged it."""

    __slots__ = ("_facts", "_lengths", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._facts: dict[tuple[str, str], Fact] = {}
        self._lengths: dict[str, int] = {}

    def add(self, pieces: Iterable[Piece]) -> None:
        """Fold pieces in, in their order."""
        self._lengths = self.lengths(pieces)
        for piece in pieces:
            if isinstance(piece, Fact):
                self._facts[piece.kind, piece.name] = piece
            else:
                self._texts.setdefault(piece.field, []).append(piece.text)

    def lengths(self, pieces: Iterable[Piece] = ()) -> dict[str, int]:
        """The UTF-8 bytes of each field, as they will be after these pieces."""
        lengths = dict(self._lengths)
        for piece in pieces:
            if isinstance(piece, Chunk):
                lengths[piece.field] = lengths.get(piece.field, 0) + len(utf8(piece.text))
        return lengths

    def length_json(self) -> bytes:
        """`lengths` as the scripts take it."""
        return dumps(self._lengths)

    def wire(self) -> list[bytes | str]:
        """The fewest events that say all of it: kind, data, kind, data …"""
        flat: list[bytes | str] = []
        for field, parts in self._texts.items():
            for chunk in chunks(field, parts):
                flat += (chunk.kind, encode(chunk))
        for fact in self._facts.values():
            flat += (fact.kind, fact.data)
        return flat

    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        return sum(self._lengths.values()) + sum(len(fact.data) for fact in self._facts.values())
