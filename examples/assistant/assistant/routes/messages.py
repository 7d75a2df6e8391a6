"""`POST /messages`: ask, and be answered in the way that the client prefers.

`Prefer: respond-async` is answered at once with where to look, `Accept: text/event-stream` with the answer
as it is written, and anything else with the whole answer when it is there, as ever. Whichever it is, the
answer is written and stored; a client that goes away stops nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, StringConstraints
from starlette.concurrency import run_in_threadpool

from assistant.accounts import User
from assistant.answers import Away, Event, Finished, Piece
from assistant.asking import Asked, Question
from assistant.errors import Refused
from assistant.routes.conversations import described
from assistant.services import Id, LoggedIn, Parts, Services, read, wants
from assistant.sse import EventStream, frame

router: Final = APIRouter()

Events = AsyncGenerator[Event, None]
MAX_CONTENT: Final = 32_000
"""Characters of a message."""


class Posted(BaseModel):
    """A message, and where it goes."""

    content: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    conversation_id: Id | None = None
    provider: str | None = None


@router.post("/messages")
async def post(request: Request, user: LoggedIn, parts: Parts) -> Response:
    """Ask."""
    asked = await ask(request, user, parts)
    if wants(request, "prefer", "respond-async"):
        return _accepted(asked, described(parts, user, asked.generation))
    streaming = user.streaming and parts.providers.streams(asked.generation.provider)
    events = parts.answers.follow(asked.generation)
    if streaming and wants(request, "accept", "text/event-stream"):
        # The head waits for the first word, so that a failure before it still can be one.
        first = await anext(events)
        failed = _failed(first)
        if failed is None:
            return EventStream(_frames(asked, first, events))
        await events.aclose()
        return failed
    last = [event async for event in events][-1]
    return _failed(last) or JSONResponse(
        {"thread": _thread(asked), "user": asdict(asked.user), "assistant": done(last)}
    )


async def ask(request: Request, user: User, parts: Services) -> Asked:
    """What a request's body asks, stored and on its way. Raises `Refused`."""
    posted = await read(request, Posted)
    if len(posted.content) > MAX_CONTENT:
        raise Refused(413, "too_large", f"A message has at most {MAX_CONTENT} characters.")
    question = Question(posted.content, posted.conversation_id, posted.provider)
    return await run_in_threadpool(parts.desk.ask, user, question)


def _accepted(asked: Asked, generation: dict[str, Any]) -> Response:
    """202: where to look."""
    members = ("task_id", "conversation_id", "status", "events", "ticket")
    body = {**{name: generation[name] for name in members}, "user": asdict(asked.user)}
    headers = {"Location": generation["status"], "Preference-Applied": "respond-async"}
    return JSONResponse(body, 202, headers)


def _failed(event: Event) -> Response | None:
    """502 for an answer that failed; with what there is of it."""
    match event:
        case Finished(message) if message.state == "failed":
            body = {"error": message.error, "assistant": done(event)}
        case Away(code, text):
            body = {"error": {"code": code, "message": text}}
        case _:
            return None
    return JSONResponse(body, 502)


async def _frames(
    asked: Asked, first: Event, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[bytes, None]:
    """The stream: `thread`, `user`, `chunk` …, then `done` or `error`."""
    yield frame("thread", _thread(asked))
    yield frame("user", asked.user)
    said: list[str] = []
    async with aclosing(events):
        event: Event | None = first
        while event is not None:
            if isinstance(event, Piece):
                said.append(event.text)
            yield _frame(event, "".join(said) if isinstance(event, Away) else "")
            event = await anext(events, None)


def _frame(event: Event, said: str) -> bytes:
    match event:
        case Piece(text):
            return frame("chunk", {"content": text})
        case Finished(message) if message.state == "failed":
            return frame("error", broken_off(event))
        case Finished():
            return frame("done", done(event))
        case Away(code, text):
            return frame("error", {"code": code, "message": text, "content": said})


def _thread(asked: Asked) -> dict[str, Any]:
    return {"id": asked.conversation_id, "title": asked.title, "task_id": asked.generation.task_id}


def done(event: Event) -> dict[str, Any]:
    """An answer's message, with `persistFailed` where it isn't stored yet."""
    assert isinstance(event, Finished)
    return {**asdict(event.message), **({"persistFailed": True} if event.persist_failed else {})}


def broken_off(event: Finished) -> dict[str, Any]:
    """An answer that failed: why, and what there is of it."""
    message = event.message
    more = {"persistFailed": True} if event.persist_failed else {"message_id": message.id}
    return {**(message.error or {}), "content": message.content, **more}
