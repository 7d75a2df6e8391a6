"""`/chat/stream`: answers as the older style of streaming has them, which an EventSource can read.

    GET  /chat/stream?conversationId=7&message=…     ask, where the message is short
    POST /chat/stream                                ask, with the same JSON as `POST /messages`
    GET  /chat/stream?generation=TASK_ID             read what was asked before, by whatever way

The stream is `conversationId`, `token` …, and `complete` or `error`.

Rules
-----
1. An EventSource comes back by itself whenever its connection closes, with the very same URL. So each event
   has an id, `TASK_ID/CHARACTERS`, and who comes with one goes on there and asks nothing. That of the last
   event is `TASK_ID/end`: who comes with it gets 204, and comes no more.
2. The first id comes with the head, before any model has said a word, and with the time after which to come
   back: browsers would wait for three seconds.
3. A link on another site's page, or in a mail, makes a browser send a GET with its cookies. Those that ask
   are refused: whoever follows a link accepts HTML, which no EventSource does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from assistant.accounts import User
from assistant.answers import Away, Event, Finished, Piece
from assistant.asking import Question
from assistant.conversations import Generation
from assistant.errors import Refused
from assistant.routes.conversations import own_generation
from assistant.routes.messages import ask, broken_off
from assistant.services import Id, LoggedIn, Parts, Services, wants
from assistant.sse import EventStream, frame

router: Final = APIRouter()

MAX_IN_URL: Final = 2000
"""Characters of a message in a URL, which proxies cut, log and refuse when it is long."""
END: Final = "end"
RETRY: Final = b"retry: 1000\n"


@router.get("/chat/stream")
async def get(
    request: Request,
    user: LoggedIn,
    parts: Parts,
    message: str | None = None,
    conversation_id: Annotated[Id | None, Query(alias="conversationId")] = None,
    task_id: Annotated[str | None, Query(alias="generation")] = None,
) -> Response:
    """Go on, read, or ask: whichever the request means, in this order."""
    if position := request.headers.get("last-event-id"):
        return await _go_on(parts, user, position)
    if task_id is not None:
        generation = await run_in_threadpool(own_generation, parts, user, task_id)
        return EventStream(_frames(parts, user, generation))
    linked = wants(request, "accept", "text/html")
    if linked or request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Refused(403, "cross_site", "A link or another site's page may not do this.")
    if message is None or not message.strip():
        raise Refused(422, "invalid", "message: there is none")
    if len(message) > MAX_IN_URL:
        raise Refused(414, "too_long", f"A URL takes at most {MAX_IN_URL} characters: POST it to this path.")
    question = Question(message.strip(), conversation_id)
    asked = await run_in_threadpool(parts.desk.ask, user, question)
    return EventStream(_frames(parts, user, asked.generation))


@router.post("/chat/stream")
async def post(request: Request, user: LoggedIn, parts: Parts) -> Response:
    """Ask."""
    asked = await ask(request, user, parts)
    return EventStream(_frames(parts, user, asked.generation))


async def _go_on(parts: Services, user: User, position: str) -> Response:
    task_id, _, place = position.partition("/")
    generation = await run_in_threadpool(own_generation, parts, user, task_id)
    if place == END:
        return Response(status_code=204)
    if not (place.isascii() and place.isdecimal() and len(place) < 10):
        raise Refused(400, "bad_position", "The Last-Event-ID is none of this stream's.")
    return EventStream(_frames(parts, user, generation, int(place)))


async def _frames(
    parts: Services, user: User, generation: Generation, said: int | None = None
) -> AsyncGenerator[bytes, None]:
    """The stream, after the first `said` characters. Where streaming is off the text comes with its end."""
    task_id, streaming = generation.task_id, user.streaming and parts.providers.streams(generation.provider)
    yield RETRY
    if said is None:
        yield frame("conversationId", {"conversationId": generation.conversation_id}, f"{task_id}/0")
    async with aclosing(parts.answers.follow(generation, said or 0)) as events:
        async for event in events:
            if isinstance(event, Piece):
                if streaming:
                    yield frame("token", {"token": event.text}, f"{task_id}/{event.upto}")
            else:
                yield _last(generation, event)


def _last(generation: Generation, event: Event) -> bytes:
    # Without a new id, an EventSource comes back to the place that it has.
    if isinstance(event, Away):
        return frame("error", {"code": event.code, "message": event.message})
    assert isinstance(event, Finished)
    message, end = event.message, f"{generation.task_id}/{END}"
    if message.state == "failed":
        return frame("error", broken_off(event), end)
    data: dict[str, Any] = {"conversationId": message.conversation_id, "messageId": message.id}
    data |= {name: getattr(message, name) for name in ("content", "usage", "provider", "model", "partial")}
    if event.persist_failed:
        data["persistFailed"] = True
    return frame("complete", data, end)
