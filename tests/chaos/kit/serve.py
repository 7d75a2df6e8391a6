"""A gateway process that can be counted, ``python -m tests.chaos.kit.serve``: `bridge serve` with one more
path, ``/census``, that tells what the process holds. Its settings come from the environment.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bridge.cli import logs
from bridge.gateway.app import create_app
from bridge.gateway.server import Server

_PAGE = resource.getpagesize()


def main() -> None:
    """Serve until SIGTERM."""
    logs.for_operators("info")
    gateway = create_app()

    async def census(_: Request) -> JSONResponse:
        channels = gateway.hub._channels.values()
        return JSONResponse(
            {
                "tasks": Counter(_name(task) for task in asyncio.all_tasks()),
                "channels": len(channels),
                "followers": sum(len(channel.followers) for channel in channels),
                "rss": _rss(),
                **_files(gateway.settings.port),
            }
        )

    gateway.router.routes.append(Route("/census", census))
    server = Server(gateway, lambda url: print(url, flush=True))
    server.run(sockets=[server.listener])


def _name(task: asyncio.Task[object]) -> str:
    """Its name; tasks that were given none are of one kind."""
    name = task.get_name().rstrip("0123456789 ")
    return "nameless" if name == "Task-" else name


def _rss() -> int:
    """Bytes of memory that it occupies now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _files(own_port: int) -> dict[str, int]:
    """How many descriptors are open: connections that it accepted, such as the one that asks; those that it
    made, which lead to Redis; and all others.
    """
    found = Counter(clients=0, redis_connections=0, files=0)
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[_kind(int(file.name), own_port)] += 1
    return found


def _kind(fd: int, own_port: int) -> str:
    """What a descriptor counts as. A connection that was made may be dead by now: a pool notices that only
    when it wants to use it.
    """
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return "files"
    with socket.socket(fileno=os.dup(fd)) as one:
        here = one.getsockname()
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens or not isinstance(here, tuple):
            return "files"
        return "clients" if here[1] == own_port else "redis_connections"


if __name__ == "__main__":
    main()
