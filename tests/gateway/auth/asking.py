"""Requests as a judge sees them."""

from __future__ import annotations

import asyncio
from typing import Any

from bridge.gateway.auth.tokens import Tokens
from bridge.gateway.auth.visitor import Action, Question, Visitor
from bridge.settings import Settings


def question(
    token: str | bytes = b"",
    *,
    ticket: str = "",
    cookie: str = "",
    task_id: str = "job-1",
    action: Action = "read",
) -> Question:
    """A request with a bearer token, a ticket in its URL, cookies, or none of them."""
    text = token.encode() if isinstance(token, str) else token
    authorization = b"Bearer " + text if text else None
    return Question(task_id, action, "192.0.2.7", authorization, cookie.encode() or None, ticket)


def judged(settings: dict[str, Any], asked: Question) -> Visitor | None:
    """What `jwt` says of a request, with these settings."""

    async def ask() -> Visitor | None:
        tokens = Tokens(Settings(auth="jwt", **settings))
        async with tokens.open():
            return await tokens.judge(asked)

    return asyncio.run(ask())
