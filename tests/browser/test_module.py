"""`bridge.js` where apps use it: below a path, and on pages of other origins."""

from __future__ import annotations

from typing import Any

import pytest

import bridge
from tests.browser.windows import NO_NETWORK, UNKNOWN, Windows, left, right
from tests.gateway.running import running
from tests.tasks import begun
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.usefixtures("worker")]

FOLLOW = """async ([module, options]) => {
    const { follow } = await import(module);
    window.task = follow("job-1", options);
}"""


@pytest.mark.parametrize(
    ("options", "way"),
    [({}, "eventsource"), ({"headers": {"authorization": "Bearer of good news"}}, "fetch")],
    ids=["without headers", "with a header"],
)
def test_the_module_of_another_origin(
    windows: Windows, redis_url: str, site: str, options: dict[str, Any], way: str
) -> None:
    """A page of an allowed origin imports the module from the gateway, and follows a task there with nothing
    but its id: also when it must send headers, and over a connection that is cut.
    """
    windows.expect(NO_NETWORK)
    with running(redis_url, cors_origins=site) as gateway:
        page = windows.open(site)
        with begun("job-1") as task:
            task.report_progress("one ")
            page.evaluate(FOLLOW, [f"{gateway.url}/bridge.js", options])
            eventually(lambda: page.evaluate("() => task.view.text") == "one ")
            assert page.evaluate("() => task.stats.way") == way
            gateway.inside(lambda: gateway.hub.cut("job-1"))
            task.report_progress("two ")
            eventually(lambda: page.evaluate("() => task.view.text") == "one two ")
            assert page.evaluate("() => task.cancel()")["cancel_requested"]
            eventually(lambda: not task.report_progress("three"))
        view = page.evaluate("() => task.done")
        status = gateway.get("/tasks/job-1/status").json()
        assert view == status
        assert status["state"] == "cancelled"


def test_the_module_of_an_origin_that_does_not_allow_it(windows: Windows, redis_url: str, site: str) -> None:
    """Without the setting the browser refuses to load the module into a page of another origin."""
    windows.expect("blocked by CORS policy")
    windows.expect(r"net::ERR_FAILED at http://127\.0\.0\.1:\d+/bridge\.js$")
    with running(redis_url) as gateway:
        page = windows.open(site)
        said = page.evaluate(
            "(module) => import(module).then(() => 'loaded', String)", f"{gateway.url}/bridge.js"
        )
    assert "TypeError" in said


def test_the_page_below_a_path(windows: Windows, redis_url: str) -> None:
    """With a base path all works below it, and an address without the closing slash leads there."""
    windows.expect(UNKNOWN)
    windows.expect(NO_NETWORK)
    with running(redis_url, base_path="/bridge", page=True) as gateway:
        page = windows.open(f"{gateway.url.removesuffix('/bridge')}/bridge?task=job-1")
        assert page.url.endswith("/bridge/?task=job-1")
        with bridge.task("job-1") as task:
            task.report_progress("below a path")
            left(page).shows("below a path")
        left(page).ends("succeeded")
        right(page).shows("below a path")
        page.locator("#task").fill("job-2")
        page.get_by_role("button", name="Open").click()
        page.wait_for_url("**/bridge/?task=job-2")
        eventually(lambda: "404" in right(page).link or "known" in right(page).link)
        page.go_back()
        left(page).shows("below a path")
