"""`bridge publish` as a process of its own: standard input becomes a task's text as it arrives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest
import redis
from click.testing import CliRunner

from bridge.cli import main
from bridge.events import Chunk
from bridge.settings import Settings
from tests.processes import environ, program
from tests.servers import free_port
from tests.waiting import eventually
from tests.worker.logs import call, events, read_view


def pipe(file: IO[bytes] | None) -> IO[bytes]:
    """One of a process's pipes."""
    assert file is not None
    return file


def publish(
    url: str, *arguments: str, stdin: int | IO[bytes] = subprocess.PIPE
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """``bridge publish job arguments…``"""
    env = {"BRIDGE_REDIS_URL": url, "BRIDGE_CANCEL_CHECK_SECONDS": "0.05"}
    return program("publish", "job", *arguments, env=env, stdin=stdin, bufsize=0)


def test_text_arrives_as_it_is_written(redis_url: str, redis_client: redis.Redis) -> None:
    """Each piece is in the log before the next is written, with no line end needed; the end is success."""
    with publish(redis_url) as process:
        text = ""
        for piece in ("no line", " end\n", "thrée"):
            pipe(process.stdin).write(piece.encode())
            text += piece
            eventually(lambda text=text: read_view(redis_client, "job").text == text)  # type: ignore[misc]  # bound now
        assert read_view(redis_client, "job").state == "running"
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, stderr, process.returncode) == (b"", b"", 0)
    assert read_view(redis_client, "job").state == "succeeded"
    assert sum(isinstance(event, Chunk) for event in events(redis_client, "job")) == 3


def test_a_closed_standard_input_is_an_empty_one(redis_url: str, redis_client: redis.Redis) -> None:
    """``<&-`` is as ``</dev/null``: a task without text."""
    script = f"exec {sys.executable} -m bridge publish job <&-"
    env = environ(BRIDGE_REDIS_URL=redis_url)
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    view = read_view(redis_client, "job")
    assert (view.text, view.state) == ("", "succeeded")


def test_a_character_cut_in_two(redis_url: str, redis_client: redis.Redis) -> None:
    """Half a character waits for the other half; what is left over at the end is U+FFFD."""
    with publish(redis_url) as process:
        pipe(process.stdin).write(b"a\xe2\x82")
        eventually(lambda: read_view(redis_client, "job").text == "a")
        pipe(process.stdin).write(b"\xac\xe2")
        process.communicate(timeout=30)
    assert read_view(redis_client, "job").text == "a€\ufffd"


def test_a_file(redis_url: str, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Standard input may be a file of any size, and empty."""
    path = tmp_path / "input"
    for text in ("line\n" * 100_000, ""):
        path.write_text(text)
        with path.open("rb") as file, publish(redis_url, "--json", stdin=file) as process:
            stdout, _ = process.communicate(timeout=30)
        assert json.loads(stdout) == {"id": "job", "state": "succeeded", "exit_code": 0}
        assert read_view(redis_client, "job").text == text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_cancel(redis_url: str, redis_client: redis.Redis, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the task as cancelled, with the text so far."""
    with publish(redis_url, "--json") as process:
        pipe(process.stdin).write(b"so far")
        eventually(lambda: read_view(redis_client, "job").text == "so far")
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        stdout, stderr = process.communicate()
    assert json.loads(stdout) == {"id": "job", "state": "cancelled", "exit_code": 128 + number}
    assert stderr == b""
    view = read_view(redis_client, "job")
    assert (view.text, view.state, view.error) == ("so far", "cancelled", None)


def test_a_cancel_through_the_bridge(redis_url: str, redis_client: redis.Redis) -> None:
    """A cancel ends it although nothing more comes from standard input."""
    with publish(redis_url) as process:
        pipe(process.stdin).write(b"so far")
        eventually(lambda: read_view(redis_client, "job").text == "so far")
        call(Settings(redis_url=redis_url), "cancel", "job")
        assert process.wait(30) == 3
        _, stderr = process.communicate()
    assert stderr == b"bridge: task job was cancelled\n"
    assert read_view(redis_client, "job").state == "cancelled"


def test_without_redis() -> None:
    """Redis away: everything is read all the same, so that whoever writes is not blocked, with a warning."""
    env = {
        "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "BRIDGE_CLOSE_TIMEOUT_SECONDS": "0",
    }
    with program("publish", "job", env=env, stdin=subprocess.PIPE) as process:
        stdout, stderr = process.communicate(b"text" * 100_000, timeout=30)
    assert (stdout, process.returncode) == (b"", 0)
    assert b"bridge: the end of task job isn't confirmed" in stderr
    assert b"Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "Missing argument 'ID'"), (["a/b"], "a task id is"), (["job", "--sideways"], "No such option")],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    """What is wrong with the command line is said without reading anything, with exit code 2."""
    result = CliRunner().invoke(main, ["publish", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
