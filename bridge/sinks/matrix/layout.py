"""What an answer's messages should show, by the task's view. Pure.

The text in pieces, one message each. Below the last one, in small: how the task ended, if not well; what
isn't shown here; what was used. Messages that are followed by another are complete, and so are all after the
end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridge.sinks.matrix.message import TEXT_BYTES, Body, Style, shortened, usage_line
from bridge.sinks.matrix.split import split
from bridge.view import View

MOST_MESSAGES: Final = 20
"""So many messages one answer may take. What comes after them is left out, and counted."""

NOTHING: Final = "Done, without any text."
PLACEHOLDER: Final = "…"


@dataclass(frozen=True, slots=True)
class Limits:
    """How large messages may be: JSON bytes of text, and whether HTML may come with it."""

    text_bytes: int = TEXT_BYTES
    html: bool = True

    def smaller(self) -> Limits | None:
        """The next to try where a server finds messages too large; None when it isn't for the size."""
        if self.html:
            return Limits(self.text_bytes, html=False)
        return Limits(self.text_bytes // 2, html=False) if self.text_bytes >= 1000 else None


def arrange(view: View, style: Style, limits: Limits) -> list[Body]:
    """The bodies of an answer's messages; none while a running task has no text."""
    html = style.html and limits.html
    text = _text(view)
    pieces, left_out = split(text, limits.text_bytes, MOST_MESSAGES) if text.strip() else ([], 0)
    bodies = [Body(piece.text, piece.opening, html=html) for piece in pieces]
    notes = _notes(view, style, left_out, empty=not bodies)
    if not view.ended and not bodies:
        return []
    last = bodies.pop() if bodies else Body("", html=html)
    return [*bodies, Body(last.text, last.opening, "\n".join(notes), live=not view.ended, html=html)]


def thinking(view: View, style: Style, limits: Limits) -> Body:
    """What stands there while there is no text: the task's own status line, or `style.thinking`."""
    text = shortened(view.message or "") or style.thinking or PLACEHOLDER
    return Body(text, live=True, html=style.html and limits.html)


def _text(view: View) -> str:
    """The main text. A task that wrote none may have a text as its result."""
    if not view.text.strip() and view.ended and isinstance(view.result, str):
        return view.result
    return view.text


def _notes(view: View, style: Style, left_out: int, *, empty: bool) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"{left_out:,} more characters are not shown here.")
    if view.truncated:
        notes.append("The answer was too long, and was cut.")
    if view.state == "failed":
        error = view.error or {}
        said = error.get("message") or error.get("code") or "no reason was given"
        notes.append(f"⚠️ Failed: {shortened(said)}")
    elif view.state == "cancelled":
        notes.append("⏹️ Stopped.")
    elif view.ended and empty:
        notes.append(NOTHING)
    if view.ended and style.usage and (used := usage_line(view.usage)):
        notes.append(shortened(used))
    return notes
