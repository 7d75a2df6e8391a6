"""What the workers of the large test write: the same for the process that writes it and the one that checks.

A script is a list of rounds, a round a list of events. The last event of each round says which one it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from bridge.events import Chunk, Data, Event, Position, Progress
from bridge.view import View

ROUNDS = 20

_WORDS = [
    "the ", "quick ", "brown ", "fox ", "é", "漢字", "🙂", "\n", "\r\n", "\u2028", "\x85", "\\", '"', "\t",
    " ", "data: x\n\n", "id: 1-1\n", ":\n", "event: end\n",
]  # fmt: skip


def task_ids(count: int) -> list[str]:
    """The names of that many tasks."""
    return [f"scale-{number}" for number in range(count)]


def rounds(task_id: str) -> Iterator[list[Event]]:
    """The script of a task, its own and always the same."""
    random = Random(task_id)
    for number in range(ROUNDS):
        yield [*_events(random, number), Progress((number + 1) / ROUNDS, f"round {number}")]


def result(task_id: str) -> dict[str, str]:
    """What the end of a task carries."""
    return {"of": task_id}


def written(task_id: str) -> View:
    """The fold of the whole script."""
    view = View(task_id)
    for events in rounds(task_id):
        for event in events:
            view.apply(Position(0, 0), event)
    return view


def _events(random: Random, number: int) -> Iterator[Event]:
    for _ in range(random.randint(1, 6)):
        text = "".join(random.choices(_WORDS, k=random.randint(1, 12)))
        match random.randrange(8):
            case 0:
                yield Data(f"name {random.randrange(3)}", {"round": number, "text": text})
            case 1 | 2:
                yield Chunk(text, "reasoning")
            case _:
                yield Chunk(text)
