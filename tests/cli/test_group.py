"""The command line as a whole: what is loaded when, and how it fails."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import bridge
from bridge.cli import group, main
from bridge.errors import BridgeError, ClientError, InvalidTaskId, SettingsError, StoreUnavailable


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, with more folders to import from first."""
    prelude = f"import sys; sys.path[:0] = {[str(one) for one in path]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, check=False, timeout=60
    )


def test_version() -> None:
    """`--version` says the package's version, which is the installed one."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"bridge {bridge.__version__}\n"
    assert bridge.__version__ == importlib.metadata.version("bridge")


def test_help_lists_every_command() -> None:
    """`--help` shows all commands of the table with a line each."""
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    shown = [line.split() for line in result.output.partition("Commands:")[2].splitlines() if line.strip()]
    assert [words[0] for words in shown if words[0] in group.COMMANDS] == list(group.COMMANDS)
    assert all(len(words) > 1 for words in shown)


def test_a_command_loads_only_its_own_file() -> None:
    """`bridge status` doesn't import a web server."""
    code = """
from bridge.cli import main
try:
    main(["status", "job", "--gateway", "http://127.0.0.1:1"])
finally:
    print("httpx" in sys.modules, {"uvicorn", "starlette"} & set(sys.modules))
"""
    assert python(code).stdout.strip() == "True set()"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_needs_no_extra_but_cli(tmp_path: Path, arguments: list[str]) -> None:
    """A command that lacks its packages is listed with what it needs, among those that work."""
    (tmp_path / "nh3.py").write_text("raise ModuleNotFoundError('No module named nh3', name='nh3')")
    result = python(
        f"sys.argv[1:] = {arguments!r}; import runpy; runpy.run_module('bridge', run_name='__main__')",
        tmp_path,
    )
    lines = [" ".join(line.split()) for line in (result.stdout + result.stderr).splitlines()]
    assert any(line.startswith("serve Run a gateway") for line in lines)
    assert "matrix needs nh3: pip install 'bridge[cli,matrix]'" in lines


@pytest.mark.parametrize(
    ("missing", "arguments", "said"),
    [
        ("click", [], "bridge: the command line needs one more package: pip install 'bridge[cli]'"),
        ("nh3", ["matrix"], "bridge: `bridge matrix` needs nh3: pip install 'bridge[cli,matrix]'"),
        ("httpx", ["status", "job"], "bridge: `bridge status` needs httpx: pip install 'bridge[cli]'"),
    ],
)
def test_a_missing_extra_is_named(tmp_path: Path, missing: str, arguments: list[str], said: str) -> None:
    """Without the `cli` extra there is one line that says what to install."""
    lacking = f"raise ModuleNotFoundError('No module named {missing}', name='{missing}')"
    (tmp_path / f"{missing}.py").write_text(lacking)
    result = python(
        f"sys.argv[1:] = {arguments!r}; import runpy; runpy.run_module('bridge', run_name='__main__')",
        tmp_path,
    )
    assert (result.stdout, result.stderr.strip(), result.returncode) == ("", said, 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BridgeError("it\nbroke"), 1),
        (StoreUnavailable("no Redis"), 1),
        (SettingsError("bad port"), 2),
        (InvalidTaskId("bad id"), 2),
        (ClientError("odd"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error of ours is `bridge: …` on stderr with the exit code of its kind; Ctrl-C says nothing."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(group.LazyGroup, "get_command", lambda *_: failing)
    result = CliRunner().invoke(main, ["status"])
    said = " ".join(str(error).split())
    assert result.stderr == (f"bridge: {said}\n" if said else "")
    assert result.exit_code == code
