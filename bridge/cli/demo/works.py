"""The work that the demonstration's tasks do, each a plain function that reports as it goes.

All but `command` are called with their task bound, so they only know the hook, and with `pause`: a wait that
returns True when the demonstration is over. Texts are constants: who has seen the end can compare.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from bridge import Task, report_progress
from bridge.cli.demo.measure import MODULES
from bridge.cli.perform import perform
from bridge.events import Chunk, Event, Progress
from bridge.settings import Settings
from bridge.sources.command import Command

Pause = Callable[[float], bool]
Work = Callable[[Task, Pause], bool]
"""False: it was broken off, because the hook or `pause` said so."""

SOURCES: Final = [
    {"title": "Server-sent events", "url": "https://html.spec.whatwg.org/multipage/server-sent-events.html"},
    {"title": "Redis streams", "url": "https://redis.io/docs/latest/develop/data-types/streams/"},
]

ANSWER: Final = """\
You are reading this while it is being written.

A worker in another process calls report_progress for every word. Each call puts the word into the task's \
log in Redis, which also announces it, and the gateway passes it on to everybody who is watching.

If you came late, you got everything so far at once and then the rest as it came. If your connection breaks, \
your browser comes back with the id of the last event that it saw, and goes on right behind it. And a client \
that only ever asks for the status sees the same text, without a change to its code.
"""

REASONING: Final = "Name what differs, then what never does.\n"

TYPED: Final = """\
# One task, seen twice

Both columns show **the same task**. A worker in a process of its own is writing this, a token at a time, \
and has no idea who is watching.

## On the left: a stream

- One request. It stays open, and every token comes down it as soon as it is written.
- Each event has a position. When the connection breaks, the browser names the last position that it saw, \
and goes on right behind it: nothing is missing, nothing comes twice.

*Try it:* press **Drop connection** now, and watch the text. The gateway really cuts the socket.

## On the right: a client from before

- It asks for `/status` every two seconds and gets the whole text again each time, as it always has.
- Nobody had to change it. It sees the same truth, only later and in lumps.

## When things go wrong

1. **Stop** asks the worker to end. What it has written so far is kept.
2. **Kill worker** gives it no chance to say goodbye. It stops renewing its lease, and as soon as that has \
run out the task ends as `failed`, with the code `worker_lost`. Then it is retried, as attempt 2, and both \
columns begin anew.
3. Close this page, or reload it: the task goes on. Come back, and you get everything so far at once.

That is all there is to it: a log in Redis that is the truth, and a gateway that reads it to whoever asks.
"""

SLOW_STEPS: Final = (
    (2.0, 0.1, "opening the archive"),
    (4.0, 0.25, "reading 2,481 pages"),
    (6.0, 0.4, "comparing them"),
    (20.0, 0.9, "thinking: nothing is sent now for 20 seconds"),
    (3.0, 1.0, "writing it down"),
)
"""Seconds of silence after a fraction and a status line."""

SLOW: Final = "Page 1,204 contradicts page 17. Everything else agrees.\n"

FAILING: Final = """\
The three largest lakes of the region, by area:

1. Lake Ladoga, 17,700 km²
2. Lake Onega, 9,700 km²
3. Lake\
"""

_WORD_SECONDS: Final = 0.15
_TOKEN_SECONDS: Final = 0.035
_LOOK_SECONDS: Final = 0.5
_TOKEN: Final = re.compile(r"\s*(?:\w{1,5}|[^\w\s]+)|\s+")


def endless(task: Task, pause: Pause) -> bool:
    """The answer of the demonstration's own task, word by word."""
    report_progress(0.0, message="looking things up")
    report_progress(name="sources", value=SOURCES)
    words = re.findall(r"\S+\s*", ANSWER)
    for number, word in enumerate(words, 1):
        if not report_progress(word):
            return False
        if number % 10 == 0:
            report_progress(round(number / len(words), 2), message="writing")
        if pause(_WORD_SECONDS):
            return False
    report_progress(1.0, message="done")
    task.succeed(usage={"words": len(words)})
    return True


def typed(task: Task, pause: Pause) -> bool:
    """What a language model does: think aloud, name sources, answer in tokens of uneven pace."""
    report_progress(0.0, message="thinking")
    if not _write(REASONING, pause, field="reasoning"):
        return False
    report_progress(name="sources", value=SOURCES)
    report_progress(message="answering")
    if not _write(TYPED, pause):
        return False
    report_progress(1.0, message="done")
    task.succeed(usage={"output_tokens": len(tokens(TYPED)), "reasoning_tokens": len(tokens(REASONING))})
    return True


def slow(task: Task, pause: Pause) -> bool:
    """Says what it does, is silent for long, and has its text only at the end."""
    for seconds, fraction, message in SLOW_STEPS:
        if not report_progress(fraction, message=message) or _wait(seconds, pause):
            return False
    return report_progress(SLOW)


def failing(task: Task, pause: Pause) -> bool:
    """Breaks in the middle of a sentence. The task ends as failed, by the exception alone."""
    report_progress(0.0, message="answering")
    if not _write(FAILING, pause):
        return False
    raise ConnectionError("the model's server closed the connection")


WORKS: Final[dict[str, Work]] = {"endless": endless, "typed": typed, "slow": slow, "failing": failing}


async def command(task_id: str, settings: Settings) -> None:
    """Run a program and stream its output, as `bridge run` does; a SIGTERM to this process cancels it."""
    program = Command([sys.executable, "-I", str(Path(__file__).with_name("measure.py"))])
    await perform(task_id, settings, _with_progress(program), program.stop)


async def _with_progress(program: Command) -> AsyncGenerator[Event, None]:
    """The program's events, and how far it is by the modules that it has printed."""
    done = 0
    async with aclosing(program.events()) as events:
        async for event in events:
            yield event
            # A line that is whole has its time.
            if isinstance(event, Chunk) and (lines := event.text.count(" ms\n")):
                done += lines
                yield Progress(round(min(done / len(MODULES), 1.0), 3), f"{done} of {len(MODULES)} modules")


def tokens(text: str) -> list[str]:
    """The text in pieces about as large as a language model's tokens."""
    return _TOKEN.findall(text)


def _write(text: str, pause: Pause, field: str = "text") -> bool:
    """Report a text in tokens; the main text counts as progress. False: stop."""
    pieces = tokens(text)
    for number, piece in enumerate(pieces, 1):
        if not report_progress(piece, field=field):
            return False
        if field == "text" and number % 20 == 0:
            report_progress(round(number / len(pieces), 2))
        # Models hesitate now and then, mostly at the end of a thought.
        if pause(random.uniform(0.2, 1.8) * _TOKEN_SECONDS + (0.15 if piece.endswith((".", ":")) else 0)):
            return False
    return True


def _wait(seconds: float, pause: Pause) -> bool:
    """A long pause that hears a cancel as well; whether the work should stop."""
    return any(pause(_LOOK_SECONDS) or not report_progress() for _ in range(round(seconds / _LOOK_SECONDS)))
