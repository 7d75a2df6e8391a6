"""What a task says is shown, never run, wherever on the page it stands."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

import pytest
from playwright.sync_api import Page

from bridge.events import Chunk, Data, Progress
from tests.browser.windows import Windows, left, right
from tests.gateway.running import running
from tests.gateway.writer import Writer
from tests.tasks import begun
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.usefixtures("worker")]

PWNED = "window.pwned = (window.pwned || 0) + 1"
ATTACK = (
    f"<script>{PWNED}</script><img src=x onerror='{PWNED}'><svg onload='{PWNED}'></svg>"
    f"</div></body><iframe srcdoc='<script>parent.{PWNED}</script>'></iframe>"
    f'<a href="javascript:{PWNED}">\u202e&lt;b&gt;</a>\x00\x1b[31m<!-- ]]> {{{{7*7}}}} ${{7*7}} </textarea>'
)
"""What was ever run by a page that sets text as HTML, in one text."""
MADE = "script:not([src]), img, svg, iframe, a"


def nothing_ran(page: Page) -> None:
    """No script, and no handler: they would have by the next frame but one."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("() => [window.pwned, {}.polluted]") == [None, None]


def test_scripts_are_shown_and_not_run(windows: Windows, redis_url: str) -> None:
    """Text, other fields, their names, data, result, progress message and error message: all stay text."""
    with running(redis_url, page=True) as gateway:
        with begun("job-1") as task:
            page = windows.open(f"{gateway.url}/?task=job-1")
            task.report_progress(ATTACK)
            task.report_progress(ATTACK, field="reasoning")
            task.report_progress(0.5, message=ATTACK)
            task.report_progress(name="__proto__", value={"__proto__": {"polluted": ATTACK}})
            task.report_progress(name="sources", value=[ATTACK])
            left(page).shows(ATTACK)
            task.fail("attack", ATTACK, result={"html": ATTACK})
        for side in (left(page), right(page)):
            side.ends("failed")
            side.shows(ATTACK)
            assert ATTACK in side.note
            page.locator(f"{side.root} .more summary").click()
            names = page.locator(f"{side.root} .more dt").all_text_contents()
            assert sorted(names) == ["__proto__", "reasoning", "result", "sources"]
            assert page.locator(f"{side.root} .more dd").first.evaluate("one => one.textContent") == ATTACK
            message = page.locator(f"{side.root} .message").evaluate("one => one.textContent")
            assert message == ATTACK
        windows.shot(page, "attack")
        assert page.locator(f"main >> css={MADE}").count() == 0
        nothing_ran(page)


def test_html_and_script_in_every_field(windows: Windows, redis_url: str) -> None:
    """Also where our own workers would write no such thing: names of fields, data and members, codes, usage.
    Live, and by who looks at it when it is over.
    """
    with running(redis_url, page=True) as gateway, Writer(redis_url) as writer:
        writer.open()
        page = windows.open(f"{gateway.url}/?task=job-1")
        writer.append(
            Chunk(ATTACK), Chunk(ATTACK, ATTACK), Progress(0.5, ATTACK), Data(ATTACK, {ATTACK: ATTACK})
        )
        left(page).shows(ATTACK)
        writer.end(
            "failed",
            error={"code": ATTACK, "message": ATTACK},
            result={ATTACK: [ATTACK]},
            usage={ATTACK: ATTACK},
        )
        for one in (page, windows.open(f"{gateway.url}/?task=job-1")):
            for side in (left(one), right(one)):
                side.ends("failed")
                side.shows(ATTACK)
                assert ATTACK in side.note
                one.locator(f"{side.root} .more summary").click()
                assert ATTACK in one.locator(f"{side.root} .more dt").all_text_contents()
            assert one.locator(f"main >> css={MADE}").count() == 0
            nothing_ran(one)


@pytest.mark.parametrize(
    "task_id",
    [
        f"%3Cscript%3E{PWNED}%3C/script%3E",
        "../../healthz%3F",
        "//evil.example/x",
        "https://evil.example/x%23",
        "..",
    ],
    ids=["script", "path", "host", "address", "dots"],
)
def test_an_address_that_is_an_attack(windows: Windows, redis_url: str, task_id: str) -> None:
    """Anything but a task's id in the page's address is shown as text, and said once to be none: neither side
    asks for anything.
    """
    with running(redis_url, page=True) as gateway:
        asked: list[str] = []
        page = windows.context().new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{gateway.url}/?task={task_id}")
        eventually(lambda: "a task id is" in (page.locator("#notice").text_content() or ""))
        assert page.locator("#task").input_value() == unquote_plus(task_id)
        windows.shot(page, "not-an-id")
        assert page.evaluate("() => window.pwned") is None
    known = re.compile(rf"{gateway.url}/(\?.*|page\.(css|js|svg|json)|bridge\.js)")
    assert [url for url in asked if not known.fullmatch(url)] == []
