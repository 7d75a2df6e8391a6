"""Redis servers that tests may stop, freeze and kill."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Self

import redis
from fakeredis import TcpFakeServer

from bridge.store.embedded import HOST, EmbeddedServer
from bridge.store.scripts import SCRIPTS
from tests.waiting import eventually

__all__ = ["RedisProcess", "fake_redis", "free_port", "keys_without_ttl"]

_PORTS = range(11_000, 20_000)
"""Below those that systems and the embedded server choose from; and browsers refuse port 10080."""


def _turns() -> Iterator[int]:
    """The ports of this process, each again only after all others. Those of its run share them out."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    begin = random.randrange(len(own))  # another run may be on this machine
    return itertools.cycle([*own[begin:], *own[:begin]])


_turn = _turns()


def free_port() -> int:
    """A port on loopback that nobody listens on, and that no other test is given: who has it may stop its
    server for a while, or want nobody to be there.
    """
    for port in itertools.islice(_turn, 100):
        with socket.socket() as probe:
            # As servers do it: connections in TIME_WAIT don't keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports in a row are in use")


class RedisProcess:
    """A real server on a port that it keeps through all restarts. A context manager.

    `options` go to its command line: ``["--maxmemory", "20mb"]``. `DEBUG` is allowed.
    A restarted server is empty, as nothing is saved, unless `SAVE` was called with a `data_dir`.
    """

    def __init__(
        self, *, options: Sequence[str] = (), data_dir: Path | None = None, binary: Path | None = None
    ) -> None:
        self.port = free_port()
        self._data_dir = data_dir
        self._binary = binary
        self._options = ("--enable-debug-command", "local", *options)
        self._server: EmbeddedServer | None = None
        self._paused = False

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._server is not None, "the server isn't running"
        return self._server.pid

    def start(self) -> None:
        assert self._server is None, "the server is running already"
        self._server = EmbeddedServer(
            self.port, data_dir=self._data_dir, binary=self._binary, options=self._options
        )
        self._server.start()

    def stop(self) -> None:
        """End it in order. Does nothing if it isn't running."""
        if self._paused:
            self.resume()
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self._paused = False
        self.stop()

    def restart(self) -> None:
        """End it in order and start it again on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let it go on, beginning with all that was sent to it meanwhile."""
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def client(self) -> redis.Redis:
        """A plain client of its own, for the test to look inside or to disturb."""
        return redis.Redis.from_url(self.url)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def fake_redis() -> Iterator[str]:
    """A fakeredis server behind a real socket; the value is its URL."""
    server = TcpFakeServer((HOST, free_port()), server_type="redis")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    url = f"redis://{HOST}:{server.server_address[1]}/0"
    # It closes the connection after an error reply, and so after NOSCRIPT; a real server doesn't.
    with redis.Redis.from_url(url) as client:
        for script in SCRIPTS.values():
            client.script_load(script.source)
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
        eventually(lambda: not thread.is_alive())


def keys_without_ttl(url: str) -> list[str]:
    """All keys of that database that would stay for ever."""
    with redis.Redis.from_url(url) as client:
        return sorted(key.decode() for key in client.scan_iter(count=1000) if client.ttl(key) == -1)
