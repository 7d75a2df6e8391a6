"""What the figures were measured on: they mean nothing without it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import time
from pathlib import Path
from typing import Final

import redis

import bridge
from benchmarks.processes import ROOT
from benchmarks.senders import ALL, lacks_nchan, nchan_version, nginx_version
from benchmarks.stage import Stage

_TOO_MUCH: Final = 0.05
_PACKAGES: Final = (
    "uvicorn",
    "uvloop",
    "httptools",
    "starlette",
    "redis",
    "hiredis",
    "fastapi",
    "sse-starlette",
)


def describe(stage: Stage) -> list[str]:
    """The machine and the versions, a line each."""
    with redis.Redis.from_url(stage.redis_url) as client:
        server = client.info("server")
    name, version = ("Valkey", server["valkey_version"]) if "valkey_version" in server else (
        "Redis", server["redis_version"]
    )  # fmt: skip
    versions = [f"{package} {found}" for package in _PACKAGES if (found := _version(package))]
    versions.append(f"{name} {version}")
    if not lacks_nchan():
        versions.append(f"nginx {nginx_version()} with Nchan {nchan_version()}")
    lines = [
        f"Machine: {_processor()}, {os.cpu_count()} processors, {_memory()}, Linux {platform.release()}",
        f"Processors: {stage.cores}",
        f"bridge {bridge.__version__}{_commit()}, Python {platform.python_version()}",
        f"With {', '.join(versions)}",
    ]
    lines += [f"Not measured: {one.name}, because {one.lacks()}" for one in ALL if one.lacks()]
    return lines


class Others:
    """How much of the machine others use from now on: what all processors ran, without what this process and
    its children did. The children count once they have ended.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all, self._stolen = _ran()
        self._ours = _ours()

    def __str__(self) -> str:
        """As a line of the page, with a warning where it was too much."""
        ran, stolen = _ran()
        whole = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = max(ran - self._all - (_ours() - self._ours), 0) / whole
        taken = (stolen - self._stolen) / whole
        line = f"Meanwhile others used {others:.0%} of the machine, and its host kept {taken:.0%} for itself"
        if others + taken > _TOO_MUCH:
            return f"{line}. **The machine had other work: these figures are worth little.**"
        return line


def _ran() -> tuple[float, float]:
    """Seconds that all processors ran programs, and that a host machine didn't let them run."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _idle, _waiting, _irq, _softirq, stolen = (int(one) for one in fields[:8])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system) / ticks, stolen / ticks


def _ours() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB"


def _commit() -> str:
    """The commit that is measured, and whether files differ from it; nothing outside of a checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        # What is measured is bridge/; results that wait for a commit change nothing.
        changed = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", "bridge", "benchmarks/*.py"], check=False
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({commit.stdout.strip()}{', with changes' if changed.returncode else ''})"
