"""Lines that people can copy: how to call this program again, and how to watch a task."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """How the program that runs now can be called from the same directory, ready for a shell.

    It need not be on the PATH, and another of its name may be: iproute2 has a `bridge`.
    """
    called = Path(sys.argv[0])
    if called.name != "bridge":
        return f"{shlex.quote(sys.executable)} -m bridge"
    found = shutil.which("bridge")
    if found and Path(found).resolve() == called.resolve():
        return "bridge"
    return shlex.quote(os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called))


def curl(gateway_url: str, task_id: str) -> str:
    """The command that shows a task's stream to anybody."""
    return f"curl -N {shlex.quote(f'{gateway_url}/tasks/{task_id}/events')}"
