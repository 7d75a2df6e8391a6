"""The server: how it begins, and how it goes away without hurting those who read."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.errors import SettingsError
from bridge.gateway.server import listen
from bridge.settings import Settings
from tests.gateway.running import Running, running
from tests.gateway.test_stream import big_texts
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import DEADLINE_SECONDS, eventually

GOODBYE = re.compile(rb"retry: \d+\n: this gateway is going away\n\Z")
FOR_EVER = 10_000.0
RUNNER = """
from bridge.gateway.server import serve
from bridge.settings import Settings
serve(Settings.from_env(), ready=lambda url: print(url, flush=True))
"""


class GatewayProcess:
    """A gateway in a process of its own, as an operator runs it."""

    def __init__(self, **settings: Any) -> None:
        names = {f"BRIDGE_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "BRIDGE_PORT": "0", **names},
        )
        assert self.process.stdout is not None
        parts = urlsplit(self.process.stdout.readline().decode().strip())
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = parts.hostname, parts.port

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end; the log must hold no traceback."""
        _, said = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert b"Traceback" not in said, said.decode()
        return self.process.returncode


@contextmanager
def process(**settings: Any) -> Iterator[GatewayProcess]:
    """A gateway process that is ended in any case."""
    one = GatewayProcess(**settings)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def test_sigterm_sends_every_stream_away(redis_url: str, writer: Writer) -> None:
    """Each gets a `retry:` of its own and the reason, and is closed in order; then the process ends well."""
    writer.open()
    writer.text("so far")
    with process(redis_url=redis_url, drain_seconds=0.3) as gateway:
        viewers = [watch(gateway) for _ in range(20)] + [watch(gateway, "unknown")]
        for viewer in viewers[:-1]:
            viewer.text_is("so far")
        viewers[-1].head()
        gateway.signal(signal.SIGTERM)
        for viewer in viewers:
            viewer.to_end().close()
            assert GOODBYE.search(viewer.body)
        assert gateway.exit_code() == 0
    assert len({viewer.body.splitlines()[-2] for viewer in viewers}) > 1


def test_sigint_twice_cuts_the_drain_short(redis_url: str, writer: Writer) -> None:
    """Who presses Ctrl-C a second time doesn't want to wait for the rest of the drain."""
    writer.open()
    with process(redis_url=redis_url, drain_seconds=FOR_EVER) as gateway:
        viewers = [watch(gateway).until(lambda v: len(v.frames) == 1) for _ in range(2)]
        gateway.signal(signal.SIGINT)
        # Of two, one is sent away at once and the other after half of the time.
        eventually(lambda: any(_has_ended(viewer) for viewer in viewers))
        gateway.signal(signal.SIGINT)
        gateway.process.communicate(timeout=DEADLINE_SECONDS)
        for viewer in viewers:
            viewer.close()
    assert gateway.process.returncode == 0


def _has_ended(viewer: Viewer) -> bool:
    viewer.socket.setblocking(False)
    try:
        viewer.until(lambda v: v.closed)
    except BlockingIOError:
        return False
    return True


def test_a_process_without_redis_ends_well() -> None:
    """Redis being away doesn't keep a gateway from going."""
    with process(redis_url="redis://127.0.0.1:1/0", drain_seconds=0.1) as gateway:
        with watch(gateway) as viewer:
            viewer.head()
            gateway.signal(signal.SIGTERM)
            viewer.to_end()
            assert gateway.exit_code() == 0


@contextmanager
def draining(redis_url: str) -> Iterator[tuple[Running, http.client.HTTPConnection, list[Viewer]]]:
    """A gateway in the midst of a drain that would last for ever, a connection from before, and two streams
    of which one was sent away already.
    """
    with running(redis_url, drain_seconds=FOR_EVER) as gateway:
        connection = http.client.HTTPConnection(*gateway.address, timeout=DEADLINE_SECONDS)
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b'{"status":"ready"}'
        viewers = [watch(gateway).head() for _ in range(2)]
        eventually(lambda: gateway.followers() == 2)
        gateway.begin_to_stop()
        eventually(lambda: gateway.followers() == 1)
        try:
            yield gateway, connection, viewers
        finally:
            connection.close()
            for viewer in viewers:
                viewer.close()


def test_a_draining_gateway_is_not_ready(redis_url: str) -> None:
    """Those who still have a connection are told so; new connections are refused."""
    with draining(redis_url) as (gateway, connection, _):
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert (answer.status, b'"draining"' in answer.read()) == (503, True)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(gateway.address)


def test_a_draining_gateway_is_alive(redis_url: str) -> None:
    """Nobody needs to kill it."""
    with draining(redis_url) as (_, connection, _viewers):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:15]) == (200, b'{"status":"ok",')


def test_a_draining_gateway_gives_one_last_answer_per_connection(redis_url: str) -> None:
    """A client that comes back must not do so over the same connection: it would meet the same gateway."""
    with draining(redis_url) as (gateway, connection, _):
        eventually(lambda: gateway.connections() == 2)  # the stream that still waits, and the idle one
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        assert answer.getheader("connection") == "close"
        eventually(lambda: gateway.connections() == 1)


def test_a_draining_gateway_accepts_no_stream(redis_url: str) -> None:
    """A stream on a connection from before is answered with 200, `retry:` and the reason, and closed."""
    with draining(redis_url) as (_, connection, _viewers):
        connection.request("GET", "/tasks/job-1/events")
        answer = connection.getresponse()
        assert answer.status == 200
        assert GOODBYE.match(answer.read())


def test_a_draining_gateway_lets_no_poll_wait(redis_url: str, writer: Writer) -> None:
    """Polls are still served, but at once."""
    writer.open()
    with draining(redis_url) as (_, connection, _viewers):
        connection.request("GET", "/tasks/job-1/status?wait=60")
        answer = connection.getresponse()
        assert (answer.status, b'"running"' in answer.read()) == (200, True)


def test_a_drain_does_not_wait_when_all_are_gone(redis_url: str) -> None:
    """However long it may last: when the last stream has left, the gateway ends."""
    with draining(redis_url) as (_, _, viewers):
        for viewer in viewers:
            viewer.close()


def test_a_waiting_poll_is_answered_by_the_drain(redis_url: str, writer: Writer) -> None:
    """A long poll gets what there is instead of an error."""
    position = writer.open().text("a").position
    with running(redis_url) as gateway:
        with Viewer(gateway, f"/tasks/job-1/status?wait=60&after={position}") as poll:
            eventually(lambda: gateway.followers() == 1)
            gateway.begin_to_stop()
            poll.to_end()
            assert poll.status == 200


def test_a_client_that_takes_nothing_does_not_hold_the_drain_up(redis_url: str, writer: Writer) -> None:
    """It can't even take its last words, so it is cut off; nothing of it is left."""
    writer.open()
    with running(redis_url, stall_timeout_seconds=FOR_EVER) as gateway:
        with watch(gateway, receive_buffer=4096) as stuck:
            stuck.until(lambda v: len(v.frames) == 1)
            big_texts(writer)
            gateway.begin_to_stop()
            eventually(lambda: not gateway.alive)


def test_a_port_in_use_is_a_setting_that_is_wrong() -> None:
    """The error names the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"can't listen on 127.0.0.1:{port}: Address already in use"):
            listen(Settings(port=port))


def test_a_gateway_without_any_request_ends(redis_url: str) -> None:
    """Begun and ended, with nothing left over."""
    with running(redis_url, drain_seconds=FOR_EVER) as gateway:
        assert gateway.get("/healthz").status_code == 200
