"""Worker processes, as a scenario commands them."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.kit.record import Record
from tests.processes import environ

ROOT = Path(__file__).parents[3]
END_SECONDS = 30.0


class WorkerProcess:
    """One process that writes tasks. `file(task_id)` is its record of the task's newest run."""

    def __init__(self, settings: Mapping[str, str], folder: Path, seed: str) -> None:
        self.ended: dict[str, bool] = {}
        """Whether Redis had confirmed the end of a task when its block was left."""
        self.killed = False
        self.written: Counter[str] = Counter()
        """Events of the newest run of each task that were ordered; the last one of a write names it."""
        self._env = environ(**settings)
        self._folder = folder
        self._seed = seed
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._files: dict[str, Path] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log = folder / "stderr"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        self._folder.mkdir()
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.kit.write"),
                cwd=ROOT,
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._reader = asyncio.create_task(self._read(), name="worker's answers")

    async def create(self, task_id: str) -> bool:
        """Announce a task, as the app does; whether Redis has confirmed that."""
        confirmed: bool = await self.order(task_id, "create")
        return confirmed

    async def begin(self, task_id: str) -> None:
        """Begin a run of that task."""
        file = self._folder / f"{task_id}.{next(self._numbers)}.record"
        self._files[task_id] = file
        self.written[task_id] = 0
        await self.order(task_id, "begin", seed=f"{self._seed} {file.name}", file=str(file))

    async def write(self, task_id: str, count: int, **how: Any) -> bool:
        """Report that many events, `every` seconds one; returns when that is done, and what the hook said.

        How: `every`, `size` (words of text), `stamped`.
        """
        self.written[task_id] += count
        answer: bool = await self.order(task_id, "write", count=count, **how)
        return answer

    def writing(self, task_id: str, count: int, **how: Any) -> asyncio.Task[bool]:
        """The same in the background: await what it returns."""
        return asyncio.create_task(self.write(task_id, count, **how))

    async def end(self, task_id: str, state: str = "succeeded") -> bool:
        """End the run; whether Redis has confirmed that."""
        confirmed: bool = await self.order(task_id, "end", state=state)
        self.ended[task_id] = confirmed
        return confirmed

    async def order(self, task_id: str, do: str, **how: Any) -> Any:
        """Give one order, and wait until it is carried out. Raises `ConnectionError` when the worker dies."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"number": number, "do": do, "task": task_id, **how})
        self._process.stdin.write(line.encode() + b"\n")
        return await answer

    def record(self, task_id: str) -> Record:
        """What it has noted of that task's newest run."""
        return Record(task_id, self._files[task_id])

    @property
    def tasks(self) -> list[str]:
        """The tasks that it has begun."""
        return list(self._files)

    def said(self) -> str:
        """What it logged."""
        return self._log.read_text(errors="replace")

    def census(self) -> dict[str, int]:
        """What it holds now: threads and open files, the connection to Redis among them."""
        process = Path("/proc", str(self.pid))
        return {
            "threads": len(list((process / "task").iterdir())),
            "files": len(list((process / "fd").iterdir())),
        }

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, …"""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it at once, as a crash does; orders under way fail."""
        self.killed = True
        self.signal(signal.SIGKILL)
        await self._gone()

    async def abandon(self) -> None:
        """End it somehow, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def stop(self) -> int:
        """Let it end by itself; its exit status. Killed when it doesn't."""
        assert self._process is not None
        assert self._process.stdin is not None
        if self._process.returncode is None:
            self._process.stdin.close()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        return await self._gone()

    async def _gone(self) -> int:
        assert self._process is not None
        assert self._reader is not None
        status = await self._process.wait()
        await self._reader
        return status

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            answer = self._answers.pop(said["number"])
            if not answer.done():
                answer.set_result(said["answer"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the worker is gone"))
                answer.exception()
        self._answers.clear()
