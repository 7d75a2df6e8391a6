"""The page where not everybody may see everything."""

from __future__ import annotations

import pytest

from bridge.settings import Settings
from bridge.tickets import ticket
from tests.browser.windows import NO_NETWORK, Windows, left, right
from tests.credentials import TICKET_KEY
from tests.gateway.running import running
from tests.gateway.writer import Writer
from tests.waiting import eventually

pytestmark = pytest.mark.needs("chromium")

REFUSED = r"401 \(Unauthorized\) at http://[^/]+/tasks/"


@pytest.mark.parametrize("sign", ["#", "&"])
def test_a_ticket_in_the_address_is_used_and_taken_away(redis_url: str, windows: Windows, sign: str) -> None:
    """Both sides show the task, stop works, and the address holds the task only, also for Back."""
    windows.expect(NO_NETWORK)
    text = ticket("job-1", actions=("read", "cancel"), settings=Settings(ticket_keys=TICKET_KEY))
    with (
        running(redis_url, auth="jwt", ticket_keys=TICKET_KEY, page=True) as gateway,
        Writer(redis_url) as writer,
    ):
        writer.open().text("for your eyes")
        asked: list[str] = []
        context = windows.context()
        context.on("request", lambda request: asked.append(request.url))
        page = windows.open(f"{gateway.url}/?task=job-1{sign}ticket={text}", context)
        eventually(lambda: left(page).text == right(page).text == "for your eyes")
        assert page.url == f"{gateway.url}/?task=job-1"
        assert page.evaluate("document.documentElement.outerHTML").find(text) < 0
        page.locator("#stop").click()
        eventually(lambda: writer.renew().cancel_requested)
        # EventSource can't do without; nothing else may have it in its URL.
        named = [url for url in asked if text in url and "/events" not in url]
        assert named == ([] if sign == "#" else [f"{gateway.url}/?task=job-1&ticket={text}"])
        context.close()


def test_without_a_ticket_it_says_that_it_may_not(redis_url: str, windows: Windows) -> None:
    """And shows nothing of the task."""
    windows.expect(REFUSED)
    windows.expect(NO_NETWORK)
    with (
        running(redis_url, auth="jwt", ticket_keys=TICKET_KEY, page=True) as gateway,
        Writer(redis_url) as writer,
    ):
        writer.open().text("for your eyes")
        context = windows.context()
        page = windows.open(f"{gateway.url}/?task=job-1", context)
        eventually(lambda: "Credentials are needed" in left(page).note)
        assert "for your eyes" not in page.evaluate("document.documentElement.outerHTML")
        context.close()
