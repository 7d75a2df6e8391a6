"""What is kept of an answer between two requests: its messages' ids, as JSON. Pure.

A sink that was killed is followed by another, on another machine perhaps, which goes on with this. Its clock
is another one, so ages are told by the time of day.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bridge.codec import dumps
from bridge.sinks.matrix.drafting import Draft, Message, Request

_VERSION: Final = 1


def to_json(draft: Draft, now: float, clock: float) -> bytes:
    """`now` is the time that the draft counts in, `clock` the time of day; both in seconds."""
    return dumps(
        {
            "version": _VERSION,
            "done": draft.done,
            "messages": [
                {
                    "event_id": each.event_id,
                    "shown": each.shown,
                    "born": round(clock - (now - each.born)),
                    "edits": each.edits,
                }
                for each in draft.messages
            ],
            "pending": _pending(draft.pending),
        }
    )


def from_json(data: bytes, now: float, clock: float) -> Draft:
    """What `to_json` wrote; nothing at all is an answer that hasn't begun. Raises ValueError for anything
    else.
    """
    if not data:
        return Draft()
    try:
        kept: dict[str, Any] = json.loads(data)
        if kept["version"] != _VERSION:
            raise ValueError("it is of another version")
        messages = tuple(
            Message(
                str(each["event_id"]),
                str(each["shown"]),
                now - max(clock - float(each["born"]), 0.0),
                int(each["edits"]),
            )
            for each in kept["messages"]
        )
        pending = None if kept["pending"] is None else Request(**kept["pending"])
        return Draft(messages, pending, bool(kept["done"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it can't be read: {error!r}") from error


def _pending(request: Request | None) -> dict[str, Any] | None:
    # An edit that arrived and one that didn't are the same once the next is sent: only new events count.
    if request is None or not request.begins:
        return None
    return {
        "index": request.index,
        "txn": request.txn,
        "content": request.content,
        "shown": request.shown,
        "live": request.live,
    }
