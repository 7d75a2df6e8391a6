"""A real gateway for tests: its own thread, its own event loop, a real port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from starlette.routing import BaseRoute

from bridge.gateway.app import Gateway
from bridge.gateway.hub import Hub
from bridge.gateway.limits import Gate
from bridge.gateway.server import Server
from bridge.settings import Settings
from tests.waiting import DEADLINE_SECONDS, eventually, eventually_async

T = TypeVar("T")

QUICK: dict[str, Any] = {
    "port": 0,
    "heartbeat_seconds": 0.5,
    "linger_seconds": 5.0,
    "audit_seconds": 0.1,
    "probe_seconds": 2.0,
    "drain_seconds": 0.1,
    "poll_interval_seconds": 2.0,
}


class _Server(Server):
    """Remembers its loop, and fails when a task is left on it at the end."""

    loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)
        this = asyncio.current_task()
        await eventually_async(lambda: asyncio.all_tasks() == {this})


class Running:
    """A gateway that runs: where it is, and a way to look inside it from the test's thread."""

    def __init__(self, settings: Settings, extra_routes: Sequence[BaseRoute] = ()) -> None:
        self.gateway = Gateway(settings, extra_routes=extra_routes)
        self._server = _Server(self.gateway)
        self.url = self._server.url
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started or self._error)

    @property
    def hub(self) -> Hub:
        return self.gateway.hub

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("POST", path, **options)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        # Certificates are read from disk for every client, and nothing here needs them.
        return httpx.request(
            method, self.url + path, **{"timeout": DEADLINE_SECONDS, "verify": False, **options}
        )

    def inside(self, look: Callable[[], T]) -> T:
        """Call a function on the gateway's own event loop, between two of its steps."""
        answer: Future[T] = Future()

        def call() -> None:
            try:
                answer.set_result(look())
            except BaseException as error:
                answer.set_exception(error)

        assert self._server.loop is not None
        self._server.loop.call_soon_threadsafe(call)
        return answer.result(DEADLINE_SECONDS)

    def followers(self, task_id: str | None = None) -> int:
        """How many follow that task, or any."""
        return self.inside(
            lambda: sum(
                len(channel.followers)
                for name, channel in self.hub._channels.items()
                if task_id in (None, name)
            )
        )

    def connections(self) -> int:
        """How many connections are open on the gateway's side."""
        return self.inside(lambda: len(self._server.server_state.connections))

    def change(self, **settings: Any) -> None:
        """Let the hub go by other settings from now on. Streams keep those that they began with."""
        hub = self.hub
        self.inside(lambda: setattr(hub, "settings", hub.settings.with_(**settings)))

    def stop_windows(self) -> None:
        """Let the windows in which requests are counted last for ever, however slow the test is."""
        app = self.gateway
        self.inside(lambda: setattr(app, "gate", Gate(app.settings, clock=lambda: 1000.0)))

    def wait_ready(self) -> None:
        eventually(lambda: self.hub.ready)

    def begin_to_stop(self) -> None:
        """As a SIGTERM does."""
        self._server.should_exit = True

    def stop(self) -> None:
        """End in order; nothing may be left: no task, no follower, no error."""
        self.begin_to_stop()
        self._thread.join(DEADLINE_SECONDS * 2)
        assert not self._thread.is_alive(), "the gateway doesn't end"
        if self._error is not None:
            raise self._error
        assert [name for name, one in self.hub._channels.items() if one.followers] == []
        assert not self.hub.running

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._server.listener])
        except BaseException as error:
            self._error = error


@contextmanager
def running(
    redis_url: str, *, ready: bool = True, extra_routes: Sequence[BaseRoute] = (), **settings: Any
) -> Iterator[Running]:
    """A gateway with quick settings. ready: only after it hears Redis."""
    one = Running(Settings(redis_url=redis_url, **{**QUICK, **settings}), extra_routes)
    try:
        if ready:
            one.wait_ready()
        yield one
    finally:
        one.stop()
