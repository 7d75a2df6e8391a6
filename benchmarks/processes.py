"""Processes that are measured: started where they belong, looked at through the kernel, ended for certain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.cores import pinned

ROOT: Final = Path(__file__).parents[1]
_PATIENCE_SECONDS: Final = 20.0
_PROCESS_CLOCK: Final = 2
"""CPUCLOCK_SCHED of Linux: what all threads of a process have run, in nanoseconds."""
_STILL_SHARE: Final = 0.02


class NotReady(Exception):
    """A process ended, or isn't ready in time."""


def cpu_seconds(pid: int) -> float:
    """What a process has run in all, in user and kernel mode.

    The clock of a process has the number ``~pid << 3 | kind`` (clock_getcpuclockid(3) gives it out); it
    counts nanoseconds, /proc/PID/stat only hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def memory_bytes(pid: int) -> int:
    """A process's own memory: what it has for itself, and its part of what it shares (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        raise NotReady(f"the kernel says nothing of the memory of process {pid}")
    return int(found[1]) * 1024


def children(pid: int) -> list[int]:
    """The processes that it has started and that still run."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def settle(pid: int, seconds: float = 5.0) -> None:
    """Wait until a process has next to nothing to do, at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(0.1)
        if cpu_seconds(pid) - before < _STILL_SHARE * (time.monotonic() - began):
            return


@contextmanager
def running(
    command: Sequence[str], cores: frozenset[int], *, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program on those processors, with a pipe for what it says; killed when the block is left.

    Nothing waits for streams to be drained: whoever is measured has said all by then.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_") and k != "REDIS_URL"}
    with pinned(cores):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**clean, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def python(*arguments: str) -> list[str]:
    """The command of a module of ours, in this Python."""
    return [sys.executable, "-m", *arguments]


def first_line(process: subprocess.Popen[bytes]) -> str:
    """What it says when it is ready. Raises `NotReady` when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotReady(f"{process.args!r} ended with {process.wait()} before it was ready")
    return line.decode().strip()
