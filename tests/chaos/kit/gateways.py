"""Gateway processes, as a scenario starts, kills and counts them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.processes import environ
from tests.servers import free_port
from tests.waiting import DEADLINE_SECONDS, eventually_async

ROOT = Path(__file__).parents[3]
BAD_WORDS = ("Traceback", "ERROR", "Task was destroyed", "never awaited", "ResourceWarning", "should not")


class GatewayProcess:
    """One gateway on a port that it keeps through all restarts."""

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        self.idle: dict[str, Any] = {}
        """The census when nobody had come yet."""
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *, ready: bool = True) -> None:
        """Start it. ready: only done when it hears Redis, and its first census is taken."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "default::ResourceWarning", "-m", "tests.chaos.kit.serve"),
                cwd=ROOT,
                env=environ(**self._settings, BRIDGE_PORT=str(self.port)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline(), self.said()
        if ready:
            await self.wait_ready()
            # A restarted one has guests at once.
            self.idle = self.idle or await self.census()

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client:
            return await client.get(self.url + path, **options)

    async def is_ready(self) -> bool:
        return (await self.get("/readyz")).status_code == 200

    async def wait_ready(self) -> None:
        await eventually_async(self.is_ready)

    async def wait_not_ready(self) -> None:
        await eventually_async(self._is_not_ready)

    async def _is_not_ready(self) -> bool:
        return not await self.is_ready()

    async def census(self) -> dict[str, Any]:
        """What it holds now: tasks by name, channels, followers, rss, clients, redis_connections, files."""
        found: dict[str, Any] = (await self.get("/census")).json()
        return found

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def terminate(self) -> None:
        """Ask it to drain and end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        """Wait for its end; its exit status."""
        assert self._process is not None
        async with asyncio.timeout(30):
            return await self._process.wait()

    def said(self) -> str:
        """What it logged, over all its lives."""
        return self.log.read_text(errors="replace")

    def mistakes(self) -> list[str]:
        """The lines of its log that no fault excuses."""
        return [line for line in self.said().splitlines() if any(word in line for word in BAD_WORDS)]
