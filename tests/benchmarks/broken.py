"""Senders that get it wrong, each in its own way, for the crowd to notice; and one that doesn't."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.apps.fanout import Fanout

Fault = Callable[[int, str], Iterable[str]]
"""What becomes of a viewer's nth text."""


def _app(fault: Fault) -> Starlette:
    fanout = Fanout()

    async def texts(task: str) -> AsyncIterator[str]:
        yield "retry: 1000\n"
        with fanout.viewer(task) as queue:
            number = 0
            while True:
                number += 1
                for text in fault(number, await queue.get()):
                    yield f"id: {number}\ndata: {text}\n\n"

    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(texts(request.path_params["task"]), media_type="text/event-stream")

    return Starlette(routes=[Route("/tasks/{task}/events", events)], lifespan=fanout.lifespan)


def _altered(number: int, text: str) -> str:
    return text.replace("0", "1", 1) if number == 3 else text


right = _app(lambda _, text: [text])
loses = _app(lambda number, text: [] if number == 3 else [text])
doubles = _app(lambda number, text: [text] * (2 if number == 3 else 1))
alters = _app(lambda number, text: [_altered(number, text)])
