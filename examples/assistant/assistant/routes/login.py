"""Logging in and out, and what a user may choose."""

from __future__ import annotations

from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from assistant import accounts
from assistant.errors import Refused
from assistant.services import COOKIE, LoggedIn, Parts, read

router: Final = APIRouter()

LOGINS: Final = CapacityLimiter(2)
"""A password costs time and memory, on purpose: so few are looked at that nobody else has to wait."""
MAX_WAITING: Final = 20


class Credentials(BaseModel):
    """Who somebody says to be."""

    name: str
    password: str


class Choices(BaseModel):
    """What a user may change."""

    streaming: bool


@router.post("/login", status_code=204)
async def login(request: Request, response: Response, parts: Parts) -> None:
    """Begin a session; its cookie is for this site alone, and no script reads it."""
    credentials = await read(request, Credentials)

    def log_in() -> str | None:
        with parts.database.connection() as db:
            return accounts.log_in(db, credentials.name, credentials.password)

    if LOGINS.statistics().tasks_waiting >= MAX_WAITING:
        message = "Too many log in at this moment. Please try again."
        raise Refused(503, "too_many", message, {"Retry-After": "2"})
    token = await to_thread.run_sync(log_in, limiter=LOGINS)
    if token is None:
        raise Refused(401, "wrong_credentials", "Name and password don't belong together.")
    response.set_cookie(
        COOKIE,
        token,
        max_age=accounts.SESSION_DAYS * 86400,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


@router.post("/logout", status_code=204)
def logout(request: Request, response: Response, parts: Parts) -> None:
    """End the session."""
    with parts.database.connection() as db:
        accounts.log_out(db, request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE)


@router.get("/me")
def me(user: LoggedIn, parts: Parts) -> dict[str, Any]:
    """Who is logged in, and what there is for them."""
    return {
        "name": user.name,
        "streaming": user.streaming,
        "gateway": parts.config.gateway_url,
        "providers": [
            {"name": name, "streaming": streaming} for name, streaming in parts.providers.streaming.items()
        ],
    }


@router.patch("/me", status_code=204)
async def choose(request: Request, user: LoggedIn, parts: Parts) -> None:
    """Switch streaming on or off."""
    choices = await read(request, Choices)

    def store() -> None:
        with parts.database.connection() as db:
            accounts.set_streaming(db, user, choices.streaming)

    await run_in_threadpool(store)
