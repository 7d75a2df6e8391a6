"""Promises of the files around the code."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import bridge
from tests.tools import JS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def requirements() -> list[str]:
    """The lock's entries, each with its continuation lines."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", LOCK, flags=re.MULTILINE).strip())
    assert len(entries) > 20
    return entries


def test_the_changelog_tells_about_this_version() -> None:
    """Whoever installs this version finds in the changelog what it brings."""
    assert re.search(
        rf"^## .*{re.escape(bridge.__version__)}", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_every_link_between_pages_leads_somewhere() -> None:
    """Whoever follows a link finds the file, and in it the heading."""
    pages = [
        page for folder in ("", "docs/", "examples/*/", "benchmarks/") for page in ROOT.glob(f"{folder}*.md")
    ]
    assert len(pages) > 15
    for page in pages:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\((?![a-z]+:)(\S+?)\)", prose):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {link}"
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor else []
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, f"{page.name}: {link}"


def test_the_version_is_the_same_everywhere() -> None:
    """The package, its metadata and the project file agree."""
    assert bridge.__version__ == PROJECT["version"] == importlib.metadata.version("bridge")


def test_every_requirement_is_pinned_with_a_hash() -> None:
    """An installation from the lock gets the same bytes, today and next year."""
    for entry in requirements():
        assert re.match(r"[a-z0-9._-]+==\S+( ; .*)? \\\n", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_locks_name_no_host() -> None:
    """The locks hold for every mirror: the hashes are what is trusted."""
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", LOCK)
    packages = json.loads((JS / "package-lock.json").read_text())["packages"]
    installed = {name: entry for name, entry in packages.items() if name}
    assert installed
    for name, entry in installed.items():
        assert "resolved" not in entry, name
        assert entry["integrity"].startswith("sha512-"), name


def test_the_lock_holds_every_dependency() -> None:
    """A dependency added to pyproject.toml without `make lock` is noticed here, not on a fresh machine."""
    pinned = {entry.partition("==")[0] for entry in requirements()}
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(name for extra in extras for name in extra), *groups["dev"]]
    names = {re.split(r"[\[<>=;~! ]", each)[0].lower() for each in wanted} - {"bridge"}
    assert names <= pinned


def test_the_benchmarks_measure_what_the_lock_holds() -> None:
    """What `make bench` installs is pinned with hashes, names no host, and is of the same versions."""
    text = (ROOT / "benchmarks" / "requirements.txt").read_text()
    assert "://" not in text
    pins = re.findall(r"^([a-z0-9._-]+==\S+)(?: ; .*)? \\\n +--hash=sha256:", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    locked = {entry.partition("==")[0] for entry in requirements()}
    assert [pin for pin in pins if pin.partition("==")[0] in locked and f"{pin} " not in LOCK] == []


def test_all_is_every_other_extra() -> None:
    """`bridge[all]` leaves out nothing that can live in one environment."""
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("bridge[").removesuffix("]").split(","))
    assert named == set(extras) - {"all"}


def test_make_alone_prints_every_target() -> None:
    """`make` explains itself: no target is hidden, and none is promised that isn't there."""
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^  make (\S+)", made(), re.MULTILINE)) == targets


@pytest.mark.parametrize(
    ("arguments", "processes"),
    [([], 3), (["ARGS=-k merge -x"], 0), (["WORKERS=2"], 2), (["WORKERS=2", "ARGS=-x"], 2)],
)
def test_make_test_shares_all_tests_and_runs_a_choice_in_one_process(
    arguments: list[str], processes: int
) -> None:
    """Unless it is told how many processes there shall be."""
    assert f"pytest --numprocesses {processes} " in made("--dry-run", "test", *arguments)


def made(*arguments: str) -> str:
    """What `make` prints in this checkout."""
    # A make that runs these tests would hand its own options and targets down.
    own = ("MAKE", "MFLAGS", "ARGS", "WORKERS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_wheel_holds_everything_that_is_not_python(tmp_path: Path) -> None:
    """Scripts, the type marker and web files are in the wheel, as they are in the checkout."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    # While a module is first imported somewhere, its compiled form has a name that only begins with .pyc.
    files = [path for path in (ROOT / "bridge").rglob("*") if path.parent.name != "__pycache__"]
    assert {str(path.relative_to(ROOT)) for path in files if path.is_file()} <= packed


def test_ci_runs_the_checks_and_the_tests() -> None:
    """The script is executable, sound bash, and lets no test skip for want of a tool."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "make check" in text
    assert "BRIDGE_CI=1" in text
