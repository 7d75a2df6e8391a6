"""`bridge serve` as a process: what it prints, how it ends, and that nothing is left."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import IO

import httpx
import pytest
from click.testing import CliRunner

from bridge.cli import main
from tests.processes import program
from tests.servers import free_port
from tests.waiting import eventually


def pipe(file: IO[bytes] | None) -> IO[bytes]:
    """One of a process's pipes."""
    assert file is not None
    return file


def first_line(process: subprocess.Popen[bytes]) -> str:
    """What a service says when it is ready."""
    line = pipe(process.stdout).readline().decode()
    assert line, pipe(process.stderr).read().decode()
    return line.rstrip("\n")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_until_a_signal(redis_url: str, number: signal.Signals) -> None:
    """`serve` says in one line where it listens and which Redis it uses, and ends well when told to."""
    hidden = redis_url.replace("redis://", "redis://:secret@")
    arguments = ["--port", "0", "--drain-seconds", "0", "--log-level", "warning"]
    with program("serve", *arguments, env={"BRIDGE_REDIS_URL": hidden}) as process:
        line = first_line(process)
        match = re.fullmatch(r"bridge: gateway at (http://127\.0\.0\.1:\d+) with Redis at (\S+)", line)
        assert match
        assert match[2] == redis_url.replace("redis://", "redis://***@")
        assert httpx.get(match[1] + "/healthz").status_code == 200
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (0, b"")
    assert b"Traceback" not in stderr


def test_serve_without_redis() -> None:
    """`serve` starts and answers without a Redis; flags and the base path count."""
    arguments = ["--port", "0", "--redis-url", f"redis://127.0.0.1:{free_port()}/0", "--base-path", "/b/"]
    with program("serve", *arguments) as process:
        url = first_line(process).split()[3]
        assert url.endswith("/b")
        assert httpx.get(url + "/healthz").status_code == 200
        assert httpx.get(url + "/readyz").status_code == 503
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_serve_embedded() -> None:
    """`serve --embedded` brings its own Redis, and takes it along when it ends."""
    with program("serve", "--port", "0", "--embedded", "--drain-seconds", "0") as process:
        words = first_line(process).split()
        url, redis = words[3], httpx.URL(words[7])
        eventually(lambda: httpx.get(url + "/readyz").status_code == 200)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert redis.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((redis.host, redis.port))


def test_a_port_in_use_is_one_line(taken_port: int) -> None:
    """A port that somebody else has is one line and exit code 2, and nothing is left running."""
    with program("serve", "--port", str(taken_port), "--log-level", "error") as process:
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, process.returncode) == (b"", 2)
    said = stderr.decode()
    assert said.startswith(f"bridge: can't listen on 127.0.0.1:{taken_port}: ")
    assert said.count("\n") == 1


def test_bad_settings_are_one_line() -> None:
    """A value that can't be is refused before anything is started."""
    result = CliRunner().invoke(main, ["serve", "--base-path", "no-slash"])
    assert result.exit_code == 2
    assert result.stderr.startswith("bridge: --base-path must begin with /")
    assert result.stderr.count("\n") == 1


def test_embedded_or_another_redis() -> None:
    """`--embedded` and `--redis-url` contradict each other."""
    result = CliRunner().invoke(main, ["serve", "--embedded", "--redis-url", "redis://127.0.0.1:1/0"])
    assert result.exit_code == 2
    assert "give only one of them" in result.stderr


@pytest.mark.parametrize("given", ["--upstream-status", "--upstream-mapping"])
def test_serve_refuses_to_ask_nobody(given: str) -> None:
    """Options that say how an app is asked need an app."""
    result = CliRunner().invoke(main, ["serve", given, "/jobs/{task_id}"])
    assert result.exit_code == 2
    assert f"{given} says how an app is asked, but --upstream names none." in result.output


def test_serve_says_what_is_misspelt(redis_url: str) -> None:
    """A variable that is nearly a setting's is named, with the one that is meant; others are left alone."""
    near = {"BRIDGE_REDIS_ULR": redis_url, "BRIDGE_SERVICE_HOST": "10.0.0.1", "BRIDGE_REDIS_URL": redis_url}
    with program("serve", "--port", "0", "--drain-seconds", "0", env=near) as process:
        first_line(process)
        process.terminate()
        _, stderr = process.communicate(timeout=30)
    assert b"BRIDGE_REDIS_ULR is no setting and changes nothing; is BRIDGE_REDIS_URL meant?" in stderr
    assert b"BRIDGE_SERVICE_HOST" not in stderr
