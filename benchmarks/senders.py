"""Who is measured: how each is started, how tokens reach it, and what it lacks where it can't be."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import NotReady, children, first_line, python, running
from bridge.store.embedded import HOST, free_port

_START_SECONDS: Final = 10.0
_MODULE: Final = "ngx_nchan_module.so"
_MODULE_FOLDERS: Final = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")


@dataclass(frozen=True, slots=True)
class Sender:
    """One that runs: the process that sends, and how to reach it."""

    pid: int
    port: int
    path: str
    """Of a task's stream; holds ``{task}``."""
    feed: dict[str, Any]
    """How the worker reaches it: the arguments of `Writer.start`."""


Start = Callable[[str, frozenset[int]], AbstractContextManager[Sender]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One that takes part under this name."""

    name: str
    start: Start
    lacks: Callable[[], str] = field(default=lambda: "")
    """What is missing on this machine; empty where nothing is."""
    queued: bool = False
    """It has a queue per viewer, and gets fewer tokens, or a run would take many minutes."""


@contextmanager
def bridge_gateway(
    redis_url: str, cores: frozenset[int], *, flush_milliseconds: float = 20.0
) -> Iterator[Sender]:
    """The bridge as `bridge serve` runs it, with its own defaults."""
    command = python("bridge", "serve", "--redis-url", redis_url, "--port", "0", "--log-level", "warning")
    with running(command, cores) as process:
        # bridge: gateway at http://127.0.0.1:43567 with Redis at …
        port = int(first_line(process).split()[3].rpartition(":")[2])
        feed = {"by": "hook", "redis_url": redis_url, "flush_milliseconds": flush_milliseconds}
        yield Sender(process.pid, port, "/tasks/{task}/events", feed)


@contextmanager
def _each_alone(redis_url: str, cores: frozenset[int]) -> Iterator[Sender]:
    with bridge_gateway(redis_url, cores, flush_milliseconds=0) as sender:
        yield sender


def app(name: str, redis_url: str, cores: frozenset[int]) -> AbstractContextManager[Sender]:
    """An app in Python, ``module:name``."""
    return _published(python("benchmarks.apps", name, redis_url), redis_url, cores)


@contextmanager
def _published(command: list[str], redis_url: str, cores: frozenset[int]) -> Iterator[Sender]:
    """A program that says its port, and gets what is published in Redis."""
    with running(command, cores) as process:
        port = int(first_line(process))
        feed = {"by": "publish", "redis_url": redis_url}
        yield Sender(process.pid, port, "/tasks/{task}/events", feed)


@contextmanager
def nchan(_: str, cores: frozenset[int]) -> Iterator[Sender]:
    """Nchan in one nginx worker. It needs no Redis."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bridge-nchan-") as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(_nginx_config(folder, port))
        command = [_nginx(), "-p", folder, "-c", str(config), "-e", f"{folder}/error.log"]
        with running(command, cores) as master:
            try:
                yield Sender(
                    _worker(master.pid, port), port, "/tasks/{task}/events", {"by": "nchan", "port": port}
                )
            finally:
                # A killed master leaves its worker behind.
                master.terminate()
                master.wait(_START_SECONDS)


def _worker(master: int, port: int) -> int:
    """The pid of nginx's worker, once it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port)).close()
            (worker,) = children(master)
            return worker
        except (OSError, ValueError):
            time.sleep(0.02)
    raise NotReady("nginx doesn't listen")


def _nginx_config(folder: str, port: int) -> str:
    # Debian builds nginx to become www-data, who may not write into our folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
        load_module {_module()};
        {user}
        daemon off;
        worker_processes 1;
        worker_rlimit_nofile 20000;
        pid {folder}/nginx.pid;
        error_log {folder}/error.log warn;
        events {{ worker_connections 19000; }}
        http {{
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            keepalive_requests 100000000;
            keepalive_timeout 3600s;
            client_body_in_single_buffer on;
            nchan_max_reserved_memory 1024m;
            # By itself Nchan keeps ten messages and drops them for whoever is behind.
            nchan_message_buffer_length 100000;
            server {{
                listen {HOST}:{port} backlog=4096;
                location ~ ^/publish/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
                location ~ ^/tasks/(.+)/events$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
            }}
        }}
    """


def _nginx() -> str:
    # Debian has it where only root looks.
    return shutil.which("nginx") or "/usr/sbin/nginx"


def _module() -> Path | None:
    return next((path for each in _MODULE_FOLDERS if (path := Path(each) / _MODULE).exists()), None)


def nchan_version() -> str:
    """Of the Debian package, or unknown."""
    try:
        query = ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def nginx_version() -> str:
    """As it says itself."""
    said = subprocess.run([_nginx(), "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\S+)", said)
    return found[1] if found else "unknown"


def lacks_nchan() -> str:
    """What is missing to run Nchan."""
    if not Path(_nginx()).exists():
        return "nginx is not installed"
    return "" if _module() else "the package libnginx-mod-nchan is not installed"


def _lacks_module(name: str, package: str) -> Callable[[], str]:
    return lambda: "" if importlib.util.find_spec(name) else f"the package {package} is not installed"


def _app(name: str) -> Start:
    return lambda redis_url, cores: app(name, redis_url, cores)


BRIDGE: Final = Contender("bridge", bridge_gateway)
ALONE: Final = Contender("bridge, each token alone", _each_alone)
NCHAN: Final = Contender("Nchan", nchan, lacks_nchan)
SSE_STARLETTE: Final = Contender(
    "sse-starlette",
    _app("benchmarks.apps.by_sse_starlette:app"),
    _lacks_module("sse_starlette", "sse-starlette"),
    queued=True,
)
FASTAPI: Final = Contender(
    "FastAPI", _app("benchmarks.apps.by_fastapi:app"), _lacks_module("fastapi", "fastapi"), queued=True
)
FLOOR: Final = Contender(
    "bare writes", lambda url, cores: _published(python("benchmarks.apps.floor", url), url, cores)
)
"""No peer, but the machine's own part: nobody who writes once per viewer can be cheaper."""
ALL: Final = (BRIDGE, ALONE, NCHAN, SSE_STARLETTE, FASTAPI)
