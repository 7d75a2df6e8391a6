"""What a whole run shares: a Redis, the processors, a folder, and a word at the terminal."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.cores import Cores, pinned
from benchmarks.senders import Contender
from bridge.store.embedded import EmbeddedServer


@dataclass(frozen=True, slots=True)
class Stage:
    """Where shapes are measured. `quick` asks for a short form, good for a look and no more."""

    redis_url: str
    redis_pid: int
    cores: Cores
    folder: Path
    quick: bool = False

    @property
    def texts(self) -> Path:
        """Where the worker puts what it reported, for the crowd to compare with."""
        return self.folder / "texts.json"

    def clear(self) -> None:
        """Empty Redis, and its counts."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()
            client.config_resetstat()

    def commands(self) -> dict[str, int]:
        """How often Redis was asked what since it was cleared. Commands inside of scripts count as well."""
        with redis.Redis.from_url(self.redis_url) as client:
            stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(one["calls"]) for name, one in stats.items()}

    def say(self, text: str) -> None:
        """Tell who waits at the terminal."""
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)

    def present(self, *contenders: Contender) -> list[Contender]:
        """Those of them that this machine has."""
        return [each for each in contenders if not each.lacks()]


@contextmanager
def staged(*, quick: bool = False) -> Iterator[Stage]:
    """A stage for the length of the block."""
    cores = Cores.of_this_machine()
    server = EmbeddedServer()
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A file per stream, in the crowd and in the sender; both are started from here.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with pinned(cores.rest):
        server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="bridge-benchmarks-") as folder:
            yield Stage(server.url, server.pid, cores, Path(folder), quick)
    finally:
        server.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
