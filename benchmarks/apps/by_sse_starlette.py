"""Streams by the package sse-starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from benchmarks.apps.fanout import Fanout

_fanout = Fanout()


async def _texts(task: str) -> AsyncIterator[dict[str, str]]:
    with _fanout.viewer(task) as queue:
        for number in count(1):
            yield {"event": "chunk", "id": str(number), "data": await queue.get()}


async def events(request: Request) -> EventSourceResponse:
    """One open stream. Lines end with LF, as everybody's do here; the package's own choice is CRLF."""
    return EventSourceResponse(_texts(request.path_params["task"]), sep="\n")


app = Starlette(routes=[Route("/tasks/{task}/events", events)], lifespan=_fanout.lifespan)
