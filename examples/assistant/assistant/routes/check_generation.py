"""`GET /check_generation`: for clients that know only polling, in the form that they have always polled.

    417 {"task_status": 1 | 2 | 3, "slow_pickup", "task_output"?}     not yet: ask again in two seconds
    200 the message                                                   it is written, and stored
    400 {"error", "task_status": 4 | 5, "userFacingErrorMessage"}     it failed, or was stopped

1 is scheduled, 2 running, with all the text so far, and 3 succeeded but not stored: the text is safe, and
the message comes later. The format is Nextcloud Assistant's. With the gateway away the database says what
it knows.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from assistant import conversations
from assistant.conversations import Generation, Message
from assistant.database import seconds_ago
from assistant.errors import Refused
from assistant.keeping import ASK_SECONDS, ENDED
from assistant.services import Id, LoggedIn, Parts, Services
from bridge.errors import ClientError

log = logging.getLogger(__name__)

router: Final = APIRouter()

STATUS: Final = {"queued": 1, "running": 2, "succeeded": 3, "failed": 4, "cancelled": 5}
SLOW_SECONDS: Final = 60.0
"""Who has waited for a worker for so long is told that it is slow."""


@router.get("/check_generation")
async def check(
    task_id: Annotated[str, Query(alias="taskId")],
    conversation_id: Annotated[Id, Query(alias="sessionId")],
    user: LoggedIn,
    parts: Parts,
) -> JSONResponse:
    """One poll."""
    generation, message = await run_in_threadpool(_look, parts, user.id, task_id)
    if generation is None or generation.conversation_id != conversation_id:
        raise Refused(404, "not_found", "There is no such answer.")
    if message is not None:
        return _ended(message)
    view = await _ask(parts, generation)
    if view["state"] not in ENDED:
        return _not_yet(generation, view)
    finished = await parts.answers.finish(generation, view)
    if finished.persist_failed and view["state"] == "succeeded":
        return _not_yet(generation, view)
    return _ended(finished.message)


def _look(parts: Services, user_id: int, task_id: str) -> tuple[Generation | None, Message | None]:
    with parts.database.connection() as db:
        generation = conversations.generation(db, task_id, user_id)
        return generation, None if generation is None else conversations.answer_of(db, task_id)


async def _ask(parts: Services, generation: Generation) -> dict[str, Any]:
    """What the bridge shows, or what it would show of a task that nobody has heard of for a while."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await parts.gateway.status(generation)
    except (ClientError, TimeoutError) as error:
        log.debug("nothing is known of %s: %s", generation.task_id, error)
        return {"state": "running", "text": ""}


def _not_yet(generation: Generation, view: dict[str, Any]) -> JSONResponse:
    state = view["state"]
    slow = state == "queued" and generation.created_at < seconds_ago(SLOW_SECONDS)
    body = {"task_status": STATUS[state], "slow_pickup": slow}
    if state == "running":
        body["task_output"] = {"output": view["text"]} if view["text"] else None
    return JSONResponse(body, 417)


def _ended(message: Message) -> JSONResponse:
    if message.state == "succeeded":
        return JSONResponse(asdict(message))
    body = {
        "error": "task_failed_or_canceled",
        "task_status": STATUS[message.state],
        "userFacingErrorMessage": message.error["message"] if message.error else "The answer was stopped.",
    }
    return JSONResponse(body, 400)
