"""Polls that are answered at once: the bytes are those of the application, and nobody comes off worse."""

from __future__ import annotations

import re
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from bridge.gateway.at_once import at_once
from bridge.gateway.auth import Visitor
from bridge.gateway.server.protocol import GatewayProtocol
from bridge.gateway.server.quick import Quick
from bridge.settings import Settings
from bridge.tickets import ticket
from tests.credentials import SECRET, TICKET_KEY, bearer, token
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.waiting import DEADLINE_SECONDS, eventually

POLL = "/tasks/job-1/status"
KEYS = Settings(ticket_keys=TICKET_KEY)
APP = "https://app.example"
_DATE = re.compile(rb"\r\ndate: [^\r]+ GMT\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class Wire:
    """A connection that stays open, and every byte of the answers to what is sent over it."""

    def __init__(self, gateway: Running, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(gateway.address)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> bytes:
        """One answer, whole; with nothing left over."""
        self.socket.sendall(request)
        answer = self.next(head_only=request.startswith(b"HEAD "))
        assert self._received == b""
        return answer

    def next(self, *, head_only: bool = False) -> bytes:
        """The next answer to what was sent."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        size = self._received.index(b"\r\n\r\n") + 4
        length = _LENGTH.search(self._received, 0, size)
        status = self._received[9:12]
        if length and status != b"304" and not (head_only and not self._refused()):
            size += int(length[1])
        while len(self._received) < size:
            self._more()
        answer, self._received = self._received[:size], self._received[size:]
        return answer

    def _refused(self) -> bool:
        """Whether it is no answer, but says that there was no request; that has a body in any case."""
        return self._received[13:20] == b"Refused"

    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self.socket.recv(1) == b""

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        assert data, f"closed after {self._received!r}"
        self._received += data


class Ways:
    """A gateway that can be told to answer no poll at once, and that tells how many it did."""

    def __init__(self, gateway: Running) -> None:
        self.gateway = gateway
        self.quick = gateway._server._protocol.quick
        self.at_once = 0
        if self.quick is not None:
            real = self.quick.answer

            def counting(*request: Any) -> Any:
                answer = real(*request)
                self.at_once += answer is not None
                return answer

            gateway.inside(lambda: setattr(self.quick, "answer", counting))

    def ask(self, request: bytes) -> bytes:
        """On a connection of its own, as it comes."""
        with Wire(self.gateway) as wire:
            return wire.ask(request)

    def both(self, request: bytes) -> tuple[bytes, bool]:
        """The answer, which both ways must give alike, and whether it was given at once."""
        before = self.at_once
        mine = self.ask(request)
        with self.usual():
            theirs = self.ask(request)
        assert len(_DATE.findall(mine)) == len(_DATE.findall(theirs)) == 1
        assert _DATE.sub(b"", mine) == _DATE.sub(b"", theirs)
        return mine, self.at_once > before

    @contextmanager
    def usual(self) -> Iterator[None]:
        """For the length of the block polls go the usual way."""
        self._use(None)
        try:
            yield
        finally:
            self._use(self.quick)

    def _use(self, quick: Quick | None) -> None:
        self.gateway.inside(lambda: setattr(self.gateway._server._protocol, "quick", quick))

    def only_connection(self) -> GatewayProtocol:
        """The one connection that is open."""
        connections = self.gateway._server.server_state.connections
        eventually(lambda: self.gateway.connections() == 1)
        (one,) = self.gateway.inside(lambda: set(connections))
        assert isinstance(one, GatewayProtocol)
        return one

    def warm(self, *task_ids: str, headers: Mapping[str, str] | None = None, base: str = "") -> None:
        """Have these tasks in memory, and keep them there: somebody polls them."""
        for task_id in task_ids:
            self.ask(get(f"{base}/tasks/{task_id}/status", headers or {}))


def get(
    path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", host: str = "test"
) -> bytes:
    """A request."""
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


@contextmanager
def ways(redis_url: str, **settings: Any) -> Iterator[Ways]:
    """A gateway whose tasks stay in memory, and aren't doubted, for as long as a test takes: a probe that is
    late because the machine is busy would send polls the long way.
    """
    lasting = {
        "linger_seconds": 1000.0,
        "audit_seconds": 1000.0,
        "probe_seconds": 1000.0,
        "lease_seconds": 3000.0,
    }
    with running(redis_url, **{**lasting, **settings}) as gateway:
        yield Ways(gateway)


@dataclass(frozen=True, slots=True)
class Tasks:
    """One that runs and is ann's, one that has ended and is nobody's."""

    running: str
    ended: str


@pytest.fixture
def tasks(redis_url: str, writer: Writer) -> Iterator[Tasks]:
    """Their positions."""
    writer.create(owner="ann")
    position = writer.open().text("Hello wörld").position
    with Writer(redis_url, "job-2") as other:
        yield Tasks(str(position), str(other.open().end().position))


CASES: list[tuple[str, dict[str, str], int, bool]] = [
    (POLL, {}, 200, True),
    ("/status/job-1", {}, 200, True),
    ("/status?task_id=job-1", {}, 200, True),
    ("/tasks/job-2/status", {}, 200, True),
    (POLL, {"If-None-Match": '"RUNNING"'}, 304, True),
    (POLL, {"if-none-match": 'W/"RUNNING"'}, 304, True),
    (POLL, {"If-None-Match": "RUNNING"}, 304, True),
    ("/tasks/job-2/status", {"If-None-Match": '"ENDED"'}, 304, True),
    ("/tasks/job-2/status", {"If-None-Match": '"1-1"'}, 200, True),
    (POLL, {"If-None-Match": "*"}, 200, True),
    (POLL, {"If-None-Match": '"1-1", "RUNNING"'}, 200, True),
    (POLL, {"If-None-Match": "\xe4"}, 200, True),
    (POLL, {"If-None-Match": '"RUNNING"', "if-none-match": "x"}, 304, True),
    (POLL, {"if-none-match": "x", "If-None-Match": '"RUNNING"'}, 200, True),
    (POLL, {"Origin": APP, "Cookie": "a=b", "Authorization": "Bearer x", "Accept": "*/*"}, 200, True),
    (POLL, {"Connection": "keep-alive", "X-Forwarded-For": "203.0.113.5"}, 200, True),
    (f"{POLL}?ticket=a.b.c", {}, 200, True),
    ("/status?task_id=job-1&ticket=", {}, 200, True),
    # What is not so plain goes the usual way.
    (POLL, {"If-None-Match": '"9999999999999-1"'}, 200, False),
    (f"{POLL}?after=RUNNING", {}, 200, False),
    (f"{POLL}?after=RUNNING", {"If-None-Match": '"RUNNING"'}, 304, False),
    (f"{POLL}?wait=0", {}, 200, False),
    (f"{POLL}?", {}, 200, False),
    (f"{POLL}?x=y", {}, 200, False),
    (f"{POLL}?ticket=a%2Eb", {}, 200, False),
    ("/status?ticket=a&task_id=job-1", {}, 200, False),
    ("/status?task_id=job%2D1", {}, 200, False),
    ("/tasks/job%2d1/status", {}, 200, False),
    (f"{POLL}/", {}, 404, False),
    (f"/{POLL}", {}, 404, False),
    ("/tasks/job-1%2Fstatus", {}, 200, False),
    ("/tasks/nobody/status", {}, 404, False),
    (f"/tasks/{'x' * 201}/status", {}, 400, False),
    ("/status", {}, 400, False),
    ("/status?task_id=", {}, 400, False),
    (POLL, {"Content-Length": "0"}, 200, False),
    (POLL, {"Expect": "100-continue"}, 200, False),
    (POLL, {"Connection": "close"}, 200, False),
    (POLL, {"Upgrade": "h2c", "Connection": "Upgrade"}, 200, False),
]


def test_both_ways_answer_alike(redis_url: str, tasks: Tasks) -> None:
    """Every byte but the date, whatever is asked for; and the plain polls are answered at once."""
    with ways(redis_url) as gateway:
        gateway.warm("job-1", "job-2")
        for path, headers, status, quick in CASES:
            known = {"RUNNING": tasks.running, "ENDED": tasks.ended}

            def told(text: str) -> str:
                return re.sub("RUNNING|ENDED", lambda found: known[found[0]], text)  # noqa: B023 (used at once)

            request = get(told(path), {name: told(value) for name, value in headers.items()})
            answer, at_once = gateway.both(request)
            assert (path, headers, answer[9:12], at_once) == (path, headers, b"%d" % status, quick)


_PATHS = st.one_of(
    st.sampled_from([path for path, *_ in CASES if "wait" not in path]),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(
            ["/tasks/", "/status/", "/status?task_id=", "//tasks/", "/Tasks/", "/tasks/../tasks/"]
        ),
        st.sampled_from(["job-1", "job-2", "job%2D1", "job-1%00", "job-3", "j o b", "", "job-1;x", "jöb"]),
        st.sampled_from(["/status", "", "/", "/events/", "/status/"]),
        st.sampled_from(
            ["", "?", "?ticket=x", "&ticket=x", "?after=0", "?ticket", "?TICKET=x", "#x", "?a=b"]
        ),
    ),
)
_HEADERS = st.lists(
    st.sampled_from(
        [
            ("If-None-Match", '"RUNNING"'), ("If-None-Match", 'W/"ENDED"'), ("If-None-Match", "x"),
            ("If-None-Match", ""), ("IF-NONE-MATCH", '"0-0"'), ("Origin", APP), ("Origin", "null"),
            ("Origin", "https://other.example"), ("origin", ""), ("Connection", "keep-alive"),
            ("Connection", "close"), ("Content-Length", "0"), ("Expect", "100-continue"), ("Expect", "x"),
            ("Upgrade", "websocket"), ("Connection", "upgrade"), ("X-Forwarded-For", "203.0.113.5"),
            ("Authorization", "Bearer x"), ("Cookie", "x=y"), ("Access-Control-Request-Method", "GET"),
            ("Host", "second"), ("Accept", "text/event-stream"),
        ]
    ),
    max_size=4,
)  # fmt: skip
_FIRST = st.sampled_from(
    [("GET", "1.1")] * 6 + [("GET", "1.0"), ("HEAD", "1.1"), ("POST", "1.1"), ("OPTIONS", "1.1")]
)


@pytest.fixture
def with_pages(redis_url: str, tasks: Tasks) -> Iterator[Ways]:
    """A gateway that lets pages of two origins read it, with two tasks in memory."""
    with ways(redis_url, cors_origins=f"{APP} http://localhost:5173") as gateway:
        gateway.warm("job-1", "job-2")
        yield gateway


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=_FIRST, path=_PATHS, headers=_HEADERS, host=st.sampled_from(["test", "evil.example", "[::1]:1"]))
def test_whatever_is_asked_is_answered_alike(
    with_pages: Ways,
    tasks: Tasks,
    first: tuple[str, str],
    path: str,
    headers: list[tuple[str, str]],
    host: str,
) -> None:
    """Methods, versions, paths, queries and headers as they may come, also those that make no sense."""
    method, version = first
    told = "".join(f"{name}: {value}\r\n" for name, value in [("Host", host), *headers])
    request = f"{method} {path} HTTP/{version}\r\n{told}\r\n".encode()
    request = request.replace(b"RUNNING", tasks.running.encode()).replace(b"ENDED", tasks.ended.encode())
    answers = []
    for usual in (False, True):
        with ExitStack() as stack:
            if usual:
                stack.enter_context(with_pages.usual())
            answers.append(_DATE.sub(b"\r\n", with_pages.ask(request)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("origins", "origin", "quick"),
    [
        ("", None, True),
        ("", APP, True),
        (APP, None, True),
        (APP, APP, True),
        (APP, "https://other.example", False),
        (f"{APP} http://localhost:5173", "http://localhost:5173", True),
        ("*", None, True),
        ("*", APP, True),
        ("*", "null", True),
    ],
)
def test_pages_of_other_origins(
    redis_url: str, tasks: Tasks, origins: str, origin: str | None, quick: bool
) -> None:
    """May read it, or not, by the same headers in the same order; also what is refused."""
    headers = {} if origin is None else {"Origin": origin}
    with ways(redis_url, cors_origins=origins, auth="jwt", jwt_keys=SECRET) as gateway:
        gateway.warm("job-1", headers=bearer(token(sub="ann")))
        for who, status in (("ann", b"200"), ("bob", b"404"), ("", b"401")):
            more = bearer(token(sub=who)) if who else {}
            answer, at_once = gateway.both(get(POLL, {**headers, **more}))
            assert (answer[9:12], at_once) == (status, quick)


def test_who_is_let_in_is_let_in_both_ways(redis_url: str, tasks: Tasks) -> None:
    """By ticket, token and cookie; whoever isn't, and whose the task isn't, hears the same."""
    grants: dict[str, Any] = {"tasks": ["job-1"]}
    asks: list[tuple[str, dict[str, str], bytes]] = [
        (f"{POLL}?ticket={ticket('job-1', settings=KEYS)}", {}, b"200"),
        (f"/status?task_id=job-1&ticket={ticket('job-1', settings=KEYS)}", {}, b"200"),
        (f"{POLL}?ticket={ticket('job-2', settings=KEYS)}", {}, b"404"),
        (f"{POLL}?ticket=x", {}, b"401"),
        (POLL, {}, b"401"),
        (POLL, bearer(token(sub="ann")), b"200"),
        (POLL, bearer(token(sub="ann")) | {"If-None-Match": f'"{tasks.running}"'}, b"304"),
        (POLL, bearer(token(sub="bob")) | {"If-None-Match": f'"{tasks.running}"'}, b"404"),
        ("/status/job-2", bearer(token(sub="ann")), b"404"),
        (POLL, bearer(token(bridge=grants)), b"200"),
        (POLL, bearer(token(sub="ann", exp=1)), b"401"),
        (POLL, {"Cookie": f"x=y; s={token(sub='ann')}"}, b"200"),
        (POLL, bearer("x") | {"authorization": f"Bearer {token(sub='ann')}"}, b"401"),
    ]
    keys = {"ticket_keys": TICKET_KEY, "jwt_keys": SECRET, "jwt_cookie": "s"}
    with ways(redis_url, auth="jwt", **keys) as gateway:
        for task_id in ("job-1", "job-2"):
            gateway.warm(task_id, headers=bearer(ticket(task_id, settings=KEYS)))
        for path, headers, status in asks:
            assert gateway.both(get(path, headers)) == (gateway.ask(get(path, headers)), True)
            assert (path, gateway.ask(get(path, headers))[9:12]) == (path, status)


def test_limits_count_alike(redis_url: str, tasks: Tasks) -> None:
    """Who polls too often is refused by the same answer after as many polls, also behind a proxy, and each
    way counts for the other.
    """
    limits: dict[str, Any] = {"polls_per_second": 1, "trusted_proxies": "127.0.0.1"}
    with ways(redis_url, **limits) as gateway:
        gateway.warm("job-1")

        def polls() -> list[bytes]:
            gateway.gateway.stop_windows()
            answers = [
                gateway.ask(get(POLL, {"X-Forwarded-For": address}))
                for address in ["203.0.113.5", "2001:db8::7"] * 6
            ]
            return [_DATE.sub(b"\r\n", answer) for answer in answers]

        at_once = polls()
        assert gateway.at_once == 12
        with gateway.usual():
            assert polls() == at_once
        assert [answer[9:12] for answer in at_once] == [b"200"] * 8 + [b"429"] * 4
        assert gateway.gateway.gateway.gate.refused["polls_per_second"] == 4


def test_metrics_count_alike(redis_url: str, tasks: Tasks) -> None:
    """By the same name, and status."""
    limits: dict[str, Any] = {"unlimited_addresses": "", "polls_per_second": 1}
    with ways(redis_url, **limits) as gateway:
        gateway.warm("job-1")
        counted = []
        for usual in (False, True):
            one = gateway.gateway.gateway
            gateway.gateway.stop_windows()
            one.counts.answers.clear()
            with ExitStack() as stack:
                if usual:
                    stack.enter_context(gateway.usual())
                for headers in ({}, {"If-None-Match": f'"{tasks.running}"'}) * 3:
                    gateway.ask(get(POLL, headers))
            counted.append(dict(one.counts.answers))
        assert counted == [{("status", 200): 2, ("status", 304): 2, ("status", 429): 2}] * 2


def test_strangers_are_refused_alike(redis_url: str, tasks: Tasks) -> None:
    """A name that may be a stranger's is none of this machine's; with `insecure` any name will do."""
    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        for host, status, quick in [
            ("evil.example", b"421", False), ("localhost:1", b"200", True), ("", b"200", True),
            ("192.0.2.7", b"200", True), ("a.localhost", b"200", True),
        ]:  # fmt: skip
            answer, at_once = gateway.both(get(POLL, host=host))
            assert (answer[9:12], at_once) == (status, quick)
    with ways(redis_url, insecure=True) as gateway:
        gateway.warm("job-1")
        assert gateway.both(get(POLL, host="evil.example"))[1]


def test_below_a_base_path(redis_url: str, tasks: Tasks) -> None:
    """Only there, letter by letter."""
    with ways(redis_url, base_path="/a.b") as gateway:
        gateway.warm("job-1", base="/a.b")
        for base, status, quick in [("/a.b", b"200", True), ("/axb", b"404", False), ("", b"404", False)]:
            answer, at_once = gateway.both(get(base + POLL))
            assert (answer[9:12], at_once) == (status, quick)


@pytest.mark.parametrize(
    "settings",
    [
        {"auth": "forward", "forward_url": "http://127.0.0.1:1/"},
        {"auth": "jwt", "jwt_jwks_url": "http://127.0.0.1:1/", "jwt_algorithms": "RS256"},
        {"upstream": "http://127.0.0.1:1", "upstream_status": "/jobs/{task_id}"},
    ],
)
def test_where_somebody_may_have_to_be_asked(settings: dict[str, Any]) -> None:
    """There is no quick way: nothing waits on it."""
    with running("redis://127.0.0.1:1/0", ready=False, **settings) as gateway:
        assert Ways(gateway).quick is None


def test_what_nobody_may_wait_for() -> None:
    """A coroutine that waits where nothing may is a bug that says so."""

    async def visitor() -> Visitor:
        return Visitor("ann")

    async def wait() -> None:
        await Never()

    class Never:
        def __await__(self) -> Generator[None, None, None]:
            yield

    assert at_once(visitor()).principal == "ann"
    with pytest.raises(RuntimeError, match="waits"):
        at_once(wait())


# --- the connection -----------------------------------------------------------------------------------


def test_one_connection_for_all(redis_url: str, writer: Writer) -> None:
    """Answers at once and others follow each other as they were asked for, and each shows what is then."""
    with ways(redis_url) as gateway, Wire(gateway.gateway) as wire:
        writer.open()
        for number in range(20):
            position = writer.text("x").position
            eventually(lambda: b'"%b"' % str(position).encode() in wire.ask(get(POLL)))  # noqa: B023 (at once)
            tag = {"If-None-Match": f'"{position}"'}
            assert wire.ask(get(POLL, tag)).startswith(b"HTTP/1.1 304 ")
            assert wire.ask(get(f"{POLL}?after={position}", tag)).startswith(b"HTTP/1.1 304 ")
            assert b"x" * (number + 1) in wire.ask(get("/status/job-1"))
        writer.end()
        eventually(lambda: b'"succeeded"' in wire.ask(get(POLL)))
        assert b"retry-after" not in wire.ask(get(POLL))
        assert gateway.at_once > 60


def test_polls_that_are_sent_together(redis_url: str, tasks: Tasks) -> None:
    """Are answered in their order, whichever way; of each read one at once, so that others get a turn."""
    with ways(redis_url) as gateway:
        gateway.warm("job-1", "job-2")
        paths = [
            POLL,
            "/tasks/job-2/status",
            f"{POLL}?wait=0.01",
            "/tasks/nobody/status",
            "/status/job-1",
        ] * 8
        with gateway.usual():
            expected = [_DATE.sub(b"\r\n", gateway.ask(get(path))) for path in paths]
        gateway.at_once = 0
        with Wire(gateway.gateway) as wire:
            wire.socket.sendall(b"".join(get(path) for path in paths))
            assert [_DATE.sub(b"\r\n", wire.next()) for _ in paths] == expected
            assert gateway.at_once <= 2
            assert wire.ask(get(POLL)).startswith(b"HTTP/1.1 200 ")


def test_a_poll_that_comes_in_pieces(redis_url: str, tasks: Tasks) -> None:
    """It is answered when it is whole, and not before; so is one whose beginning came with another."""
    request = get(POLL)
    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        expected = gateway.ask(request)
        with Wire(gateway.gateway) as wire:
            wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for cut in (1, 10, len(request) - 1):
                wire.socket.sendall(request + request[:cut])
                assert _DATE.sub(b"", wire.next()) == _DATE.sub(b"", expected)
                assert _DATE.sub(b"", wire.ask(request[cut:])) == _DATE.sub(b"", expected)


def test_a_poll_behind_a_stream_waits(redis_url: str, writer: Writer) -> None:
    """Nothing is written into an answer that is under way."""
    writer.open()
    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        gateway.at_once = 0
        with watch(gateway.gateway) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            viewer.socket.sendall(get(POLL))
            writer.text("all")
            writer.end()
            viewer.to_end()
            assert viewer.view.text == "all"
            assert gateway.at_once == 0


def test_who_takes_no_answers(redis_url: str, writer: Writer) -> None:
    """Gets no more of them until they are taken, so that they fill no memory; then all, in order."""
    writer.open().text("x" * 200_000)
    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        with Wire(gateway.gateway, receive_buffer=65_536) as wire:
            assert wire.ask(get(POLL))  # so that it isn't another's connection that is looked at
            protocol = gateway.only_connection()
            sent = 0
            # The kernel may take more a little later; the first poll that isn't answered at once has a cycle.
            while not gateway.gateway.inside(lambda: protocol.flow.read_paused):
                assert sent < 200
                before = gateway.at_once
                wire.socket.sendall(get(POLL))
                sent += 1
                eventually(
                    lambda: gateway.at_once > before or protocol.cycle is not None  # noqa: B023 (used at once)
                )
            assert gateway.gateway.inside(lambda: protocol.transport.get_write_buffer_size()) < 500_000
            assert all(wire.next().endswith(b"}") for _ in range(sent))
            before = gateway.at_once
            assert wire.ask(get(POLL)).endswith(b"}")
            assert gateway.at_once > before


def test_an_answer_bears_the_date_of_its_second(redis_url: str, tasks: Tasks) -> None:
    """What the server puts on each answer is kept only as long as the server keeps it."""
    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        quick = gateway.quick
        assert quick is not None
        for date in (b"one", b"two", b"two", b"three"):
            own = [(b"date", date)]
            answer = gateway.gateway.inside(
                lambda: quick.answer(POLL.encode(), [(b"host", b"test")], "127.0.0.1", own)  # noqa: B023
            )
            assert answer is not None
            assert answer[0].startswith(b"HTTP/1.1 200 OK\r\ndate: %b\r\n" % date)


def test_an_old_version_of_http_goes_the_usual_way(redis_url: str, tasks: Tasks) -> None:
    """Its connection is closed after the answer, even where the client would keep it."""
    request = get(POLL, {"Connection": "keep-alive"}).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        answer, at_once = gateway.both(request)
        assert (answer[9:12], at_once) == (b"200", False)
        assert b"\r\nconnection: close\r\n" in answer


def test_an_idle_connection_has_its_time_as_ever(redis_url: str, tasks: Tasks) -> None:
    """After an answer at once the time of keep-alive runs, and stops with the next request."""
    with ways(redis_url) as gateway, Wire(gateway.gateway) as wire:
        gateway.warm("job-1")
        assert wire.ask(get(POLL))
        protocol = gateway.only_connection()
        first = protocol.timeout_keep_alive_task
        assert wire.ask(get(POLL))
        assert first is not None
        assert first.cancelled()
        # It runs from when the answer was written, which its client may have before that step is over.
        second = gateway.gateway.inside(lambda: protocol.timeout_keep_alive_task)
        assert second not in (first, None)


def test_a_draining_gateway_gives_no_answer_at_once(redis_url: str, tasks: Tasks) -> None:
    """Its last answer says `close`."""
    with (
        ways(redis_url, drain_seconds=1000.0) as gateway,
        Wire(gateway.gateway) as wire,
        ExitStack() as stack,
    ):
        viewers = [stack.enter_context(watch(gateway.gateway)).head() for _ in range(2)]
        assert b"connection" not in wire.ask(get(POLL))
        gateway.gateway.begin_to_stop()
        eventually(lambda: gateway.gateway.followers() == len(viewers) - 1)
        assert b"\r\nconnection: close\r\n" in wire.ask(get(POLL))
        assert wire.is_closed()


def test_polls_keep_a_task_in_memory(redis_url: str, tasks: Tasks) -> None:
    """A channel lingers after each of them, whichever way it is answered, but not for who is refused."""
    limits: dict[str, Any] = {"unlimited_addresses": "", "polls_per_second": 1}
    with ways(redis_url, **limits) as gateway:
        gateway.gateway.stop_windows()
        gateway.warm("job-1")
        channel = gateway.gateway.hub.channel("job-1")
        assert channel is not None
        since = [channel.idle_since]
        for _ in range(5):
            gateway.ask(get(POLL))
            since.append(channel.idle_since)
        assert since[0] < since[1] < since[2] < since[3] == since[4] == since[5]


def test_a_mistake_of_ours_costs_only_time(
    redis_url: str, tasks: Tasks, expected_errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks on the quick way is said in the log, and the poll is answered the usual way."""
    expected_errors.append("a poll could not be answered at once")

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with ways(redis_url) as gateway:
        gateway.warm("job-1")
        monkeypatch.setattr(gateway.gateway.hub, "at_hand", broken)
        answer, at_once = gateway.both(get(POLL))
        assert (answer[9:12], at_once) == (b"200", False)


def test_with_a_middleware_of_somebody_s(redis_url: str) -> None:
    """There is no quick way around it."""

    def around(app: ASGIApp) -> ASGIApp:
        return app

    with running(redis_url) as gateway:
        gateway.gateway.user_middleware.append(around)  # type: ignore[arg-type] # only looked at
        assert Quick.of(gateway.gateway) is None
