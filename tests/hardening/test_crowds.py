"""Many at once: connections that say nothing, streams, polls, and addresses that are made up."""

from __future__ import annotations

import http.client
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from bridge.gateway.limits import WINDOW_SECONDS
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import DEADLINE_SECONDS, eventually

CROWD = 10_000
ELSEWHERE = "127.0.0.2"
"""All of 127.0.0.0/8 is this machine, so an attack and a visitor can have addresses of their own."""


@pytest.fixture
def crowd() -> Iterator[int]:
    """How many connections an attacker makes: ten thousand, or fewer where a process can't hold so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = before[1] if before[1] != resource.RLIM_INFINITY else 20_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, before[0]), before[1]))
    yield min(CROWD, (max(soft, before[0]) - 500) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def visit(gateway: Running, path: str) -> tuple[int, bytes]:
    """A request from elsewhere."""
    source = (ELSEWHERE, 0)
    connection = http.client.HTTPConnection(*gateway.address, timeout=DEADLINE_SECONDS, source_address=source)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def silent(gateway: Running, stack: ExitStack) -> socket.socket | None:
    """A connection that says nothing; None if it was refused while it was made."""
    with suppress(ConnectionError):
        one = socket.create_connection(gateway.address, timeout=DEADLINE_SECONDS)
        return stack.enter_context(one)
    return None


def is_open(one: socket.socket | None) -> bool:
    """Whether the gateway keeps it."""
    if one is None:
        return False
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="127.0.0.2 is an address on Linux only")
def test_10000_connections_from_one_address(redis_url: str, writer: Writer, crowd: int) -> None:
    """All but as many as one address may have are closed at once; meanwhile and afterwards others are served,
    and who had a stream keeps it.
    """
    writer.open().text("before ")
    with (
        # However long the attack takes, none of its connections may end by itself.
        running(
            redis_url, unlimited_addresses="", max_connections_per_address=100, request_seconds=600.0
        ) as gateway,
        watch(gateway) as viewer,
        ExitStack() as stack,
    ):
        viewer.text_is("before ")
        attackers = []
        for number in range(crowd):
            attackers.append(silent(gateway, stack))
            if number % 1000 == 0:
                assert visit(gateway, "/tasks/job-1/status")[0] == 200
        eventually(lambda: sum(map(is_open, attackers)) == 99)
        assert gateway.connections() == 100
        assert visit(gateway, "/tasks/job-1/status")[0] == 200
        writer.text("and after")
        viewer.text_is("before and after")


def test_connections_that_say_nothing_end(redis_url: str, writer: Writer, crowd: int) -> None:
    """However many are let in: after the time that a request may take there are none. Streams are let be."""
    writer.open().text("before ")
    with running(redis_url, request_seconds=0.2) as gateway, watch(gateway) as viewer, ExitStack() as stack:
        viewer.text_is("before ")
        attackers = [silent(gateway, stack) for _ in range(min(crowd, 2000))]
        eventually(lambda: not any(map(is_open, attackers)))
        assert gateway.connections() == 1
        writer.text("and after")
        viewer.text_is("before and after")


def test_connections_in_all(redis_url: str) -> None:
    """Also where no address has a limit of its own; each that ends makes room for another."""
    with running(redis_url, max_connections=10, request_seconds=600.0) as gateway:
        for _ in range(3):
            with ExitStack() as stack:
                some = [silent(gateway, stack) for _ in range(30)]
                eventually(lambda: sum(map(is_open, some)) == 10)  # noqa: B023 (called at once)
            eventually(lambda: gateway.connections() == 0)
        assert gateway.get("/healthz").status_code == 200


def test_a_crowd_behind_a_proxy(redis_url: str, writer: Writer) -> None:
    """The proxy's connections are everybody's, so only what is in them is counted by address."""
    writer.open().text("a")
    with running(
        redis_url, trusted_proxies="127.0.0.1", max_connections_per_address=1, max_streams_per_address=1
    ) as gateway, ExitStack() as stack:  # fmt: skip
        for number in range(50):
            headers = {"X-Forwarded-For": f"198.51.100.{number}"}
            viewer = Viewer(gateway, "/tasks/job-1/events", headers=headers)
            stack.enter_context(viewer).text_is("a")


FORGED = [
    "198.51.100.%d", "198.51.100.%d, 127.0.0.1", "127.0.0.1", "10.0.0.%d", "::1", "unknown", "", ",,,%d",
    "198.51.100.%d:80", "[2001:db8::%d]:80", '"198.51.100.%d"', "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "Client-IP"])
def test_forged_x_forwarded_for(redis_url: str, name: str, forged: str) -> None:
    """Who isn't a proxy has one address, whatever he says it is."""
    with running(redis_url, unlimited_addresses="", polls_per_second=1, ready=False) as gateway:
        statuses = [
            gateway.get("/tasks/nobody/status", headers={name: forged.replace("%d", str(number))}).status_code
            for number in range(WINDOW_SECONDS + 1)
        ]
    assert 429 not in statuses[:-1]
    assert statuses[-1] == 429


@pytest.mark.parametrize("forged", FORGED)
def test_forged_x_forwarded_for_through_a_proxy(redis_url: str, forged: str) -> None:
    """The proxy adds the true address behind what the client made up, in the same header or in another."""
    with running(redis_url, trusted_proxies="127.0.0.1", polls_per_second=1, ready=False) as gateway:
        statuses = []
        for number in range(WINDOW_SECONDS + 1):
            made_up = forged.replace("%d", str(number))
            headers = [("X-Forwarded-For", f"{made_up}, 203.0.113.5")]
            if number % 2:
                headers = [("X-Forwarded-For", made_up), ("X-Forwarded-For", "203.0.113.5")]
            statuses.append(gateway.get("/tasks/nobody/status", headers=headers).status_code)
    assert 429 not in statuses[:-1]
    assert statuses[-1] == 429
