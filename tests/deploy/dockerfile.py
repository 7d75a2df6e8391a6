"""The Dockerfile read as far as we write such files, and its first stage carried out without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.rendering import DEPLOY
from tests.processes import environ
from tests.tools import require_tool

FILE = DEPLOY / "Dockerfile"
ROOT = DEPLOY.parent


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: ``COPY`` and what stands after it, in one line."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Those of a shell's form, or those of a JSON list."""
        return list(json.loads(self.text)) if self.text.startswith("[") else self.text.split()


def stages() -> list[list[Step]]:
    """The instructions, from each FROM to the next."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", FILE.read_text()))
    found: list[list[Step]] = []
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Step(name, rest))
    return found


def build(folder: Path) -> Path:
    """Carry out the first stage below `folder`, with a Python of our version; the path of what it makes.

    Skips the test (with BRIDGE_CI=1 fails it) where no package index can be reached.
    """
    venv.create(folder / "python", with_pip=True)
    work = folder / "src"
    work.mkdir()
    (folder / "opt").mkdir()
    # With pip's settings of this machine, among them its index, and without our own environment.
    env = environ(PATH=f"{folder}/python/bin{os.pathsep}{os.defpath}")
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PIP_REQUIRE_VIRTUALENV"):
        env.pop(name, None)
    reached = False
    for step in stages()[0]:
        if step.name == "COPY":
            *sources, target = step.words
            for source in sources:
                _copy(ROOT / source, work / target / source if target == "./" else work / target)
        elif step.name == "RUN":
            command = re.sub(r"(?<![\w.:/])/(?=dist|opt/bridge|pip\.txt)", f"{folder}/", step.text)
            done = subprocess.run(
                ["/bin/sh", "-c", command], cwd=work, env=env, capture_output=True, text=True, check=False
            )
            if not reached and "No matching distribution" in done.stderr:
                require_tool("a package index")
            reached = True
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return folder / "opt" / "bridge"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
