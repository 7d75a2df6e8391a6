"""The assistant's page for all who use it: by keyboard, on a small screen, in the dark, while they read."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Page

from tests.browser.windows import CONTRASTS, Windows
from tests.examples.assistant.people import Person
from tests.examples.assistant.screen import EXPECTED, Screen
from tests.examples.assistant.stage import PASSWORD, TEXT, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.needs("chromium", "node", "aimock")

LINES = "".join(f"This is line {number}.\n" for number in range(20))
WIDE = f"{'w' * 200} https://example.com/{'x' * 100}\n"


def test_reading_further_up(assistant: Stage, screen: Screen) -> None:
    """Who has scrolled up stays where they are while the answer goes on, and a button leads to its end."""
    screen.page.set_viewport_size({"width": 700, "height": 400})
    screen.ask(assistant.teach("line\n" * 150, latency=5))
    thread = screen.page.locator("#thread")
    eventually(lambda: thread.evaluate("one => one.scrollTop") > 100)
    thread.evaluate("one => one.scrollTop = 20")
    newest = screen.page.get_by_role("button", name="Newest")
    newest.wait_for()
    screen.settles()
    assert thread.evaluate("one => one.scrollTop") == 20
    newest.click()
    eventually(lambda: thread.evaluate("one => one.scrollHeight - one.scrollTop - one.clientHeight") < 1)
    assert not newest.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_screen(
    assistant: Stage, windows: Windows, visitor: Person, scheme: Literal["light", "dark"]
) -> None:
    """Nothing is wider than the screen or too pale to be read; the list slides over the conversation, and
    Escape puts it away without stopping the answer.
    """
    phone = {"width": 360, "height": 640}
    screen = Screen.open(
        windows, visitor, viewport=phone, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    page = screen.page
    screen.ask(assistant.teach(WIDE + LINES, latency=5))
    screen.shows(210)
    page.get_by_role("button", name="Conversations").click()
    assert screen.focus == "shut"
    assert page.evaluate(CONTRASTS) == []
    windows.shot(page, f"list-{scheme}")
    page.keyboard.press("Escape")
    assert screen.focus == "menu"
    assert screen.settles() == WIDE + LINES
    assert page.evaluate("document.documentElement.scrollWidth") == phone["width"]
    assert page.evaluate("document.querySelector('#thread').scrollWidth") <= phone["width"]
    assert page.evaluate(CONTRASTS) == []
    windows.shot(page, f"small-{scheme}")


def test_all_by_keyboard(assistant: Stage, windows: Windows, visitor: Person) -> None:
    """Logging in, a question of two lines, which an input method's own Enter doesn't send, and logging out,
    after which also Back shows nothing of it.
    """
    windows.expect(r"401 \(Unauthorized\) at http://[^/]+/(me|login)$")
    windows.expect(EXPECTED)
    page = windows.open(assistant.url("web"))
    page.get_by_label("Name").wait_for()
    page.keyboard.type(visitor.name)
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    eventually(lambda: page.locator("#login .bad").text_content())
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    screen = Screen(page)
    eventually(lambda: screen.focus == "question")
    question = assistant.teach(TEXT)
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type(question)
    page.locator("#question").dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert screen.texts == []
    page.keyboard.press("Enter")
    eventually(lambda: screen.settles() == TEXT)
    assert screen.texts[0] == f"First line\n{question}"
    conversation = screen.conversation
    press(page, "new")
    eventually(lambda: screen.texts == [])
    press(page, "logout")
    page.get_by_label("Name").wait_for()
    page.go_back()
    page.get_by_label("Name").wait_for()
    assert page.url.endswith(f"#{conversation}")
    assert "First line" not in page.evaluate("document.documentElement.textContent")


def press(page: Page, button: str) -> None:
    """Go back to a button by keyboard, and press it."""
    while page.evaluate("document.activeElement.id") != button:
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
