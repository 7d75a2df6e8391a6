"""The gateway as an ASGI application: alone under a server, or mounted in somebody's app.

A mounted application's lifespan is not run by its parent, so the parent enters it:

    gateway = create_app(settings)

    @asynccontextmanager
    async def lifespan(app):
        async with gateway.lifespan():
            yield

    app = Starlette(routes=[Mount("/bridge", gateway)], lifespan=lifespan)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.errors import AccessError, AuthUnavailable, InvalidInput, InvalidTaskId, TooMany
from bridge.events import START, Position, check_task_id
from bridge.gateway import control, ops, web
from bridge.gateway.addresses import Proxies
from bridge.gateway.answers import HANDLERS, answer_to
from bridge.gateway.auth import Action, Door, Visitor, hide_ticket
from bridge.gateway.auth.reports import ReportKeys
from bridge.gateway.connection import Connection, connection_of
from bridge.gateway.cors import with_cors
from bridge.gateway.counts import Counts
from bridge.gateway.hub import Hub
from bridge.gateway.limits import Connections, Gate, Kind, Places
from bridge.gateway.metrics import CountAnswers, Metrics
from bridge.gateway.record import turned_away
from bridge.gateway.reports import ingest
from bridge.gateway.status import status
from bridge.gateway.stream import stream
from bridge.gateway.upstream import Upstream
from bridge.gateway.wire import after_text, come_back, empty, parse_after
from bridge.settings import Settings

_LATER: Final = "bridge.later"
"""Where in the ASGI scope an endpoint leaves what is to be done when all around it has returned."""

_STREAM_PATH: Final = r"/tasks/([A-Za-z0-9._:~-]+)/events"

Handler = Callable[[Hub, Request], Awaitable[Response]]
TaskHandler = Callable[[Hub, Visitor, str, Request], Awaitable[Response]]


class Gateway(Starlette):
    """The application. `hub` holds everything that lives; `lifespan` makes it live.

    `extra_routes` stand below `base_path` like its own: behind those of the API, and before the page's files,
    any of which they may serve in its place. Their endpoints find the gateway, with its `settings` and its
    `running_hub()`, as `request.app`, and may raise what its own do.
    """

    def __init__(self, settings: Settings, *, extra_routes: Sequence[BaseRoute] = ()) -> None:
        self.settings = settings
        self.counts = Counts()
        self.hub = Hub(settings, self.counts)
        self.door = Door(settings)
        self.gate = Gate(settings)
        self.connections = Connections(settings)
        self.metrics = Metrics(lambda: self.hub, self.gate, self.connections)
        self.report_keys = ReportKeys(settings)
        self.proxies = Proxies(settings.trusted_proxies, settings.unlimited_addresses)
        self.upstream = self._behind() if settings.upstream else None
        self._stream = _Stream(self)
        self._stream_path = re.compile(re.escape(settings.base_path) + _STREAM_PATH)

        @asynccontextmanager
        async def own_lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self.lifespan():
                yield

        routes = [*self._routes(), *extra_routes, *self._web_routes()]
        if self.upstream is not None:
            routes.append(self.upstream.named_paths())
        if settings.base_path:
            routes = [Mount(settings.base_path, app=Router(routes, redirect_slashes=False))]
            if settings.page:
                routes.append(Route(settings.base_path, web.to_slash, methods=["GET"]))
        super().__init__(routes=routes, exception_handlers=HANDLERS, lifespan=own_lifespan)
        # Behind a proxy that takes a prefix away, a redirect would lead elsewhere.
        self.router.redirect_slashes = False

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's, then what it leaves for later, and CORS around all. A ticket in the URL is out of
        sight for what follows, access logs too, which find the client's own address behind trusted proxies.
        """
        app = super().build_middleware_stack()
        direct = not self.user_middleware

        async def begin(scope: Scope, receive: Receive, send: Send) -> None:
            hide_ticket(scope)
            self.proxies.reveal(scope)
            later: list[Callable[[Send], Awaitable[None]]] = []
            scope[_LATER] = later
            await (self._begin_stream if direct and self._is_stream(scope) else app)(scope, receive, send)
            if later:
                await later.pop()(send)

        return with_cors(begin, self.settings)

    def _is_stream(self, scope: Scope) -> bool:
        """Whether a stream is asked for in the plain way, where Starlette's routes have nothing to add."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope.get("root_path"):
            return False
        found = self._stream_path.fullmatch(scope["path"])
        if found is not None:
            scope["path_params"] = {"task_id": found[1]}
        return found is not None

    async def _begin_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the route does, without the dozen coroutines around it, which take as long as all the rest: in a
        storm thousands of streams begin at once.
        """
        try:
            await self._stream(scope, receive, send)
        except (InvalidInput, AccessError, HTTPException) as error:
            await answer_to(error)(scope, receive, send)
        except Exception as error:
            await answer_to(error)(scope, receive, send)
            raise

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run the hub for as long as the block lasts. For apps that mount the gateway.

        It can be entered again later, also on another event loop, as the tests of such apps do.
        """
        if self.hub.draining:
            self.hub = Hub(self.settings, self.counts)
        async with self.door.open(), asyncio.TaskGroup() as group:
            hub = group.create_task(self.hub.run(), name="bridge hub")
            await asyncio.sleep(0)  # now it runs
            try:
                async with self.upstream.running(self.hub) if self.upstream else nullcontext():
                    yield
            finally:
                await self.hub.drain(0)
                hub.cancel()

    def _routes(self) -> list[BaseRoute]:
        return [
            Route("/tasks/{task_id}/events", _Events(self, self._stream), methods=["GET", "POST"]),
            Route("/tasks/{task_id}/end", _report(self, ingest.end), methods=["POST"]),
            Route("/tasks/{task_id}", _report(self, ingest.create), methods=["POST"]),
            self._status_route("/tasks/{task_id}/status", own=True),
            self._status_route("/status/{task_id}"),
            self._status_route("/status"),
            self._task_route(
                "/tasks/{task_id}/cancel",
                self.upstream.cancel if self.upstream else control.cancel,
                "POST",
                "cancel",
            ),
            self._route("/healthz", ops.healthz, "GET"),
            self._route("/readyz", ops.readyz, "GET"),
            self._route("/metrics", self.metrics.answer, "GET"),
            self._route("/openapi.json", ops.openapi, "GET"),
        ]

    def _web_routes(self) -> list[BaseRoute]:
        served = {**web.MODULE, **(web.PAGE if self.settings.page else {})}
        return [self._route(path, web.web_file(name), "GET") for path, name in served.items()]

    def _route(self, path: str, handler: Handler, method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(self.running_hub(), request)

        return Route(path, endpoint, methods=[method])

    def _task_route(self, path: str, handler: TaskHandler, method: str, action: Action) -> Route:
        async def endpoint(request: Request) -> Response:
            hub, task_id = self.running_hub(), named_task(request)
            return await handler(hub, await self.admit(request, task_id, action, "poll"), task_id, request)

        counted = Middleware(CountAnswers, self.counts, handler.__name__)
        return Route(path, endpoint, methods=[method], middleware=[counted])

    def _status_route(self, path: str, *, own: bool = False) -> Route:
        """own: no app had this path before there was a bridge."""
        if self.upstream is None:
            return self._task_route(path, status, "GET", "read")
        native = self._task_route(path, self.upstream.fresh(status), "GET", "read")
        return self.upstream.shared(native, own=own)

    def _behind(self) -> Upstream:
        def pace(scope: Scope) -> None:
            self.gate.pace(address_of(Request(scope)), "poll")

        return Upstream(self.settings, self.running_hub, pace)

    async def admit(self, request: Request, task_id: str, action: Action, kind: Kind) -> Visitor:
        """Let a request in, before anything about its task is looked up. Raises `AccessError`, `TooMany`."""
        self.gate.pace(address_of(request), kind)
        return await self.door.enter(request, task_id, action)

    def running_hub(self) -> Hub:
        """The hub. Raises HTTPException 503 when nobody has entered the lifespan."""
        if not self.hub.running:
            raise HTTPException(
                503, "The gateway is not started: the app that mounts it must enter its lifespan()."
            )
        return self.hub


class _Stream:
    """The streams' endpoint, as an ASGI application of its own. It decides, and leaves the long rest for
    later: what waits within a dozen coroutines of Starlette's keeps them all, and a stream waits most of
    its life.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, hub = Request(scope), self._gateway.running_hub()
        task_id, after = named_task(request), parse_after(after_text(request))
        # What will pass is said with 200: EventSource gives up on other answers. A 401 is meant to stop it.
        try:
            visitor = await self._gateway.admit(request, task_id, "read", "stream")
        except (AccessError, TooMany) as error:
            turned_away(hub.counts, task_id, "refused", resumed=after != START)
            if isinstance(error, TooMany):
                await come_back(send, str(error), error.retry_seconds)
            elif isinstance(error, AuthUnavailable):
                await come_back(send, str(error))
            else:
                raise
            return
        if request.method == "HEAD":
            await empty(send)
            return
        places = self._gateway.gate.place(address_of(request), visitor)
        connection = connection_of(scope)

        scope[_LATER].append(partial(_live, places, hub, visitor, task_id, after, connection, receive))


async def _live(
    places: Places,
    hub: Hub,
    visitor: Visitor,
    task_id: str,
    after: Position,
    connection: Connection,
    receive: Receive,
    send: Send,
) -> None:
    try:
        with places:
            await stream(hub, visitor, task_id, after, connection, receive, send)
    except TooMany as error:
        turned_away(hub.counts, task_id, "refused", resumed=after != START)
        await come_back(send, str(error), error.retry_seconds)


class _Report:
    """One of the endpoints for workers. Also one of its own: it takes the body as it comes."""

    def __init__(self, gateway: Gateway, way: ingest.Way) -> None:
        self._gateway = gateway
        self._way = way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, hub, gateway = Request(scope), self._gateway.running_hub(), self._gateway
        task_id = named_task(request)
        gateway.gate.pace(address_of(request), "report")
        response = ingest.refusal(gateway.report_keys, hub, request)
        if response is None:
            response = await ingest.respond(hub, self._way, ingest.Report(task_id, request, receive))
        if response is not None:
            await response(scope, receive, send)


def _report(gateway: Gateway, way: ingest.Way) -> ASGIApp:
    return CountAnswers(_Report(gateway, way), gateway.counts, f"report_{way.__name__}")


class _Events:
    """What is read, and what is written, under the same path."""

    def __init__(self, gateway: Gateway, stream: _Stream) -> None:
        self._stream = stream
        self._report = _report(gateway, ingest.events)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._report if scope["method"] == "POST" else self._stream)(scope, receive, send)


def named_task(request: Request) -> str:
    """The id of the task that a request is about. Raises `InvalidTaskId`."""
    task_id = request.path_params.get("task_id") or request.query_params.get("task_id")
    if not task_id:
        raise InvalidTaskId("the task's id is missing: /status/ID, or /status?task_id=ID")
    return check_task_id(task_id)


def address_of(request: Request) -> str:
    """Where a request comes from; empty where the server doesn't know."""
    return request.client.host if request.client else ""


def create_app(settings: Settings | None = None) -> Gateway:
    """A gateway with the given settings, else those of the environment. Raises `SettingsError`."""
    return Gateway(settings or Settings.from_env())
