"""Conversations, and stopping what is written in them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from assistant import conversations
from assistant.accounts import User
from assistant.conversations import Conversation, Generation
from assistant.errors import Refused
from assistant.services import Id, LoggedIn, Parts, Services
from bridge.errors import ClientError, TaskNotFound

router: Final = APIRouter()


@router.get("/conversations")
def list_all(user: LoggedIn, parts: Parts) -> list[Conversation]:
    """All of this user's, the latest first."""
    with parts.database.connection() as db:
        return conversations.list_all(db, user.id)


@router.get("/conversations/{conversation_id}")
async def open_one(conversation_id: Id, user: LoggedIn, parts: Parts) -> dict[str, Any]:
    """What was said, and what is being written."""
    seen = await run_in_threadpool(_look, parts, user, conversation_id)
    if seen["running"]:
        await parts.sweeper.sweep(conversation_id)
        seen = await run_in_threadpool(_look, parts, user, conversation_id)
    return seen


@router.post("/generations/{task_id}/cancel", status_code=202)
async def cancel(task_id: str, user: LoggedIn, parts: Parts) -> dict[str, Any]:
    """Stop an answer. What was written stays; asking again changes nothing."""
    generation = await run_in_threadpool(own_generation, parts, user, task_id)
    if generation.state == "running":
        try:
            await parts.gateway.cancel(generation)
        except TaskNotFound:
            pass  # not announced yet, or forgotten: the sweeper sees to it
        except ClientError:
            message = "The answer can't be stopped at this moment. Please try again."
            raise Refused(503, "gateway_unavailable", message, {"Retry-After": "2"}) from None
        await parts.sweeper.sweep(generation.conversation_id)  # one that hadn't begun has ended now
    return {"task_id": task_id, "cancel_requested": True}


def described(parts: Services, user: User, generation: Generation) -> dict[str, Any]:
    """A generation as clients see it, with what they need to watch it."""
    streaming = user.streaming and parts.providers.streams(generation.provider)
    return {
        "task_id": generation.task_id,
        "conversation_id": generation.conversation_id,
        "state": generation.state,
        **parts.gateway.links(generation, streaming=streaming),
    }


def _look(parts: Services, user: User, conversation_id: int) -> dict[str, Any]:
    with parts.database.connection() as db:
        db.execute("BEGIN")  # all of it as it was at one moment
        title = conversations.find(db, user.id, conversation_id)
        if title is None:
            raise Refused(404, "not_found", "There is no such conversation.")
        return {
            "id": conversation_id,
            "title": title,
            "messages": conversations.messages(db, conversation_id),
            "running": [
                described(parts, user, generation)
                for generation in conversations.running(db, conversation_id)
            ],
        }


def own_generation(parts: Services, user: User, task_id: str) -> Generation:
    """One of this user's. Raises `Refused`, for others' as for none."""
    with parts.database.connection() as db:
        generation = conversations.generation(db, task_id, user.id)
    if generation is None:
        raise Refused(404, "not_found", "There is no such answer.")
    return generation
