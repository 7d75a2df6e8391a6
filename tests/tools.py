"""Programs that some tests start: where they are, and what happens where they aren't.

    @pytest.mark.needs("node", "eventsource")

skips the test where one is missing, with a reason that begins with "needs: NAME". With BRIDGE_CI=1
it fails instead, so that a test that never runs anywhere is noticed.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

JS = Path(__file__).parent / "js"
"""Scripts for node; `make test` installs their packages here."""

SYNAPSE = Path(__file__).parent.parent / ".venv-synapse"
"""A Matrix homeserver, which `make synapse` installs."""

# Daemons live where a normal user's PATH doesn't look, and programs from the lock file in our environment.
_SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", str(Path(sys.executable).parent)]
)
_PROGRAM_NAMES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "chromedriver": ("chromedriver", "chromium.chromedriver"),
    # kubectl has a kustomize inside; Debian 12's is too old to know components.
    "kustomize": ("kustomize", "kubectl"),
}
_FILES = {
    "aimock": (JS / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js",),
    "eventsource": (JS / "node_modules" / "eventsource" / "package.json",),
    # A file that is written when the installation is complete.
    "synapse": (SYNAPSE / ".installed",),
    "react-types": (JS / "node_modules" / "@types" / "react" / "package.json",),
    "typescript": (JS / "node_modules" / "typescript" / "package.json",),
    "yaml": (JS / "node_modules" / "yaml" / "package.json",),
    "nchan": (
        Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
        Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
    ),
}


def find_tool(name: str) -> Path | None:
    """The program, library or npm package of that name, or None."""
    if name == "aimock" and not _node_is_new():
        return None
    if name in _FILES:
        return next((file for file in _FILES[name] if file.exists()), None)
    for program in _PROGRAM_NAMES.get(name, (name,)):
        found = shutil.which(program, path=_SEARCH_PATH)
        if found:
            return Path(found)
    return None


@functools.cache
def _node_is_new() -> bool:
    """Whether node can run aimock, which needs 20.15."""
    node = find_tool("node")
    if node is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in said.strip().lstrip("v").split(".")[:2]) >= (20, 15)


def require_tool(name: str) -> Path:
    """Where the tool is; otherwise the running test is skipped, or fails with BRIDGE_CI=1."""
    return find_tool(name) or _missing(name)


def _missing(name: str) -> NoReturn:
    if os.environ.get("BRIDGE_CI") == "1":
        pytest.fail(f"needs: {name}, and with BRIDGE_CI=1 no test may be skipped for that", pytrace=False)
    pytest.skip(f"needs: {name}")
