"""The demonstration's worker: a stand-in for a model that answers the same question for ever.

It runs as a process of its own, ``python -m bridge.cli.demo_worker TASK``, as workers do, and ends when its
standard input is closed: whoever started it is gone then, or wants it gone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

import bridge
from bridge import report_progress

_ANSWER: Final = """\
You are reading this while it is being written.

A worker in another process calls report_progress for every word. Each call puts the word into the task's \
log in Redis, which also announces it, and the gateway passes it on to everybody who is watching.

If you came late, you got everything so far at once and then the rest as it came. If your connection breaks, \
your browser comes back with the id of the last event that it saw, and goes on right behind it. And a client \
that only ever asks for the status sees the same text, without a change to its code.
"""
_SOURCES: Final = [
    {"title": "Server-sent events", "url": "https://html.spec.whatwg.org/multipage/server-sent-events.html"},
    {"title": "Redis streams", "url": "https://redis.io/docs/latest/develop/data-types/streams/"},
]
_WORD_SECONDS: Final = 0.15
_PAUSE_SECONDS: Final = 3.0


def main(task_id: str) -> None:
    """Answer again and again, as this task."""
    stop = threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    while not stop.is_set():
        # The app would do this when it takes the user's request; it also forgives an earlier cancel.
        bridge.create_task(task_id)
        with bridge.task(task_id) as task:
            if _answer(stop):
                task.succeed(usage={"words": len(_ANSWER.split())})
            elif stop.is_set():
                task.fail("demo_over", "The demonstration was ended.")
        stop.wait(_PAUSE_SECONDS)


def _answer(stop: threading.Event) -> bool:
    """Write the answer word by word; False when it was broken off."""
    report_progress(0.0, message="looking things up")
    report_progress(name="sources", value=_SOURCES)
    words = list(_words(_ANSWER))
    for number, word in enumerate(words, 1):
        if not report_progress(word):
            return False
        if number % 10 == 0:
            report_progress(round(number / len(words), 2), message="writing")
        if stop.wait(_WORD_SECONDS):
            return False
    report_progress(1.0, message="done")
    return True


def _words(text: str) -> Iterator[str]:
    """The words of a text, each with the white space behind it."""
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or (text[end - 1].isspace() and not text[end].isspace()):
            yield text[start:end]
            start = end


def _wait_for_end_of_input(stop: threading.Event) -> None:
    # Not through `sys.stdin`, whose lock a thread that is still reading would hold when Python exits.
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    main(sys.argv[1])
