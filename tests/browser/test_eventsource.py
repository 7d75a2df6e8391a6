"""The browser's own EventSource, on a page of somebody else: no line of our JavaScript is involved."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, Request

import bridge
from tests.browser.windows import NO_NETWORK, Windows
from tests.gateway.running import running
from tests.tasks import begun
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.usefixtures("worker")]

WATCH = """([url, options]) => {
    const seen = [], source = new EventSource(url, options);
    (window.sources ??= []).push(source);
    (window.seen ??= []).push(seen);
    for (const kind of ["state", "chunk", "progress", "data", "reset", "end", "message", "open", "error"])
        source.addEventListener(kind, (event) => seen.push(
            "lastEventId" in event ? [kind, event.data, event.lastEventId] : [kind, source.readyState]));
}"""
CLOSED = ["error", 2]
CONNECTING = ["error", 0]


def watch(page: Page, url: str, **options: Any) -> None:
    """Open another EventSource on that page."""
    page.evaluate(WATCH, [url, options])


def seen(page: Page, number: int = 0) -> list[list[Any]]:
    """What one of them has heard: named events with data and id, and otherwise its readyState."""
    heard: list[list[Any]] = page.evaluate("number => window.seen[number]", number)
    return heard


def text(page: Page) -> str:
    """The text that the first one has heard so far, as a page has to put it together."""
    joined: str = page.evaluate(
        "() => seen[0].filter(([kind]) => kind === 'chunk').map(([, data]) => JSON.parse(data).text).join('')"
    )
    return joined


def requests_to(page: Page, url: str) -> list[Request]:
    """From now on, all requests to that address."""
    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if request.url == url else None)
    return found


def test_named_events_of_another_origin(windows: Windows, redis_url: str, site: str) -> None:
    """A page whose origin is allowed hears every event under its name, and nothing as a plain message."""
    with running(redis_url, cors_origins=site) as gateway:
        page = windows.open(site)
        watch(page, f"{gateway.url}/tasks/job-1/events")
        with bridge.task("job-1") as task:
            task.report_progress(0.5, message="writing")
            task.report_progress(name="sources", value=["a"])
            task.report_progress("Grüße,\n\u2028「世界」 🙂")
            eventually(lambda: text(page) == "Grüße,\n\u2028「世界」 🙂")
        eventually(lambda: seen(page)[-1:] == [CLOSED])
        kinds = [kind for kind, *_ in seen(page)]
    assert kinds == ["open", "state", "progress", "data", "chunk", "end", "error", "error"]


@pytest.mark.parametrize(
    ("allowed", "with_credentials"),
    [("", False), ("https://app.example", False), ("*", True)],
    ids=["no setting", "another one allowed", "credentials under *"],
)
def test_an_origin_that_is_not_allowed(
    windows: Windows, redis_url: str, site: str, allowed: str, with_credentials: bool
) -> None:
    """Without its origin in the list a page gets nothing at all, and with `*` nothing that it asked for with
    the user's cookies.
    """
    windows.expect("blocked by CORS policy")
    windows.expect(r"net::ERR_FAILED at http://127\.0\.0\.1:\d+/tasks/")
    with running(redis_url, cors_origins=allowed) as gateway, begun("job-1") as task:
        task.report_progress("a secret")
        page = windows.open(site)
        watch(page, f"{gateway.url}/tasks/job-1/events", withCredentials=with_credentials)
        eventually(lambda: seen(page) == [CLOSED])
        status = page.evaluate(
            "([url, credentials]) => fetch(url, {credentials}).then(() => 'read', () => 'refused')",
            [f"{gateway.url}/tasks/job-1/status", "include" if with_credentials else "omit"],
        )
    assert status == "refused"


def test_credentials_for_an_origin_that_is_listed(windows: Windows, redis_url: str, site: str) -> None:
    """A page whose very origin is in the list may ask with the user's cookies."""
    with running(redis_url, cors_origins=f"https://app.example {site}") as gateway:
        page = windows.open(site)
        watch(page, f"{gateway.url}/tasks/job-1/events", withCredentials=True)
        with bridge.task("job-1") as task:
            task.report_progress("ours")
        eventually(lambda: seen(page)[-1:] == [CLOSED])
        assert text(page) == "ours"


def test_it_stops_after_the_end(windows: Windows, redis_url: str, site: str) -> None:
    """After the `end` it comes back once, with the end's id, is told 204, and never comes again.

    That it doesn't is seen by another EventSource of the same page, which is cut off again and again: until
    that one has come back four times this one has had the longest time that a gateway here asks for.
    """
    windows.expect(rf"{NO_NETWORK}other/events$")
    with running(redis_url, cors_origins=site) as gateway:
        ended, other = (f"{gateway.url}/tasks/{name}/events" for name in ("ended", "other"))
        page = windows.open(site)
        requests, others = requests_to(page, ended), requests_to(page, other)
        with bridge.task("ended") as task:
            task.report_progress("all")
        watch(page, ended)
        eventually(lambda: seen(page)[-1:] == [CLOSED])
        assert [kind for kind, *_ in seen(page)][-3:] == ["end", "error", "error"]

        watch(page, other)
        for times in range(1, 5):
            # Looking at the page lets Playwright tell of its requests.
            eventually(lambda: seen(page, 1) and len(others) >= times)  # noqa: B023 (called at once)
            eventually(lambda: gateway.followers("other") == 1)
            gateway.inside(lambda: gateway.hub.cut("other"))
        eventually(lambda: seen(page, 1) and len(others) >= 5)
        assert page.evaluate("() => sources[0].readyState") == 2
        assert [answer and answer.status for answer in (each.response() for each in requests)] == [200, 204]
        end = next(one for one in seen(page) if one[0] == "end")
        assert [one.all_headers().get("last-event-id") for one in requests] == [None, end[2]]
        assert seen(page)[-1] == CLOSED


def test_it_comes_back_to_where_it_was(windows: Windows, redis_url: str, site: str) -> None:
    """When its connection is cut in the midst of a task it comes back by itself and misses nothing."""
    windows.expect(rf"{NO_NETWORK}job-1/events$")
    with running(redis_url, cors_origins=site) as gateway, begun("job-1") as task:
        page = windows.open(site)
        watch(page, f"{gateway.url}/tasks/job-1/events")
        task.report_progress("one ")
        eventually(lambda: text(page) == "one ")
        gateway.inside(lambda: gateway.hub.cut("job-1"))
        eventually(lambda: CONNECTING in seen(page))
        task.report_progress("two")
        eventually(lambda: text(page) == "one two")
        assert "reset" not in [kind for kind, *_ in seen(page)]
