"""`bridge demo` as a process: what it prints, how it ends, and that nothing is left."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from bridge.cli import main
from tests.demos import Demo, running_demo
from tests.processes import descendants, program, running
from tests.servers import free_port
from tests.waiting import eventually

proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def usual_port_taken() -> Iterator[None]:
    """Somebody listens on Redis's usual port, whoever that is."""
    try:
        server = socket.create_server(("127.0.0.1", 6379))
    except OSError:
        yield
    else:
        with server:
            yield


@proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_shows_a_stream_and_leaves_nothing(number: signal.Signals) -> None:
    """The printed curl line shows text at once; when it ends in any way, all it started ends."""
    with program("demo", "--port", "0", "--redis-port", str(free_port())) as process:
        demo = Demo(process)
        command = demo.start("command")
        with httpx.stream("GET", demo.line("curl -N "), timeout=30) as response:
            assert response.status_code == 200
            wanted = (line for line in response.iter_lines() if line.startswith('data: {"text":'))
            assert next(wanted)
        eventually(lambda: demo.status(command)["text"])
        started = descendants(process.pid)
        assert len(started) >= 5  # two workers, a command, the server and the server's supervisor
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        # Nobody orders the ends then: a worker may still see, and say, that its server is gone.
        assert process.returncode == -number
    else:
        assert (process.returncode, stderr) == (0, b"")
    eventually(lambda: not any(running(pid) for pid in started))


def test_it_names_its_page_first() -> None:
    """The first line is the address to open in a browser, and the page is there, below a base path too."""
    with running_demo("--base-path", "/b") as demo:
        assert demo.printed[0] == f"page     {demo.url}/"
        assert demo.url.endswith("/b")
        assert "<!doctype html>" in demo.get("/").text
        assert demo.get("/page.json").json()["demo"]


def test_it_says_what_another_terminal_needs(usual_port_taken: None) -> None:
    """When the usual ports are taken, it takes others and prints the lines that make the rest find them."""
    with program("demo", "--port", "0") as process:
        demo = Demo(process)
        redis_url = demo.line("export BRIDGE_REDIS_URL=")
        gateway_url = demo.line("export BRIDGE_GATEWAY_URL=")
        process.terminate()
        process.communicate(timeout=30)
    assert demo.line("redis    ").split()[0] == redis_url
    assert demo.line("gateway  ") == gateway_url
    assert process.returncode == 0


def test_a_taken_port_is_one_line(taken_port: int) -> None:
    """A port that was asked for and is taken is one line, whether Redis's or the gateway's."""
    for option in ("--port", "--redis-port"):
        others = [] if option == "--redis-port" else ["--redis-port", str(free_port())]
        with program("demo", option, str(taken_port), *others) as process:
            stdout, stderr = process.communicate(timeout=30)
        assert stdout == b""
        assert process.returncode in (1, 2)
        assert str(taken_port) in stderr.decode()
        assert stderr.decode().count("\n") == 1


def test_bad_settings_are_one_line() -> None:
    """A value that can't be is refused before anything is started."""
    result = CliRunner().invoke(main, ["demo", "--base-path", "no-slash"])
    assert result.exit_code == 2
    assert result.stderr.startswith("bridge: --base-path must begin with /")
    assert result.stderr.count("\n") == 1
