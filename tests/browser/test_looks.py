"""The page for all who use it: by keyboard, on a phone, in the dark, and while they read further up."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

import bridge
from bridge.cli.demo.works import TYPED
from tests.browser.places import Demo
from tests.browser.windows import CONTRASTS, UNKNOWN, Windows, left, right
from tests.tasks import begun
from tests.waiting import eventually

pytestmark = pytest.mark.needs("chromium")

FOCUSED = """() => {
    const one = document.activeElement, style = getComputedStyle(one);
    return {
        name: one.id || one.dataset.kind || one.textContent.trim().split("\\n")[0] || one.className,
        seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    };
}"""
AT_REST = """async (one) => {
    const frame = () => new Promise(requestAnimationFrame);
    for (let last = -1, same = 0; same < 5; last = one.scrollTop) {
        await frame();
        same = one.scrollTop === last ? same + 1 : 0;
    }
    return one.scrollTop;
}"""
"""Where it has scrolled to, as soon as it doesn't move any more."""
LINES = "".join(f"line {number}\n" for number in range(200))


def show_a_task(page: Page, demo: Demo, windows: Windows, task_id: str) -> None:
    """Have a task under way on the page, with something of everything."""
    with begun(task_id) as task:
        task.report_progress(0.4, message="reading the second of five sources, which takes a while")
        task.report_progress(name="sources", value=["https://example.com/a-rather-long-address?" + "x" * 300])
        task.report_progress(TYPED + "w" * 300)
        page.goto(f"{demo.url}/?task={task_id}")
        left(page).shows(TYPED + "w" * 300)
        right(page).shows(TYPED + "w" * 300)
        page.locator("#stream .more summary").click()
        page.locator("#stream .log summary").click()
        task.fail("too_long", "The answer has a word of 300 letters: " + "w" * 300)
    left(page).ends("failed")


def overflow(page: Page) -> int:
    """By how many pixels the page, or a text in it, is wider than there is room."""
    wider: int = page.evaluate("""() => Math.max(
        document.documentElement.scrollWidth - innerWidth,
        ...[...document.querySelectorAll(".box, .log ol, .more dl")]
            .map((one) => one.scrollWidth - one.clientWidth),
    )""")
    return wider


def tab_to(page: Page, name: str) -> None:
    """Press Tab until this has the focus; all on the way must show that they have it."""
    for _ in range(30):
        page.keyboard.press("Tab")
        focused: dict[str, Any] = page.evaluate(FOCUSED)
        assert focused["seen"], f"{focused['name']} doesn't show that it has the focus"
        if focused["name"] == name:
            return
    raise AssertionError(f"Tab doesn't lead to {name}")


def test_everything_by_keyboard(windows: Windows, demo: Demo) -> None:
    """With Tab, Enter and Space alone one opens a task, starts one, stops it and looks at the log; the focus
    is always seen, and stays on a button that can't be pressed any more.
    """
    page = windows.open(demo.url)
    page.locator("#kinds button").first.wait_for()
    windows.expect(UNKNOWN)
    tab_to(page, "task")
    page.keyboard.type("job-none")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?task=job-none")
    tab_to(page, "typed")
    page.keyboard.press("Space")
    page.wait_for_url("**/?task=typed-*")
    eventually(lambda: left(page).text)
    assert page.evaluate(FOCUSED)["name"] == "typed"
    windows.shot(page, "keyboard")
    tab_to(page, "stop")
    page.keyboard.press("Enter")
    left(page).ends("cancelled")
    assert page.evaluate(FOCUSED)["name"] == "stop"
    eventually(lambda: page.locator("#stop").get_attribute("aria-disabled") == "true")
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.matches('#stream .log summary')"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#stream .log").evaluate("one => one.open")


def test_a_phone(windows: Windows, demo: Demo) -> None:
    """At 360 pixels nothing is cut off or needs scrolling sideways, however long ids, words and lines are."""
    page = windows.context(
        viewport={"width": 360, "height": 740}, device_scale_factor=2, is_mobile=True, has_touch=True
    ).new_page()
    page.goto(demo.url)
    page.locator("#kinds button").first.wait_for()
    assert overflow(page) == 0
    windows.shot(page, "phone-empty")
    show_a_task(page, demo, windows, "job-phone")
    assert overflow(page) == 0
    windows.shot(page, "phone")
    hole: float = page.evaluate("""() =>
        document.querySelector(".clients").getBoundingClientRect().top
        - document.querySelector(".actions").getBoundingClientRect().bottom""")
    height: float = page.locator("#stream .numbers").evaluate("one => one.getBoundingClientRect().height")
    assert height < 60, "each number has its name on one line"
    assert hole < 36, "what is said below the buttons has its line, but no more"
    windows.expect(UNKNOWN)
    page.goto(f"{demo.url}/?task={'x' * 200}")
    eventually(lambda: "Connected" in left(page).link)
    assert overflow(page) == 0
    small: list[str] = page.evaluate("""() => [...document.querySelectorAll("button")]
        .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 36)
        .map((one) => one.textContent)""")
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(windows: Windows, demo: Demo, scheme: str) -> None:
    """The page looks as the system wants it, and all text stands out from its ground (WCAG 2.2, AA)."""
    page = windows.context(color_scheme=scheme).new_page()
    page.goto(demo.url)
    page.locator("#kinds button").first.wait_for()
    assert page.evaluate(CONTRASTS) == []
    show_a_task(page, demo, windows, f"job-{scheme}")
    assert overflow(page) == 0
    windows.shot(page, scheme)
    assert page.evaluate(CONTRASTS) == []
    ground = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    dark = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(",")) < 3 * 128
    assert dark == (scheme == "dark")


def test_scrolling_up_is_not_fought(windows: Windows, demo: Demo) -> None:
    """Who reads further up stays there while the text grows; who is at the end, or returns to it, stays at
    the end; and the page around the text doesn't move.
    """
    windows.expect(UNKNOWN)
    page = windows.open(f"{demo.url}/?task=job-scroll")
    box = page.locator("#stream .box")
    at_end = "one => one.scrollHeight - one.scrollTop - one.clientHeight < 2"
    height = "() => document.documentElement.scrollHeight"
    with bridge.task("job-scroll") as task:
        task.report_progress("line")
        left(page).shows("line")
        page.locator("#kinds button").first.wait_for()
        before = page.evaluate(height)
        task.report_progress(LINES)
        left(page).shows("line" + LINES)
        eventually(lambda: box.evaluate(at_end))

        box.hover()
        page.mouse.wheel(0, -400)
        eventually(lambda: not box.evaluate(at_end))
        # The wheel scrolls smoothly.
        there = box.evaluate(AT_REST)
        task.report_progress(LINES)
        left(page).shows("line" + LINES * 2)
        assert box.evaluate(AT_REST) == there

        page.mouse.wheel(0, 100_000)
        eventually(lambda: box.evaluate(at_end))
        task.report_progress("more\n" * 50)
        left(page).shows("line" + LINES * 2 + "more\n" * 50)
        eventually(lambda: box.evaluate(at_end))
        assert page.evaluate(height) == before
