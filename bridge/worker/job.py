"""What the pump knows of the things it sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.errors import StoreError
from bridge.store.scripts import Answer, Call, Calls
from bridge.worker.latch import Latch


class Job(Protocol):
    """Something that the pump sends until it is over: an attempt, or an announcement."""

    task_id: str
    over: bool
    done: Latch

    @property
    def ending(self) -> bool:
        """Whether only the end is missing."""

    def due(self, now: float) -> float:
        """When it wants to send."""

    def next_calls(self, calls: Calls, generation: int, now: float) -> list[Call]:
        """What it wants to send."""

    def answered(self, calls: Sequence[Call], replies: Sequence[Answer | StoreError], now: float) -> None:
        """What became of that."""

    def give_up(self, why: str) -> None:
        """It won't be sent."""

    def hurry(self) -> None:
        """Don't wait to merge."""

    def quiet(self) -> bool:
        """Whether nothing is worth waiting for any more."""

    def size(self) -> int:
        """Bytes that it holds."""
