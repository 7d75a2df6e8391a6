"""Other processes as tests see them: our own program, whether one still runs, who descends from whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


def environ(**more: str) -> dict[str, str]:
    """This process's environment without any setting of the bridge, but for those given."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_") and k != "REDIS_URL"}
    return {**clean, **more}


@contextmanager
def program(
    *arguments: str, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """``bridge arguments…`` as a process of its own, with pipes; it is killed if it outlives the block."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "bridge", *arguments]
    with subprocess.Popen(command, env=environ(**(env or {})), **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def running(pid: int) -> bool:
    """Whether that process exists and is more than a zombie that nobody has waited for yet."""
    try:
        os.kill(pid, 0)
        return not _PROC.is_dir() or _stat(pid)[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def descendants(pid: int) -> set[int]:
    """All processes that this one started, and that those did. Needs ``/proc``."""
    parents: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
        except (FileNotFoundError, ProcessLookupError):
            pass  # it ended while we looked
    found: set[int] = set()
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown}
        found |= grown
    return found


def command_line(pid: int) -> bytes:
    """What a process was started with, as everybody on the machine may read it. Needs ``/proc``."""
    return (_PROC / str(pid) / "cmdline").read_bytes()


def _stat(pid: int) -> list[str]:
    # State, parent, …; the command's name before them stands in parentheses and may hold any character.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
