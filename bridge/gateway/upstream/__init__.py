"""An app behind the gateway, whose workers report nothing.

The gateway asks it about the tasks that somebody follows (`pollers.py`), hands it the requests of its old
clients (`passing.py`, `shared.py`), and tells it to stop a task (`stopping.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bridge.errors import SettingsError
from bridge.gateway.auth import Visitor
from bridge.gateway.hub import Hub
from bridge.gateway.upstream.asking import Questions
from bridge.gateway.upstream.passing import Passing
from bridge.gateway.upstream.pollers import Pollers
from bridge.gateway.upstream.shared import NamedPaths, SharedStatus
from bridge.gateway.upstream.stopping import stop
from bridge.settings import Settings
from bridge.sources.mapping_file import load_mapping
from bridge.sources.paths import Pattern, wrong_path

__all__ = ["Upstream"]

TaskHandler = Callable[[Hub, Visitor, str, Request], Awaitable[Response]]


class Upstream:
    """All that a gateway has to do with the app behind it. Raises `SettingsError`.

    `pace` is called with each request that is handed to the app, and raises `TooMany`.
    """

    def __init__(self, settings: Settings, hub: Callable[[], Hub], pace: Callable[[Scope], None]) -> None:
        mapping = load_mapping(settings.upstream_mapping)
        status = settings.upstream_status or mapping.status
        if not status:
            raise SettingsError(
                "upstream needs BRIDGE_UPSTREAM_STATUS or --upstream-status, where the app tells how a task"
                " is, such as /api/jobs/{task_id}"
            )
        if wrong := wrong_path(status):
            raise SettingsError(f"BRIDGE_UPSTREAM_STATUS or --upstream-status must {wrong}")
        self._hub = hub
        self._pace = pace
        self._named = tuple(Pattern.parse(path) for path in (status, *mapping.passed))
        self._questions = Questions(settings, mapping)
        self._passing = Passing(settings)
        self.pollers = Pollers(self._questions)

    @asynccontextmanager
    async def running(self, hub: Hub) -> AsyncIterator[None]:
        """Entered while the hub runs."""
        async with self._passing.open(), self.pollers.running(hub):
            yield

    def fresh(self, handler: TaskHandler) -> TaskHandler:
        """A handler of polls that shows a task of the app's as it is now, also when nobody follows it."""

        @wraps(handler)  # the name is what answers are counted under
        async def look_first(hub: Hub, visitor: Visitor, task_id: str, request: Request) -> Response:
            async with self.pollers.look(task_id):
                return await handler(hub, visitor, task_id, request)

        return look_first

    def shared(self, native: Route, *, own: bool) -> Route:
        """A status path that the app may have, too (`shared.py`)."""
        return Route(native.path, SharedStatus(self._hub, native.app, self._hand_on, self._named, own=own))

    def named_paths(self) -> BaseRoute:
        """The status endpoint of the app's, and whatever else the mapping names."""
        return NamedPaths(self._named, self._hand_on)

    async def cancel(self, hub: Hub, visitor: Visitor, task_id: str, request: Request) -> Response:
        """Ask the app to stop a task of its own, or a worker to stop another."""
        return await stop(self._questions, hub, visitor, task_id, request)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._hub()  # says so when the gateway isn't started
        self._pace(scope)
        await self._passing(scope, receive, send)
