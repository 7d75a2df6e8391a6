"""Which processor does what. The sender has one for itself; the crowd, Redis and the workers have the others.

With two processors the crowd shares its own with Redis and the worker. With more it has one for itself, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Cores:
    """Sets of processors by what runs on them."""

    sender: frozenset[int]
    crowd: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Self:
        """Divide those that this process may use. With a single one everything shares it."""
        free = sorted(os.sched_getaffinity(0))
        middle = free[1:-1] or free[:1]
        return cls(frozenset(free[-1:]), frozenset(free[:1]), frozenset(middle))

    @property
    def shared(self) -> bool:
        """Whether the crowd has no processor for itself."""
        return self.crowd == self.rest

    def __str__(self) -> str:
        if self.sender == self.crowd:
            return "everything shares one processor: the figures are worth little"
        if self.shared:
            return "the sender on one processor; crowd, Redis and worker together on another"
        return "the sender on one processor, the crowd on another, Redis and worker on the rest"


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started in this block runs on those processors: a child inherits where its parent may run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
