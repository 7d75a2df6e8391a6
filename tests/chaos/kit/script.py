"""What a worker reports in these tests: numbered text, so that one look at a reader's text tells what is
missing, what came twice and what came in the wrong order.

Event n of a run is always the same for the same seed, except that its text may carry the moment of its
report (`⟨n@ns⟩`, monotonic nanoseconds, which all processes of a machine share).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from random import Random

from bridge.events import Chunk, Data, Event, Progress
from bridge.view import View

_WORDS = [
    "the ", "quick ", "brown ", "fox ", "é", "漢字", "🙂", "\n", "\r\n", "\u2028", "\x85", "\\", '"', "\t",
    " ", "data: x\n\n", "id: 1-1\n", ":\n", "event: end\n",
]  # fmt: skip
_MARK = re.compile(r"⟨(\d+)(?:@(\d+))?⟩")


def events(seed: str, first: int, count: int, *, size: int = 8, stamped: bool = False) -> Iterator[Event]:
    """Events `first`, `first` + 1, …: mostly text of about `size` words, now and then another field, data or
    progress. The last is progress whose message is its number.
    """
    for number in range(first, first + count):
        random = Random(f"{seed} {number}")
        if number == first + count - 1:
            yield Progress(random.random(), str(number))
            continue
        at = f"@{time.monotonic_ns()}" if stamped else ""
        text = f"⟨{number}{at}⟩" + "".join(random.choices(_WORDS, k=random.randint(1, 2 * size)))
        match random.randrange(10):
            case 0:
                yield Data(f"name {random.randrange(3)}", {"number": number, "text": text})
            case 1 | 2:
                yield Chunk(text, "reasoning")
            case _:
                yield Chunk(text)


def stamps(text: str) -> list[int]:
    """The moments (monotonic ns) that a text carries."""
    return [int(at) for _, at in _MARK.findall(text) if at]


def count_faults(wanted: View, got: View) -> Counter[str]:
    """How many pieces of the text `got` are lost, doubled and reordered, compared with what was `wanted`."""
    found: Counter[str] = Counter()
    for field in {*wanted.fields, *got.fields, "text"}:
        written = Counter(_numbers(wanted.text_of(field)))
        numbers = _numbers(got.text_of(field))
        read = Counter(numbers)
        found["lost"] += (written - read).total()
        found["doubled"] += (read - written).total()
        found["reordered"] += sum(after < before for before, after in pairwise(numbers))
    return found


def _numbers(text: str) -> list[int]:
    return [int(number) for number, _ in _MARK.findall(text)]
