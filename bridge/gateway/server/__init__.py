"""`bridge serve`: the gateway under uvicorn, with a shutdown that fits streams.

uvicorn's own shutdown waits for open connections without an end, and runs the lifespan's shutdown only
afterwards; streams never close by themselves. So this server first closes the listener, then lets the hub
drain (each stream is told when to come back, spread over `drain_seconds`), then goes on as uvicorn does.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.routing import BaseRoute

from bridge.errors import SettingsError
from bridge.gateway.app import Gateway
from bridge.gateway.auth import refuse_open_door
from bridge.gateway.server.files import make_room
from bridge.gateway.server.hosts import only_this_machine
from bridge.gateway.server.protocol import GatewayProtocol, protocol_with
from bridge.gateway.server.quick import Quick
from bridge.settings import Settings

log = logging.getLogger("bridge.gateway")

_BACKLOG: Final = 4096
_UNSENT_BYTES: Final = 16_384
"""So much may wait in the kernel for one client, besides what is on its way. By itself Linux takes some 4 MB:
a client that reads nothing would cost that much and be noticed only after it, and what a slow one reads would
be that old. A fast connection over a long way loses nothing by it.
"""
_AFTER_DRAIN_SECONDS: Final = 3
"""What is still open so long after the drain is cut off."""
_COLLECTOR: Final = (10_000, 50, 10)
"""So many more objects make it look at the youngest, so many times that at the younger ones, then at all."""
_FORCE_EXIT_CHECK_SECONDS: Final = 0.1


class Server(uvicorn.Server):
    """A uvicorn server that drains."""

    def __init__(self, gateway: Gateway, ready: Callable[[str], None] | None = None) -> None:
        self._gateway = gateway
        self._ready = ready
        self.listener = listen(gateway.settings)
        self._protocol = protocol_with(gateway.settings, gateway.connections, Quick.of(gateway))
        super().__init__(
            uvicorn.Config(
                only_this_machine(gateway, gateway.settings),
                interface="asgi3",
                http=self._protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                # uvicorn would believe the X-Forwarded-For of all on this machine; we have rules of our own.
                proxy_headers=False,
                timeout_graceful_shutdown=_AFTER_DRAIN_SECONDS,
            )
        )

    @property
    def url(self) -> str:
        """Where the gateway can be reached from this machine."""
        host, port = self.listener.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (it is shown, not bound)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}{self._gateway.settings.base_path}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell `ready`."""
        await super().startup(sockets)
        if self._ready is not None and self.started:
            self._ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, drain, then shut down as uvicorn does. A second SIGINT cuts the drain short."""
        for server in self.servers:
            server.close()
        self._protocol.last_answers = True
        for connection in self.server_state.connections:
            if isinstance(connection, GatewayProtocol):
                connection.close_after_answer()
        log.info("going away: streams are closed within %g s", self._gateway.settings.drain_seconds)
        drain = asyncio.create_task(self._gateway.hub.drain(self._gateway.settings.drain_seconds))
        while not (drain.done() or self.force_exit):
            await asyncio.wait([drain], timeout=_FORCE_EXIT_CHECK_SECONDS)
        drain.cancel()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as "drain, then end well"; uvicorn would raise them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises `SettingsError` when the address can't be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        hint = " (BRIDGE_PORT or --port names another)" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(f"can't listen on {where}: {error.strerror}{hint}") from None
    return listener


def _spare_the_collector() -> None:
    """Let Python's garbage collector look for circles more rarely, and never through what was there before.

    By its own measure it looks through thousands of open streams again and again while others come, which was
    a third of what a reconnect storm costs. It has nothing to find there: streams and polls that are over
    leave no circles (`tests/gateway/test_guards.py`).
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)


def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None] | None = None,
    extra_routes: Sequence[BaseRoute] = (),
) -> None:
    """Run a gateway until SIGTERM or SIGINT. `ready` is called with its URL once it listens; `extra_routes`
    are those of `Gateway`.

    Raises `SettingsError` when the port is in use, and when everybody could see everything by mistake.
    """
    refuse_open_door(settings)
    _spare_the_collector()
    server = Server(Gateway(make_room(settings), extra_routes=extra_routes), ready)
    server.run(sockets=[server.listener])
