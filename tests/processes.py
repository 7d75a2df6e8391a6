"""Other processes as tests see them: whether one still runs, and which belong together."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def running(pid: int) -> bool:
    """Whether that process exists and is more than a zombie that nobody has waited for yet."""
    try:
        os.kill(pid, 0)
        return not _PROC.is_dir() or _state(pid) != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _state(pid: int) -> str:
    # The command's name stands in parentheses and may hold any character.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
