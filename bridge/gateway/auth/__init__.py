"""The door: the one place that decides who may see and cancel a task.

Rules
-----
1. It fails closed. What can't be verified, can't be asked, or isn't understood lets nobody in.
2. Credentials are looked at when a request begins, before anything about the task is. A stream that was let
   in goes on after its token has run out; nobody comes back with that token.
3. Who may not see a task finds it unknown, in every answer, header and waiting time: that is `may_see`, which
   stands wherever it matters whether the task is known. Being refused (401) never depends on the task.
   What isn't hidden: an answer from memory, of a task that somebody follows, may be quicker than from Redis.
4. The judges are asked in the order of the setting `auth`. The first that knows the credentials decides; one
   that doesn't, because there are none for it or they aren't valid, leaves it to the next. When none knows
   them, the answer is 401; but 503 when one of them couldn't be asked.
5. Credentials come in the Authorization header, in the URL as `?ticket=`, and in cookies. They stay here: no
   log, error or name of a visitor holds them, nor any text of a library, which might repeat them.
6. What is kept: the answers of `forward` for `forward_cache_seconds`, published keys as `jwks.py` says, and
   otherwise nothing. All of it is bounded.

Nothing here runs while events are sent: a stream asks `may_see` when it looks at its channel anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.requests import HTTPConnection

from bridge import checks
from bridge.errors import AuthUnavailable, SettingsError, Unauthenticated
from bridge.gateway.auth.visitor import ANYBODY, QUERY, TICKET, Action, Judge, Question, Visitor, hide_ticket
from bridge.settings import Settings

__all__ = ["QUERY", "TICKET", "Action", "Door", "Visitor", "hide_ticket", "refuse_open_door"]

_NEEDED: Final = "Credentials are needed."
_NOT_VALID: Final = "The credentials are not valid, or not any more."


class Door:
    """Decides by the settings. `open` is entered while requests come, on their event loop.

    Raises `SettingsError` when a way to decide lacks what it needs.
    """

    def __init__(self, settings: Settings) -> None:
        self._judges = [_judge(name, settings) for name in checks.words(settings.auth) if name != "none"]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """For the length of the block the judges have their connections."""
        async with AsyncExitStack() as stack:
            for judge in self._judges:
                await stack.enter_async_context(judge.open())
            yield

    @property
    def waits(self) -> bool:
        """Whether somebody may have to be asked. Else `enter` returns without waiting for anything."""
        return any(judge.waits for judge in self._judges)

    async def enter(self, request: HTTPConnection, task_id: str, action: Action) -> Visitor:
        """As whom a request comes that wants to do this with that task.

        Raises `Unauthenticated` and `AuthUnavailable`. Who may not do it comes in, but sees no such task.
        """
        if not self._judges:
            return ANYBODY
        question = Question.of(request, task_id, action)
        unavailable: AuthUnavailable | None = None
        for judge in self._judges:
            try:
                visitor = await judge.judge(question)
            except AuthUnavailable as error:
                unavailable = error
                continue
            if visitor is not None:
                return visitor
        if unavailable is not None:
            raise unavailable
        raise Unauthenticated(_NOT_VALID if question.has_credentials else _NEEDED)


def refuse_open_door(settings: Settings) -> None:
    """Raise `SettingsError` when everybody who reaches the gateway would see everything, by mistake."""
    if settings.auth == "none" and not (settings.insecure or checks.is_loopback(settings.host)):
        raise SettingsError(
            f"on {settings.host} others could see and cancel every task: choose who may with BRIDGE_AUTH or"
            " --auth (jwt or forward), or say --insecure if whoever can reach this address may"
        )


def _judge(name: str, settings: Settings) -> Judge:
    # Each has libraries of its own to import, and they take their time.
    if name == "jwt":
        from bridge.gateway.auth.tokens import Tokens

        return Tokens(settings)
    from bridge.gateway.auth.forward import Forward

    return Forward(settings)
