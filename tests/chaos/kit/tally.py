"""The row that a scenario adds to the table, and the table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HEAD = ("fault", "times injected", "events written", "lost", "doubled", "reordered", "longest recovery")


@dataclass(slots=True)
class Tally:
    """What a scenario did and found. Texts count by piece, a last `end` that lacks as one lost event."""

    fault: str
    injected: int = 0
    written: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    recovery: float | None = None
    """The longest time in seconds from a fault to the moment when all readers had everything again."""
    progress: float = 0.0
    """How much of the scenario is over, from 0 to 1."""
    notes: list[str] = field(default_factory=list)
    """Shown below the table."""

    @contextmanager
    def injecting(self, times: int = 1) -> Iterator[None]:
        """Around a fault and the wait until everything is as if it had not been."""
        begun = time.monotonic()
        self.injected += times
        yield
        self.recovery = max(self.recovery or 0.0, time.monotonic() - begun)

    @property
    def failed(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.lost or self.doubled or self.reordered)

    def row(self) -> tuple[str, ...]:
        """The cells, under `HEAD`."""
        recovery = "–" if self.recovery is None else f"{self.recovery:.1f} s"
        counts = (self.injected, self.written, self.lost, self.doubled, self.reordered)
        return (self.fault, *(f"{count:,}" for count in counts), recovery)


def table(tallies: Iterable[Tally]) -> str:
    """All rows as one Markdown table, and the notes below it."""
    tallies = list(tallies)
    rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), *(tally.row() for tally in tallies)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {tally.fault}: {note}" for tally in tallies for note in tally.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])
