"""Streams by FastAPI's own `fastapi.sse`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from benchmarks.apps.fanout import Fanout

_fanout = Fanout()
app = FastAPI(lifespan=_fanout.lifespan)


@app.get("/tasks/{task}/events", response_class=EventSourceResponse)
async def events(task: str) -> AsyncIterator[ServerSentEvent]:
    """One open stream. The data is JSON already."""
    with _fanout.viewer(task) as queue:
        for number in count(1):
            yield ServerSentEvent(raw_data=await queue.get(), event="chunk", id=str(number))
