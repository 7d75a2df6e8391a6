"""What a message in a room looks like: the content of its events. Pure.

Rules
-----
1. **One message, edited.** An edit names the first event of its message, never another edit, and carries the
   whole text: in `m.new_content`, and with an asterisk in front for clients that know no edits.
2. **Under the limit.** An event has at most 65,536 bytes, of which the server needs some; `CONTENT_BYTES` is
   what a content may have here. An edit carries its text twice. A body whose HTML would be too much goes
   without.
3. **A mention notifies once.** `m.mentions` stands in all events, so that no name in a text notifies by
   accident; it names people in the first event only. What an edit's `m.new_content` says of it notifies
   nobody.
4. **Live** messages carry the mark of MSC4357, until they are complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.codec import dumps
from bridge.sinks.matrix.markdown import as_html, escaped

CONTENT_BYTES: Final = 58_000
"""An event's content as JSON. The rest of its 65,536 bytes are the server's: ids, hashes, signatures."""

TEXT_BYTES: Final = 16_000
"""A message's text as JSON: twice that in an edit, and once or twice as HTML."""

NOTE_CHARACTERS: Final = 600
MOST_MENTIONS: Final = 20

LIVE: Final = "org.matrix.msc4357.live"
TASK: Final = "bridge.task"
"""The task that a message shows. Bots of ours answer no message that has it: they would answer each other."""

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer goes. `thread` is the event that begins the thread, `reply_to` the event answered."""

    room: str
    thread: str = ""
    reply_to: str = ""
    mentions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Style:
    """How answers look and how they grow. Seconds.

    thinking: what stands there after `thinking_seconds` without any text; empty: nothing.
    html: whether Markdown is shown as such. usage: whether the end says what was used.
    notice: whether messages are `m.notice`, which notify nobody.
    interval_seconds: the least time between two edits.
    """

    thinking: str = "Thinking…"
    thinking_seconds: float = 1.0
    html: bool = True
    usage: bool = False
    notice: bool = False
    interval_seconds: float = 0.5


@dataclass(frozen=True, slots=True)
class Body:
    """What one message shows. `opening` is a piece's (see `split`); `note` stands below, in small."""

    text: str
    opening: str = ""
    note: str = ""
    live: bool = False
    html: bool = True

    @property
    def plain(self) -> str:
        """As text."""
        return "\n\n".join(part for part in (self.text, self.note) if part)

    @property
    def formatted(self) -> str:
        """As HTML, or nothing where that says no more."""
        if not self.html:
            return ""
        made = as_html(f"{self.opening}\n{self.text}" if self.opening else self.text)
        if not self.note:
            return made
        return (made or f"<p>{escaped(self.text)}</p>" if self.text else "") + (
            f"<p><em>{escaped(self.note)}</em></p>"
        )


def first(body: Body, place: Place, style: Style, task_id: str, index: int, previous: str) -> Content:
    """The event that begins the answer's message number `index`; `previous` is the message before, if any."""
    relation = _relation(place, previous)
    more = {
        "m.mentions": _mentions(place, index),
        TASK: {"id": task_id, "part": index},
        **({"m.relates_to": relation} if relation else {}),
    }
    return _fitting(body, lambda html: {**_message(body, style, html), **more})


def edit(body: Body, target: str, place: Place, style: Style, task_id: str, index: int) -> Content:
    """The event that makes the message `target` say this."""
    mark = {TASK: {"id": task_id, "part": index}}

    def content(html: str) -> Content:
        new = {**_message(body, style, html), "m.mentions": _mentions(place, index), **mark}
        fallback = {**_message(body, style, ""), "body": f"* {body.plain}", "m.mentions": {}, **mark}
        return {
            **fallback,
            "m.new_content": new,
            "m.relates_to": {"rel_type": "m.replace", "event_id": target},
        }

    return _fitting(body, content)


def _fitting(body: Body, content: Any) -> Content:
    made: Content = content(body.formatted)
    return made if len(dumps(made)) <= CONTENT_BYTES else content("")


def _message(body: Body, style: Style, html: str) -> Content:
    message: Content = {"msgtype": "m.notice" if style.notice else "m.text", "body": body.plain}
    if html:
        message |= {"format": "org.matrix.custom.html", "formatted_body": html}
    if body.live:
        message[LIVE] = {}
    return message


def _mentions(place: Place, index: int) -> Content:
    return {"user_ids": list(place.mentions[:MOST_MENTIONS])} if place.mentions and index == 0 else {}


def _relation(place: Place, previous: str) -> Content:
    """A thread's messages name the one before them for clients that know no threads. Elsewhere only the first
    message of an answer is a reply.
    """
    if place.thread:
        before = {"event_id": previous or place.reply_to or place.thread}
        return {
            "rel_type": "m.thread",
            "event_id": place.thread,
            "is_falling_back": True,
            "m.in_reply_to": before,
        }
    return {"m.in_reply_to": {"event_id": place.reply_to}} if place.reply_to and not previous else {}


def usage_line(usage: Mapping[str, Any] | None) -> str:
    """What was used, in words: the whole numbers and fractions among the members of a task's `usage`."""
    numbers = {
        name: value
        for name, value in (usage or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in list(numbers.items())[:8])


def shortened(text: str) -> str:
    """One line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= NOTE_CHARACTERS else line[: NOTE_CHARACTERS - 1] + "…"
