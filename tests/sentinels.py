"""A master, a replica and a Sentinel that watches them: real processes, to be failed over."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis

from bridge.store import embedded
from bridge.store.embedded import HOST
from tests.servers import RedisProcess, free_port
from tests.tools import require_tool
from tests.waiting import eventually

SERVICE = "main"
DOWN_AFTER_MS = 1500
"""Silence that a Sentinel takes for death. An old master that is back becomes a replica when it was alive for
eight seconds on end, so every false alarm costs nine more; with 500 ms a busy machine gives several in a row.
"""

SECONDS = 90.0
"""So long a failover may take, and the return of the old master; mostly it is three and ten seconds."""

# A replica would wait five seconds for others that might want the same copy.
_AT_ONCE = ("--repl-diskless-sync-delay", "0")

_SUPERVISOR = Path(embedded.__file__).with_name("supervisor.py")


class Replicated:
    """A context manager. `master` and `replica` change places with a failover."""

    def __init__(self, *options: str) -> None:
        binary = require_tool("redis-server")
        options = (*options, *_AT_ONCE)
        self.master = RedisProcess(binary=binary, options=options)
        self.replica = RedisProcess(
            binary=binary, options=[*options, "--replicaof", HOST, str(self.master.port)]
        )
        self._port = free_port()
        self._dead_port = free_port()
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """What clients are given. The first of the two Sentinels in it doesn't exist."""
        return f"redis+sentinel://{HOST}:{self._dead_port},{HOST}:{self._port}/{SERVICE}/0"

    def detach(self) -> None:
        """From now on the replica gets no writes: what is acknowledged will be lost with the master."""
        with self.replica.client() as client:
            client.replicaof(HOST, str(self._dead_port))

    def lost(self) -> int:
        """How many bytes of the master's replication stream the replica doesn't have."""
        with self.master.client() as master, self.replica.client() as replica:
            ahead: Any = master.info("replication")
            behind: Any = replica.info("replication")
        return int(ahead["master_repl_offset"]) - int(behind["slave_repl_offset"])

    def fail_over(self) -> None:
        """Kill the master, and wait until the Sentinel has made the replica one. They change places."""
        self.master.kill()
        self.await_failover()

    def await_failover(self) -> None:
        """Wait until the Sentinel names the replica as the master."""
        eventually(lambda: self._named() == self.replica.port, timeout=SECONDS)
        self.master, self.replica = self.replica, self.master

    def revive(self) -> None:
        """Start the old master again. It is a master, and empty, until the Sentinel has made it a replica."""
        self.replica.start()
        self.await_replication()

    def await_replication(self) -> None:
        """Wait until the replica follows the master, and the Sentinel knows."""
        with self.replica.client() as client:

            def follows() -> bool:
                try:
                    said: Any = client.info("replication")
                except redis.ConnectionError:
                    return False  # the Sentinel closes all connections of a server that it makes a replica
                return bool(
                    said["role"] == "slave"
                    and said["master_port"] == self.master.port
                    and said["master_link_status"] == "up"
                )

            eventually(follows, timeout=SECONDS)
        eventually(lambda: self._replicas() == 1, timeout=SECONDS)

    def _named(self) -> int:
        """The port of the master that the Sentinel names."""
        with redis.Redis(port=self._port) as client:
            masters: Any = client.sentinel_masters()
        return int(masters[SERVICE]["port"])

    def _replicas(self) -> int:
        """How many healthy replicas the Sentinel knows. None before it listens."""
        try:
            with redis.Redis(port=self._port) as client:
                replicas: Any = client.sentinel_slaves(SERVICE)
        except redis.ConnectionError:
            return 0
        return sum(one["flags"] == "slave" for one in replicas)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.master)
            stack.enter_context(self.replica)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-sentinel-")))
            config = folder / "sentinel.conf"
            config.write_text(
                f"port {self._port}\nbind {HOST}\ndir {folder}\n"
                f"sentinel monitor {SERVICE} {HOST} {self.master.port} 1\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            supervise = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid()), str(folder)]
            process = stack.enter_context(
                subprocess.Popen(
                    [*supervise, str(require_tool("redis-sentinel")), str(config)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            stack.callback(process.terminate)
            self.await_replication()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
