from __future__ import annotations

from typing import Any

import pytest

from bridge.events import Chunk, End, Position, Progress, State
from bridge.sinks.matrix.layout import MOST_MESSAGES, Limits, arrange, thinking
from bridge.sinks.matrix.message import Body, Style
from bridge.view import View

STYLE = Style()
LIMITS = Limits()


def view(*events: Any) -> View:
    """A running task in which that has happened."""
    one = View("job-1")
    for seq, event in enumerate((State("running", 1), *events), 1):
        one.apply(Position(1, seq), event)
    return one


def notes(*events: Any, style: Style = STYLE) -> str:
    """What stands below the last message."""
    return arrange(view(*events), style, LIMITS)[-1].note


def test_a_running_task_without_text_has_no_messages() -> None:
    """Nor with text that is nothing but space."""
    assert arrange(view(), STYLE, LIMITS) == []
    assert arrange(view(Chunk(" \n")), STYLE, LIMITS) == []
    assert arrange(view(Chunk("hm", "reasoning")), STYLE, LIMITS) == []


def test_only_the_last_message_of_a_running_task_is_live() -> None:
    """A message that is followed by another is complete."""
    bodies = arrange(view(Chunk("a" * 1500)), STYLE, Limits(text_bytes=1000))
    assert [(len(body.text), body.live) for body in bodies] == [(998, False), (502, True)]


def test_an_answer_that_ended_well_is_its_text() -> None:
    """Complete, and without anything below."""
    assert arrange(view(Chunk("Hi"), End("succeeded")), STYLE, LIMITS) == [Body("Hi")]


@pytest.mark.parametrize(
    ("end", "note"),
    [
        (End("failed", {"code": "no_model", "message": "No\n model."}), "⚠️ Failed: No model."),
        (End("failed", {"code": "no_model", "message": ""}), "⚠️ Failed: no_model"),
        (End("failed"), "⚠️ Failed: no reason was given"),
        (End("cancelled"), "⏹️ Stopped."),
        (End("succeeded", truncated=True), "The answer was too long, and was cut."),
    ],
)
def test_an_answer_that_ended_otherwise_keeps_its_text_and_says_so(end: End, note: str) -> None:
    """Below what there is."""
    (body,) = arrange(view(Chunk("Hi"), end), STYLE, LIMITS)
    assert body == Body("Hi", note=note)


def test_what_was_used_is_told_when_wanted() -> None:
    """The end's usage, below the text."""
    end = End("succeeded", usage={"output_tokens": 3})
    assert notes(Chunk("Hi"), end) == ""
    assert notes(Chunk("Hi"), end, style=Style(usage=True)) == "3 output tokens"


def test_an_answer_without_text_says_something() -> None:
    """A result that is text is shown as the text; otherwise that there was none."""
    assert arrange(view(End("succeeded", result="42")), STYLE, LIMITS) == [Body("42")]
    assert notes(End("succeeded", result={"n": 42})) == "Done, without any text."
    assert notes(End("cancelled")) == "⏹️ Stopped."


def test_what_no_message_has_room_for_is_counted() -> None:
    """An answer takes so many messages at most; the last says how much more there is."""
    bodies = arrange(view(Chunk("a" * 998 * 30), End("succeeded")), STYLE, Limits(text_bytes=1000))
    assert len(bodies) == MOST_MESSAGES
    assert bodies[-1].note == f"{998 * (30 - MOST_MESSAGES):,} more characters are not shown here."


def test_thinking_shows_the_status_line() -> None:
    """What the task says of itself, or else the style's word."""
    assert thinking(view(), STYLE, LIMITS) == Body("Thinking…", live=True)
    assert thinking(view(Progress(0.1, "reading")), STYLE, LIMITS).text == "reading"
    assert thinking(view(), Style(thinking=""), LIMITS).text == "…"


def test_limits_shrink_to_an_end() -> None:
    """First without HTML, then half the text, and so on, until it can't be for the size."""
    tried = [LIMITS]
    while (smaller := tried[-1].smaller()) is not None:
        tried.append(smaller)
    assert tried[1] == Limits(LIMITS.text_bytes, html=False)
    assert [one.text_bytes for one in tried[1:]] == [16_000, 8_000, 4_000, 2_000, 1_000, 500]
