"""The page while the network, the gateway or somebody in between behaves badly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from subprocess import Popen

import pytest

from tests.browser.windows import NO_NETWORK, Windows, disabled, left, right
from tests.client.buffering import buffering
from tests.gateway.running import running
from tests.processes import program
from tests.proxy import proxy
from tests.servers import free_port
from tests.tasks import begun
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.usefixtures("worker", "no_network")]


@pytest.fixture
def no_network(windows: Windows) -> None:
    """Let browsers log what they find out in these tests."""
    windows.expect(NO_NETWORK)


@contextmanager
def gateway_process(port: int, redis_url: str) -> Iterator[Popen[bytes]]:
    """A `bridge serve` that listens."""
    env = {"BRIDGE_PAGE": "on", "BRIDGE_REDIS_URL": redis_url, "BRIDGE_DRAIN_SECONDS": "0.5"}
    with program("serve", "--port", str(port), env=env, stderr=None) as process:
        assert process.stdout is not None
        assert b"gateway at" in process.stdout.readline()
        yield process


def test_the_network_is_gone_for_a_while(windows: Windows, redis_url: str) -> None:
    """A page whose browser was offline in the midst of a task ends with exactly the worker's text."""
    with running(redis_url, page=True) as gateway:
        with begun("job-1") as task:
            page = windows.open(f"{gateway.url}/?task=job-1")
            task.report_progress("before, ")
            left(page).shows("before, ")
            page.context.set_offline(True)
            # That alone lets a stream go on that is open; with a real network it would break, too.
            gateway.inside(lambda: gateway.hub.cut("job-1"))
            eventually(lambda: any(line.startswith("dropped") for line in left(page).log))
            task.report_progress("meanwhile, ")
            eventually(lambda: "No answer" in right(page).link)
            assert left(page).text == "before, "
            windows.shot(page, "offline")
            page.context.set_offline(False)
            left(page).shows("before, meanwhile, ")
            task.report_progress("after")
            left(page).shows("before, meanwhile, after")
        left(page).ends("succeeded")
        right(page).ends("succeeded")
        assert left(page).text == right(page).text == "before, meanwhile, after"
        assert gateway.get("/tasks/job-1/status").json()["text"] == left(page).text


def test_a_connection_that_is_dead_without_a_word(windows: Windows, redis_url: str) -> None:
    """When bytes vanish and nobody closes, as behind a router that forgot, the page finds out by itself."""
    with running(redis_url, page=True) as gateway, proxy(gateway.url) as relay:
        with begun("job-1") as task:
            page = windows.context().new_page()
            page.clock.install()
            page.goto(f"{relay.http}/?task=job-1")
            task.report_progress("one ")
            left(page).shows("one ")
            relay.silence(links=None, way=None)
            task.report_progress("two")
            eventually(lambda: gateway.get("/tasks/job-1/status").json()["text"] == "one two")
            # The page looks after its stream when it was quiet for a while.
            page.clock.fast_forward(20_000)
            # If it looks by a connection that is dead as well it looks again, later.
            eventually(lambda: left(page).text == "one two", timeout=60)
        left(page).ends("succeeded")
        assert left(page).text == "one two"


def test_the_gateway_is_killed_and_restarted(windows: Windows, redis_url: str) -> None:
    """While there is no gateway the page keeps its text and says that it is away; when there is one again, on
    the same port, it goes on behind what it has. So it does after one that ended in order.
    """
    port = free_port()
    with begun("job-1") as task:
        with gateway_process(port, redis_url) as gateway:
            page = windows.open(f"http://127.0.0.1:{port}/?task=job-1")
            task.report_progress("one ")
            left(page).shows("one ")
            gateway.kill()
        eventually(lambda: any(line.startswith("dropped") for line in left(page).log))
        eventually(lambda: "No answer" in right(page).link)
        task.report_progress("two ")
        assert left(page).text == "one "
        eventually(lambda: all(disabled(page, button) for button in ("#stop", "#drop", "#kill")))
        windows.shot(page, "gateway-away")
        with gateway_process(port, redis_url) as gateway:
            left(page).shows("one two ")
            eventually(lambda: not disabled(page, "#stop"))
            gateway.terminate()
            gateway.wait(20)
        task.report_progress("three")
        with gateway_process(port, redis_url):
            left(page).shows("one two three")
            task.finish()
            left(page).ends("succeeded")
            right(page).ends("succeeded")
            assert right(page).text == left(page).text
    assert sum(line.startswith("resumed") for line in left(page).log) == 2


@pytest.mark.parametrize("passes_head", [False, True], ids=["all held back", "the head passes"])
def test_a_proxy_that_buffers(windows: Windows, redis_url: str, passes_head: bool) -> None:
    """Where streams are held back the page asks instead, and its text grows all the same."""
    with (
        running(redis_url, page=True) as gateway,
        buffering(gateway.address, passes_head=passes_head) as between,
        begun("job-1") as task,
    ):
        task.report_progress("one ")
        eventually(lambda: gateway.get("/tasks/job-1/status").json()["text"])
        page = windows.context().new_page()
        page.clock.install()
        page.goto(f"{between.url}/?task=job-1")

        eventually(lambda: left(page).link.startswith("Connected" if passes_head else "Connecting"))
        # The seconds that it gives a stream pass at once here.
        page.clock.fast_forward(5_000)
        left(page).shows("one ")
        task.report_progress("two ")
        left(page).shows("one two ")
        assert left(page).state == "running"
        assert "Connected by long polls" in left(page).link
        assert not disabled(page, "#drop")
        windows.shot(page, "long-polls")
        task.report_progress("three")
        task.finish()
        left(page).ends("succeeded")
        assert left(page).text == "one two three"


def test_more_tabs_than_connections(windows: Windows, redis_url: str) -> None:
    """Browsers keep six connections to a host, and a stream holds one for as long as its task runs. With more
    tabs than that every one still loads, shows what is written while it is written, and can stop its task.
    """
    context = windows.context()
    with running(redis_url, page=True) as gateway:
        with begun("job-1") as task:
            task.report_progress("one ")
            tabs = [windows.open(f"{gateway.url}/?task=job-1", context) for _ in range(7)]
            for tab in tabs:
                left(tab).shows("one ")
            task.report_progress("two ")
            for tab in tabs:
                left(tab).shows("one two ")
                right(tab).shows("one two ")
            ways = [left(tab).link for tab in tabs]
            assert sum("EventSource" in way for way in ways) == 4
            windows.shot(tabs[-1], "seventh-tab")
            tabs[-1].locator("#stop").click()
            eventually(lambda: not task.report_progress("three"))
        for tab in tabs:
            left(tab).ends("cancelled")
            assert left(tab).text == gateway.get("/tasks/job-1/status").json()["text"]


def test_many_tasks_on_one_page(windows: Windows, redis_url: str) -> None:
    """A page may follow more tasks than its browser has connections: all their texts arrive."""
    windows.expect(r"404 \(Not Found\) at http://127\.0\.0\.1:\d+/favicon\.ico$")
    names = [f"job-{number}" for number in range(1, 11)]
    with running(redis_url, page=True) as gateway, ExitStack() as blocks:
        page = windows.open(f"{gateway.url}/page.css")
        tasks = [blocks.enter_context(begun(name, bind=False)) for name in names]
        page.evaluate(
            """async (names) => {
                const { follow } = await import("./bridge.js");
                window.tasks = names.map((name) => follow(name));
            }""",
            names,
        )
        texts = "() => tasks.map((task) => task.view.text)"
        for part in ("one ", "two "):
            for task in tasks:
                task.report_progress(f"{task.id} {part}")
        eventually(lambda: page.evaluate(texts) == [f"{name} one {name} two " for name in names], timeout=20)
        blocks.close()
        states = page.evaluate("() => Promise.all(tasks.map(async (task) => (await task.done).state))")
        assert states == ["succeeded"] * len(names)
