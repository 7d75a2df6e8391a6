"""Whose a request is that both could answer: the gateway's, or the app's behind it.

| path | task of a worker | task from a poller | not in the log |
|---|---|---|---|
| `/tasks/{id}/status` with `after` or `wait` | gateway | gateway | gateway |
| a path that the mapping or `upstream_status` names | app | app | app |
| `/tasks/{id}/status` | gateway | gateway | app |
| `/status/{id}`, `/status?task_id={id}` | gateway | app | app |

So an old client that polls `/status/{id}` gets the app's answers, also while somebody streams the task; and
`/tasks/{id}/status`, which no app had before, always shows what the stream shows. Where the app has that very
path, `after` or `wait`, which all clients of the bridge send, tells the two apart. Everything but GET and
HEAD is the app's, unless the task is a worker's: then it is refused as always.

Without Redis nobody can tell; then it is the app's, whose clients shall not notice that we are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.errors import InvalidTaskId, StoreError
from bridge.events import check_task_id
from bridge.gateway.auth import QUERY
from bridge.gateway.hub import Hub
from bridge.gateway.upstream.passing import raw_path_of
from bridge.sources.paths import Pattern
from bridge.store.log import Head

_HEAD_SECONDS: Final = 1.0
"""So long it may take to find out whose a task is."""
_OURS: Final = ("after", "wait")


class SharedStatus:
    """A status path that both have; raw ASGI. `native` answers for the gateway, `passing` hands to the app.

    own: whether the path is the bridge's own, so that tasks from a poller are shown as the stream shows them.
    """

    def __init__(
        self,
        hub: Callable[[], Hub],
        native: ASGIApp,
        passing: ASGIApp,
        named: tuple[Pattern, ...],
        *,
        own: bool,
    ) -> None:
        self._hub = hub
        self._native = native
        self._passing = passing
        self._named = named
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one of the two answer."""
        answer = self._native if await self._is_native(Request(scope)) else self._passing
        if answer is self._native and scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, "Method Not Allowed", headers={"allow": "GET, HEAD"})
        if self._own and not self._is_named(scope):
            scope.pop(QUERY, None)  # on a path of the bridge's a ticket is for the bridge
        await answer(scope, receive, send)

    def _is_named(self, scope: Scope) -> bool:
        return any(pattern.matches(raw_path_of(scope)) for pattern in self._named)

    async def _is_native(self, request: Request) -> bool:
        asks_us = request.method in ("GET", "HEAD") and any(name in request.query_params for name in _OURS)
        if self._own and asks_us:
            return True
        if self._is_named(request.scope):
            return False
        head = await self._head(request)
        return head is not None and (self._own or not head.polled)

    async def _head(self, request: Request) -> Head | None:
        task_id = request.path_params.get("task_id") or request.query_params.get("task_id") or ""
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                return await self._hub().head(check_task_id(task_id))
        except (InvalidTaskId, StoreError, TimeoutError):
            return None


class NamedPaths(BaseRoute):
    """A route for all paths that patterns name."""

    def __init__(self, named: tuple[Pattern, ...], passing: ASGIApp) -> None:
        self._named = named
        self._passing = passing

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a pattern names the path of this request."""
        if scope["type"] == "http":
            raw_path = raw_path_of(scope)
            if any(pattern.matches(raw_path) for pattern in self._named):
                return Match.FULL, {"endpoint": self._passing}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand it to the app."""
        await self._passing(scope, receive, send)
