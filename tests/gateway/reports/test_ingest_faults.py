"""Reports while something breaks: nothing is lost or said twice, and the worker knows how to go on."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from bridge.events import Reset
from tests.credentials import SECRET, bearer, token
from tests.gateway.reports.reporter import ALLOWED, KEY, LINES, Reporter
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.processes import program
from tests.proxy import proxy
from tests.servers import RedisProcess
from tests.tools import require_tool
from tests.waiting import eventually

LINE = '{"kind":"chunk","text":"%s"}\n'
NEVER: dict[str, Any] = {"audit_seconds": 1000.0, "probe_seconds": 1000.0, "lease_seconds": 3000.0}
"""A gateway that audits and probes only when told to."""


@pytest.fixture
def gateway(redis_url: str) -> Iterator[Running]:
    """A gateway that takes reports."""
    with running(redis_url, report_keys=KEY) as one:
        yield one


def text(gateway: Running) -> str:
    """The main text of the task, as polls see it."""
    return str(gateway.get("/tasks/job-1/status").json().get("text", ""))


def said(answer: dict[str, Any]) -> tuple[int, str, int]:
    """Status, code, and the last number."""
    return answer["status"], answer["error"]["code"], answer["batch"]


# The client


def test_client_that_goes_away_leaves_what_came_whole(gateway: Running) -> None:
    """A line that is cut in the middle is not there, those before it are, and the attempt stays open."""
    worker = Reporter(gateway, attempt="a1")
    with worker.stream(LINES) as sending:
        sending.write(LINE % "one " + LINE % "two " + '{"kind":"chunk"')
        eventually(lambda: text(gateway) == "one two ")
    eventually(lambda: gateway.connections() == 0)
    assert worker.events("three")["state"] == "running"
    assert text(gateway) == "one two three"


def test_silent_body_is_interrupted(redis_url: str) -> None:
    """408 after `report_idle_seconds` without a byte, however long the body took before that."""
    with running(redis_url, report_keys=KEY, request_seconds=0.1) as gateway:
        worker = Reporter(gateway, attempt="a1", batch=1)
        with worker.stream(LINES) as sending:

            def much_is_there() -> bool:
                sending.write(LINE % "word ")
                return len(text(gateway)) > 200

            eventually(much_is_there)
            gateway.change(report_idle_seconds=0.3)
            answer = sending.answer()
        assert said(answer) == (408, "too_slow", 0)
        assert answer["part"] * "word " == text(gateway)


def test_mistake_in_a_line_keeps_what_stands_before(gateway: Running) -> None:
    """400 while the body is still open, with the number of lines that are in the log."""
    worker = Reporter(gateway, attempt="a1", batch=1)
    with worker.stream(LINES) as sending:
        sending.write(LINE % "fine " + "{oops}\n" + LINE % "never ")
        answer = sending.answer()
    assert said(answer) == (400, "bad_event", 0)
    assert (answer["part"], text(gateway)) == (1, "fine ")
    assert worker.events(LINE % "fine " + LINE % "better", LINES)["batch"] == 1
    assert text(gateway) == "fine better"


def test_client_that_sends_on_after_a_refusal_is_cut(redis_url: str) -> None:
    """The answer is written while the body comes; who doesn't stop then is not listened to for ever."""
    with running(redis_url, report_keys=KEY, max_body_bytes=10_000) as gateway:
        with Reporter(gateway, attempt="a1").stream(LINES) as sending:
            sending.write("{oops}\n")
            assert sending.answer()["status"] == 400

            def broken() -> bool:
                try:
                    sending.write("x" * 10_000)
                except OSError:
                    return True
                return False

            eventually(broken)


# Redis


def test_report_waits_for_redis(redis_url: str, expected_errors: list[str]) -> None:
    """While Redis is away nothing is lost: the body waits, and goes on by itself."""
    with proxy(redis_url) as relay, running(relay.url, report_keys=KEY) as gateway:
        with Reporter(gateway, attempt="a1").stream() as sending:
            sending.write("before ")
            eventually(lambda: text(gateway) == "before ")
            relay.refuse()
            relay.cut()
            sending.write("during ")
            eventually(lambda: not gateway.hub.ready)
            relay.refuse(False)
            sending.write("after")
            assert sending.finish()["status"] == 200
        eventually(lambda: text(gateway) == "before during after")


def test_who_reported_finds_it(redis_url: str) -> None:
    """A poll after the answer to a report or a cancel shows it, however late the link is."""
    with (
        proxy(redis_url) as relay,
        running(relay.url, report_keys=KEY, audit_seconds=1000.0, probe_seconds=1000.0) as gateway,
    ):
        worker = Reporter(gateway, attempt="a1")
        worker.events("one ")
        with watch(gateway) as viewer:
            viewer.text_is("one ")
            relay.stall(links=True)
            worker.events("two ")
            assert text(gateway) == "one two "
            worker.events("three")
            assert text(gateway) == "one two three"
            assert gateway.post("/tasks/job-1/cancel").status_code == 200
            assert gateway.get("/tasks/job-1/status").json()["cancel_requested"] is True
            worker.end()
            assert gateway.get("/tasks/job-1/status").json()["state"] == "succeeded"
            relay.flow()
            viewer.to_end()
            assert viewer.view.text == "one two three"


def test_who_announces_an_owner_finds_it(redis_url: str) -> None:
    """The owner's next poll shows a task that began before it was announced, though no event says so."""
    ann, bob = bearer(token(sub="ann")), bearer(token(sub="bob"))
    with running(redis_url, report_keys=KEY, auth="jwt", jwt_keys=SECRET, **NEVER) as gateway:
        Reporter(gateway, attempt="a1").events("of ann")
        status = "/tasks/job-1/status"
        assert gateway.get(status, headers=ann).status_code == 404
        for owner in ("ann", "bob", ""):  # the first counts
            answer = gateway.post("/tasks/job-1", headers=ALLOWED, json={"owner": owner})
            assert answer.status_code == 200
            assert gateway.get(status, headers=ann).json()["text"] == "of ann"
            assert gateway.get(status, headers=bob).status_code == 404


def test_what_was_written_and_is_gone_is_looked_for_once(redis_url: str, redis_client: redis.Redis) -> None:
    """Who polls a task that vanished after a report costs Redis no read each time."""

    def reads() -> int:
        return int(redis_client.info("commandstats")["cmdstat_xrange"]["calls"])

    with proxy(redis_url) as relay, running(relay.url, report_keys=KEY, **NEVER) as gateway:
        Reporter(gateway, attempt="a1").events("one ")
        with watch(gateway) as viewer:
            viewer.text_is("one ")
            relay.stall(links=True)
            before = reads()
            Reporter(gateway, attempt="a1").events("two ")
            redis_client.flushdb()
            for _ in range(5):
                assert gateway.get("/tasks/job-1/status").status_code == 404
            assert reads() == before + 1
            relay.flow()


@pytest.mark.parametrize("deed", ["cut_before", "cut_after"])
@pytest.mark.parametrize("what", ["events", "end"])
def test_call_whose_answer_is_lost_is_applied_once(redis_url: str, deed: Any, what: str) -> None:
    """Not even a worker without numbers finds its text twice: the gateway repeats by name."""
    # A probe of the audit's would go into the trap as well.
    with proxy(redis_url) as relay, running(relay.url, report_keys=KEY, **NEVER) as gateway:
        anybody = Reporter(gateway)
        anybody.events("one ")
        trap = relay.trap(b"EVALSHA", deed, times=1)
        answer = anybody.events("two") if what == "events" else anybody.end()
        assert (answer["status"], trap.sprung) == (200, 1)
        eventually(lambda: text(gateway) == ("one two" if what == "events" else "one "))


def test_redis_that_stays_away_is_told(redis_url: str) -> None:
    """503 with the time to come back and how far the request came; sent again, it goes on from there."""
    settings: dict[str, Any] = {"report_keys": KEY, "outage_wait_seconds": 0.2}
    with proxy(redis_url) as relay, running(relay.url, **settings) as gateway:
        worker = Reporter(gateway, attempt="a1", batch=1)
        with worker.stream() as sending:
            sending.write("before ")
            eventually(lambda: text(gateway) == "before ")
            relay.refuse()
            relay.cut()
            sending.write("during")
            answer = sending.answer()
        assert said(answer) == (503, "redis_away", 0)
        assert (answer["part"], sending.headers["retry-after"]) == (7, "2")
        with running(redis_url, report_keys=KEY) as second:
            other = Reporter(second, attempt="a1", batch=1)
            assert other.events("before during and after")["batch"] == 1
            assert text(second) == "before during and after"
        # Who is stopped while redis-py connects leaves a socket to the garbage collector.
        relay.refuse(False)
        eventually(lambda: gateway.hub.ready)


def test_slow_redis_slows_the_worker(redis_url: str) -> None:
    """Nothing is read while Redis doesn't answer: the body waits at the client, and all of it arrives."""
    with RedisProcess() as server, running(server.url, report_keys=KEY) as gateway:
        with Reporter(gateway, attempt="a1").stream() as sending:
            sending.write("begin ")
            eventually(lambda: text(gateway) == "begin ")
            server.pause()
            written = 0
            stuck = threading.Event()

            def write() -> None:
                nonlocal written
                for _ in range(300):
                    sending.write("x" * 65_536)
                    written += 65_536
                stuck.set()

            writing = threading.Thread(target=write)
            writing.start()
            before = -1

            def stands_still() -> bool:
                nonlocal before
                same, before = written == before, written
                return same and written > 0

            eventually(stands_still)
            assert not stuck.is_set()
            server.resume()
            writing.join(40)
            assert sending.finish()["truncated"] is True
        assert len(text(gateway)) == gateway.gateway.settings.max_task_bytes


def restarted(server: RedisProcess) -> None:
    """The server comes back empty, and with another replication id."""
    server.kill()
    server.start()


def test_redis_that_lost_everything_is_told_as_lost(redis_url: str) -> None:
    """The worker that goes on is told that nothing is there, and sends all again, with the same attempt."""
    with RedisProcess() as server, running(server.url, report_keys=KEY) as gateway:
        worker = Reporter(gateway, attempt="a1")
        worker.events("one ", batch=1)
        worker.events("two ", batch=2)
        restarted(server)
        assert said(worker.events("three", batch=3)) == (409, "lost", 0)
        for number, word in enumerate(("one ", "two ", "three"), 1):
            assert worker.events(word, batch=number)["batch"] == number
        eventually(lambda: text(gateway) == "one two three")


@pytest.mark.parametrize(
    "binary", ["embedded", pytest.param("redis-server", marks=pytest.mark.needs("redis-server"))]
)
def test_redis_that_lost_the_newest_tells_what_is_left(tmp_path: Any, binary: str) -> None:
    """The worker goes on after the last number that is left; readers, who had read on, get a reset and the
    whole, and no id means two texts.
    """
    path = None if binary == "embedded" else require_tool(binary)
    with RedisProcess(data_dir=tmp_path, binary=path) as server:
        with running(server.url, report_keys=KEY) as gateway, watch(gateway) as viewer:
            worker = Reporter(gateway, attempt="a1")
            worker.events("one ", batch=1)
            with server.client() as client:
                client.save()
            worker.events("two ", batch=2)
            viewer.text_is("one two ")
            server.kill()
            server.start()
            assert said(worker.events("four", batch=4)) == (409, "gap", 1)
            for number, word in ((2, "2 "), (3, "3")):
                assert worker.events(word, batch=number)["batch"] == number
            viewer.text_is("one 2 3")
            assert "log_lost" in [event.reason for event in viewer.events if isinstance(event, Reset)]
            texts: dict[Any, bytes] = {}
            for frame in viewer.frames:
                if frame.event == "chunk":
                    assert texts.setdefault(frame.id, frame.data.encode()) == frame.data.encode()


# The gateway


@dataclass(frozen=True)
class Elsewhere:
    """A gateway in a process of its own."""

    address: tuple[str, int]


def test_gateway_that_is_killed_in_the_middle(redis_url: str, gateway: Running) -> None:
    """The same request, sent to another gateway, goes on where the first one stopped: nothing twice, nothing
    lost.
    """
    env = {"BRIDGE_REDIS_URL": redis_url, "BRIDGE_REPORT_KEYS": KEY}
    with program("serve", "--port", "0", env=env) as process:
        assert process.stdout is not None
        found = re.search(rb"http://([\d.]+):(\d+)", process.stdout.readline())
        assert found is not None
        other = Elsewhere((found[1].decode(), int(found[2])))
        body = "".join(LINE % f"{n} " for n in range(100))
        with Reporter(other, attempt="a1", batch=1).stream(LINES) as sending:
            sending.write(body[:700])
            whole = body[:700].count("\n")
            eventually(lambda: text(gateway) == "".join(f"{n} " for n in range(whole)))
            process.send_signal(signal.SIGKILL)
            process.wait()
    answer = Reporter(gateway, attempt="a1").events(body, LINES, batch=1)
    assert (answer["status"], answer["batch"]) == (200, 1)
    assert text(gateway) == "".join(f"{n} " for n in range(100))


def test_gateway_that_goes_away_says_so(redis_url: str) -> None:
    """At SIGTERM an open body is answered 503 with how far it came, and the request is repeated elsewhere."""
    with running(redis_url, report_keys=KEY) as gateway:
        worker = Reporter(gateway, attempt="a1", batch=1)
        with worker.stream() as sending:
            sending.write("before ")
            eventually(lambda: text(gateway) == "before ")
            gateway.begin_to_stop()
            answer = sending.answer()
    assert said(answer) == (503, "going_away", 0)
    assert answer["part"] == 7
    with running(redis_url, report_keys=KEY) as second:
        assert Reporter(second, attempt="a1", batch=1).events("before and after")["batch"] == 1
        assert text(second) == "before and after"


def test_concurrent_repetitions_count_once(redis_url: str, gateway: Running, writer: Writer) -> None:
    """An impatient worker that sends the same batches again and again, through two gateways at once."""
    with running(redis_url, report_keys=KEY) as second:
        wrong: list[dict[str, Any]] = []

        def deliver(where: Running) -> None:
            worker = Reporter(where, attempt="a1")
            for number in range(1, 16):
                answer = worker.events(f"{number} ", batch=number)
                if answer["status"] != 200:
                    wrong.append(answer)

        threads = [threading.Thread(target=deliver, args=(where,)) for where in (gateway, second) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert not wrong
    assert writer.view().text == "".join(f"{number} " for number in range(1, 16))
