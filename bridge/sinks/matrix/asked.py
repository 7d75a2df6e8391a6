"""What a bot is asked: the messages in an answer of `/sync`. Pure.

A message is a question when somebody else wrote it as text. Notices are not: those are what bots write, and
no bot answers them. Neither are edits, nor what shows a task (see `message.TASK`): bots would answer each
other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from bridge.sinks.matrix.message import TASK, Place

TIMELINE: Final = 100
"""So many events of a room are read at once; more than that since the last time is a gap."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. `thread` is the event that began the thread it stands in, or empty."""

    room: str
    event_id: str
    sender: str
    text: str
    thread: str = ""

    @property
    def task_id(self) -> str:
        """The task that answers it: the same for whoever reads the message."""
        both = f"{self.room}\0{self.event_id}".encode("utf-8", "surrogatepass")
        return f"matrix-{hashlib.sha256(both).hexdigest()[:32]}"

    @property
    def place(self) -> Place:
        """Where its answer goes: into its thread, or into one that it begins."""
        return Place(
            self.room, thread=self.thread or self.event_id, reply_to=self.event_id, mentions=(self.sender,)
        )


@dataclass(frozen=True, slots=True)
class News:
    """What a sync brought. gaps: rooms of which not everything could be read. encrypted: rooms in which
    somebody wrote what can't be read here.
    """

    since: str
    asked: tuple[Asked, ...]
    gaps: tuple[str, ...]
    encrypted: tuple[str, ...]


def sync_filter(rooms: frozenset[str]) -> dict[str, Any]:
    """What to ask `/sync` for: messages of these rooms, or, if there are none here, of all."""
    nothing: dict[str, Any] = {"not_types": ["*"]}
    room: dict[str, Any] = {
        "timeline": {"types": ["m.room.message", "m.room.encrypted"], "limit": TIMELINE},
        "state": nothing,
        "ephemeral": nothing,
        "account_data": nothing,
    }
    if rooms:
        room["rooms"] = sorted(rooms)
    return {"room": room, "presence": nothing, "account_data": nothing}


def read_news(answer: Mapping[str, Any], me: str, *, mentions_only: bool) -> News:
    """The questions in an answer of `/sync`, in the order of their rooms. What makes no sense is left out."""
    asked: list[Asked] = []
    gaps: list[str] = []
    encrypted: list[str] = []
    for room, joined in _mapping(_mapping(answer.get("rooms")).get("join")).items():
        timeline = _mapping(_mapping(joined).get("timeline"))
        if timeline.get("limited"):
            gaps.append(room)
        for event in _events(timeline):
            if event.get("type") == "m.room.encrypted" and event.get("sender") != me:
                encrypted.append(room)
            elif (one := _question(room, event, me)) and (not mentions_only or _mentions(event, me)):
                asked.append(one)
    since = answer.get("next_batch")
    return News(
        since if isinstance(since, str) else "", tuple(asked), tuple(gaps), tuple(dict.fromkeys(encrypted))
    )


def _events(timeline: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    events = timeline.get("events")
    for event in events if isinstance(events, list) else ():
        if isinstance(event, Mapping):
            yield event


def _question(room: str, event: Mapping[str, Any], me: str) -> Asked | None:
    content = _mapping(event.get("content"))
    event_id, sender, text = event.get("event_id"), event.get("sender"), content.get("body")
    if event.get("type") != "m.room.message" or content.get("msgtype") != "m.text":
        return None
    if not (isinstance(event_id, str) and isinstance(sender, str) and isinstance(text, str)):
        return None
    relation = _mapping(content.get("m.relates_to"))
    if sender == me or TASK in content or relation.get("rel_type") == "m.replace":
        return None
    root = relation.get("event_id") if relation.get("rel_type") == "m.thread" else ""
    return Asked(room, event_id, sender, text, root if isinstance(root, str) else "")


def _mentions(event: Mapping[str, Any], me: str) -> bool:
    """Whether a message is for this user. Clients that name nobody in `m.mentions` may do so in the text."""
    content = _mapping(event.get("content"))
    mentions = content.get("m.mentions")
    if isinstance(mentions, Mapping):
        users = mentions.get("user_ids")
        return isinstance(users, list) and me in users
    # Such a client's HTML links to who is mentioned; the text has only the name that is shown.
    return any(me in unquote(str(content.get(name))) for name in ("body", "formatted_body"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
