"""`follow()` of the browser's module, in node, against real gateways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread
from typing import Any

import httpx
import pytest

import bridge
from tests.gateway.running import Running, running
from tests.servers import free_port
from tests.waiting import eventually
from tests.web.following import Fact, page

pytestmark = [pytest.mark.needs("node", "eventsource"), pytest.mark.usefixtures("worker")]

WAYS: dict[str, dict[str, Any]] = {
    "fetch": {},
    "eventsource": {"eventsource": True},
    "long_poll": {"transport": "poll"},
}


def check_end(gateway: Running, end: Fact) -> None:
    """The last view is what `/status` says."""
    assert end["type"] == "done", end
    assert end["view"] == gateway.get("/tasks/job-1/status").json()


def check_growth(texts: list[str]) -> None:
    """Text only ever grew."""
    assert all(after.startswith(before) for before, after in pairwise(texts))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_ends_with_the_same_view(redis_url: str, way: str) -> None:
    """Text is seen while it is written, and the last view is that of `/status`, whatever the task reports."""
    with running(redis_url) as gateway, page(gateway.url, **WAYS[way]) as viewer:
        with bridge.task("job-1") as task:
            task.report_progress("Grüße,\n\u2028「世界」 🙂")
            viewer.until_text("Grüße,\n\u2028「世界」 🙂")
            task.report_progress(0.5, message="half")
            task.report_progress(name="__proto__", value={"__proto__": [1, None, {"a": 0.1}]})
            task.report_progress(name="sources", value=["a", "b"])
            task.report_progress("hm", field="reasoning")
            task.report_progress("\ud800 <script>", field="__proto__")
            task.report_progress(" the end")
            task.succeed(result={"a": [1]}, usage={"tokens": 7})
        end = viewer.end()
        check_end(gateway, end)
        check_growth(viewer.texts())
        assert end["stats"]["way"] == way
        assert end["view"]["data"]["__proto__"] == {"__proto__": [1, None, {"a": 0.1}]}


@pytest.mark.parametrize("way", WAYS)
def test_who_comes_late_gets_it_at_once(redis_url: str, way: str) -> None:
    """A task that is over is one answer, and the process has nothing more to wait for."""
    with running(redis_url) as gateway:
        with bridge.task("job-1") as task:
            task.report_progress("all of it")
        with page(gateway.url, **WAYS[way]) as viewer:
            end = viewer.end()
            check_end(gateway, end)
            assert end["stats"]["requests"] == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_gateway_is_restarted(redis_url: str, way: str) -> None:
    """It comes back to the next gateway and goes on where it was: nothing is lost or comes twice."""
    port = free_port()
    task = bridge.task("job-1").start()
    with ExitStack() as leaving:
        leaving.enter_context(running(redis_url, port=port))
        with page(f"http://127.0.0.1:{port}", **WAYS[way]) as viewer:
            task.report_progress("one ")
            viewer.until_text("one ")
            leaving.close()
            task.report_progress("two ")
            with running(redis_url, port=port) as gateway:
                viewer.until_text("one two ")
                task.report_progress("three")
                task.finish()
                check_end(gateway, viewer.end())
                check_growth(viewer.texts())


@pytest.mark.parametrize("way", WAYS)
def test_a_retry_begins_anew(redis_url: str, way: str) -> None:
    """When another attempt takes over, the text of the one before is taken back."""
    with running(redis_url) as gateway, page(gateway.url, **WAYS[way]) as viewer:
        bridge.task("job-1", bind=False).start().report_progress("of no use")
        viewer.until_text("of no use")
        with bridge.task("job-1") as second:
            second.report_progress("good")
            viewer.until_text("good")
        end = viewer.end()
        check_end(gateway, end)
        assert (end["view"]["attempt"], end["view"]["text"]) == (2, "good")


@pytest.mark.parametrize("way", WAYS)
def test_cancel(redis_url: str, way: str) -> None:
    """The worker is told to stop, and the viewer sees it stop, with what was written so far."""
    with running(redis_url) as gateway, page(gateway.url, **WAYS[way]) as viewer:
        with bridge.task("job-1") as task:
            task.report_progress("so far")
            viewer.until_text("so far")
            viewer.tell("cancel")
            answer = viewer.until(lambda fact: fact["type"] == "answer")["answer"]
            assert answer["cancel_requested"] is True
            eventually(lambda: not task.report_progress(""))
        end = viewer.end()
        check_end(gateway, end)
        assert (end["view"]["state"], end["view"]["text"]) == ("cancelled", "so far")


@pytest.mark.parametrize("way", ["fetch", "eventsource"])
def test_reconnect(redis_url: str, way: str) -> None:
    """A connection that is dropped by hand is resumed behind the last event."""
    with running(redis_url) as gateway, page(gateway.url, **WAYS[way]) as viewer:
        with bridge.task("job-1") as task:
            task.report_progress("one ")
            viewer.until_text("one ")
            viewer.tell("reconnect")
            viewer.until_open(way)
            task.report_progress("two")
            viewer.until_text("one two")
        end = viewer.end()
        check_end(gateway, end)
        assert end["stats"]["connects"] == 2


@pytest.mark.parametrize("way", WAYS)
def test_close_leaves_nothing(redis_url: str, way: str) -> None:
    """Who stops following keeps the view so far and no connection; the task goes on."""
    with running(redis_url) as gateway, bridge.task("job-1") as task:
        with page(gateway.url, **WAYS[way]) as viewer:
            task.report_progress("so far")
            viewer.until_text("so far")
            viewer.tell("close")
            end = viewer.end()
            assert (end["type"], end["view"]["state"], end["view"]["text"]) == ("done", "running", "so far")
            eventually(lambda: gateway.followers("job-1") == 0)
        assert task.report_progress(" and further")


@pytest.mark.parametrize("way", WAYS)
def test_nobody_there(way: str) -> None:
    """A wrong address is said at once."""
    with page(f"http://127.0.0.1:{free_port()}", **WAYS[way]) as viewer:
        end = viewer.end()
        assert (end["type"], end["code"]) == ("failed", "unavailable")


@pytest.mark.parametrize("way", WAYS)
def test_no_gateway(redis_url: str, way: str) -> None:
    """An address at which something else answers is told apart from a task that isn't there yet."""
    with running(redis_url) as gateway, page(f"{gateway.url}/elsewhere", **WAYS[way]) as viewer:
        if way == "long_poll":
            viewer.tell("close")  # a poll can't tell: 404 may be a task that isn't there yet
        end = viewer.end()
        assert way == "long_poll" or (end["code"], end["status"]) == ("not_found", 404)


@contextmanager
def buffering(target: str, *, head_at_once: bool) -> Iterator[str]:
    """A proxy that hands an answer on when it is whole. Its first line may come before."""

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if head_at_once and self.path.endswith("/events"):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
            answer = httpx.get(target + self.path, headers=dict(self.headers), timeout=None)
            if not (head_at_once and self.path.endswith("/events")):
                self.send_response(answer.status_code)
                for name in ("content-type", "retry-after"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
            try:
                self.wfile.write(answer.content)
            except OSError:
                pass  # the page has left

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("way", ["fetch", "eventsource"])
@pytest.mark.parametrize("head_at_once", [False, True], ids=["nothing", "head"])
def test_a_proxy_that_buffers(redis_url: str, way: str, head_at_once: bool) -> None:
    """Where streams are held back, text is seen all the same while it is written: by long polls."""
    with (
        running(redis_url) as gateway,
        buffering(gateway.url, head_at_once=head_at_once) as proxy,
        page(proxy, openSeconds=1, **WAYS[way]) as viewer,
    ):
        with bridge.task("job-1") as task:
            task.report_progress("one ")
            viewer.until_text("one ")
            task.report_progress("two")
            viewer.until_text("one two")
        end = viewer.end()
        check_end(gateway, end)
        assert end["stats"]["way"] == "long_poll"
