"""What is promised of `bridge.js` as a file: plain, safe, small, typed, and tested in its own language."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

import bridge
from tests.tools import JS, require_tool

WEB = Path(bridge.__file__).parent / "web"
MODULE = WEB / "bridge.js"
TYPES = WEB / "bridge.d.ts"


def node(*arguments: str) -> str:
    """Run node on the scripts of these tests; what it prints. Fails with what it says when it fails."""
    done = subprocess.run(
        [str(require_tool("node")), *arguments], cwd=JS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs("node", "eventsource", "yaml")
@pytest.mark.parametrize("script", sorted(path.name for path in JS.glob("*.test.js")))
def test_its_own_tests(script: str) -> None:
    """The tests that are written in JavaScript pass, and there are some."""
    said = node("--test", "--test-reporter=tap", script)
    counts = {name: int(number) for name, number in re.findall(r"^# (pass|skipped|todo) (\d+)$", said, re.M)}
    assert counts["pass"] > 5
    assert counts["skipped"] == counts["todo"] == 0


@pytest.mark.needs("node")
def test_it_is_a_plain_module() -> None:
    """Node reads it as it is, and it loads nothing else."""
    node("--check", str(MODULE))
    code = MODULE.read_text()
    assert not re.search(r"^\s*import\b|\brequire\(|\bimport\(", code, re.M)


@pytest.mark.parametrize(
    "danger", ["eval(", "Function(", "innerHTML", "outerHTML", "document.write", "localStorage"]
)
def test_it_does_nothing_dangerous(danger: str) -> None:
    """What comes from a task is neither run nor made markup of, and nothing is kept."""
    assert danger not in MODULE.read_text()


def test_it_is_small() -> None:
    """On the wire it is no more than a picture, comments and all."""
    assert len(gzip.compress(MODULE.read_bytes())) < 16 * 1024


@pytest.mark.needs("node")
def test_the_types_name_what_there_is() -> None:
    """The module and its types export the same values."""
    typed = re.findall(r"^export (?:class|function|const) (\w+)", TYPES.read_text(), re.M)
    code = f"import({json.dumps(MODULE.as_uri())}).then((m) => console.log(JSON.stringify(Object.keys(m))))"
    assert sorted(typed) == sorted(json.loads(node("--eval", code)))


@pytest.mark.needs("node", "typescript", "react-types")
def test_the_types_fit_their_use() -> None:
    """A strict compiler accepts what we tell people to write, and refuses what can't work."""
    node("node_modules/typescript/bin/tsc", "--project", ".")
