"""What the assistant's routes make of requests."""

from __future__ import annotations

import pytest
from assistant.services import wants
from starlette.requests import Request


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["text/event-stream"], True),
        (["Text/Event-Stream; charset=utf-8"], True),
        (["application/json, text/event-stream;q=0.5"], True),
        (["application/json", "text/event-stream"], True),
        (["application/json, text/event-stream; q=0"], False),
        (["text/event-stream;q=0.000"], False),
        (["text/event-streams", "x-text/event-stream"], False),
        (['application/json;profile="text/event-stream"'], False),
        (["*/*"], False),
        ([], False),
    ],
)
def test_what_is_accepted(lines: list[str], wanted: bool) -> None:
    """A stream is sent to those who name it, in any of their lines, and don't say that they want none."""
    headers = [(b"accept", line.encode()) for line in lines]
    request = Request({"type": "http", "headers": headers})
    assert wants(request, "accept", "text/event-stream") is wanted


@pytest.mark.parametrize(
    "preference", ["respond-async, wait=10", "wait=10,Respond-Async", "respond-async;x=1"]
)
def test_what_is_preferred(preference: str) -> None:
    """One preference counts whatever stands beside it."""
    request = Request({"type": "http", "headers": [(b"prefer", preference.encode())]})
    assert wants(request, "prefer", "respond-async")
    assert not wants(request, "prefer", "respond")
