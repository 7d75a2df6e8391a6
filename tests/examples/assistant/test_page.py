"""The assistant's page in a browser, in front of all its real processes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.windows import CONTRASTS, FLAGS, Windows
from tests.examples.assistant.people import Person
from tests.examples.assistant.screen import EXPECTED, RECORD, Screen
from tests.examples.assistant.stage import PASSWORD, TEXT, Stage
from tests.tools import require_tool
from tests.waiting import eventually

pytestmark = pytest.mark.needs("chromium", "node", "aimock")

LONG = "".join(f"This is sentence {number} of an answer that takes its time.\n" for number in range(6))
HOSTILE = (
    """<img src=x onerror="window.pwned = 1"><script>window.pwned = 1</script> &lt;b&gt; **bold** ${1}"""
)
USAGE = {"prompt_tokens": 1234, "completion_tokens": 56}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's own Chromium, without a screen; while it is there no async test can run in this thread."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=require_tool("chromium"), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def windows(browser: Browser, tmp_path: Path) -> Iterator[Windows]:
    """The test's own windows. An error in one that the test didn't expect fails it."""
    windows = Windows(browser, tmp_path)
    yield windows
    errors = windows.close()
    if errors:
        pytest.fail("in the browser:\n" + "\n".join(errors), pytrace=False)


@pytest.fixture(scope="module")
def visitor(assistant: Stage) -> Person:
    """A user for all of these tests, each of which begins a conversation of its own."""
    return assistant.person()


@pytest.fixture
def screen(windows: Windows, visitor: Person) -> Iterator[Screen]:
    """The page in front of the visitor."""
    screen = Screen.open(windows, visitor)
    yield screen
    assert screen.violations == []


def stored(stage: Stage, conversation: int) -> list[str]:
    """The contents of the assistant's messages, from the database itself."""
    question = "SELECT content FROM messages WHERE conversation_id = ? AND role = 'assistant' ORDER BY id"
    with stage.connect() as database:
        return [row[0] for row in database.execute(question, (conversation,))]


def test_an_answer_grows_in_its_bubble(assistant: Stage, screen: Screen) -> None:
    """Dots show until the first text; then it grows in place, with one write per frame at most. Its end is
    asked for once, and what is left is the database's row, with who wrote it and what it took.
    """
    screen.page.evaluate(RECORD)
    profile = {"ttft": 300, "tps": 100}
    question = assistant.teach(response={"content": LONG, "usage": USAGE}, streamingProfile=profile)
    with screen.requests() as requests:
        screen.ask(question)
        assert screen.settles() == LONG
    assert len([url for url in requests if "/check_generation" in url]) == 1
    assert stored(assistant, screen.conversation) == [LONG]
    assert screen.texts == [question, LONG]
    assert screen.meta == "openai · gpt-5-mini · 1,234 tokens in, 56 out"
    steps: list[list[str]] = screen.page.evaluate("steps")
    grown = list(dict.fromkeys(text for _, text in steps if text))
    assert len(grown) >= 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(grown))
    assert {name for name, text in steps if not text} >= {"assistant typing"}
    assert {name for name, text in steps if text} <= {"assistant writing", "assistant typing", "assistant"}
    assert screen.page.evaluate("writes") == 1
    assert screen.focus == "question"
    eventually(lambda: screen.page.locator("#spoken").text_content() == f"The assistant said: {LONG}")


def test_two_answers_at_once(assistant: Stage, screen: Screen, visitor: Person) -> None:
    """Who goes to another conversation meanwhile finds each answer where it belongs, and on the list which
    of them is being written and which is new.
    """
    screen.ask(assistant.teach("first " * 1000, latency=20))
    one = screen.conversation
    screen.shows()
    screen.begin()
    assert screen.texts == []
    screen.ask(assistant.teach("second " * 1000, latency=20))
    two = eventually(lambda: screen.conversation != one and screen.conversation)
    assert ("second " * 1000).startswith(screen.shows(20))
    eventually(lambda: screen.sign(one) == screen.sign(two) == "answering")
    screen.go(one)
    assert ("first " * 1000).startswith(screen.shows(20))
    (running,) = visitor.conversation(two)["running"]
    visitor.cancel(running["task_id"])
    eventually(lambda: (screen.sign(one), screen.sign(two)) == ("answering", "new answer"))
    screen.go(two)
    assert screen.sign(two) == ""
    assert screen.settles().startswith("second ")
    screen.go(one)
    screen.page.keyboard.press("Escape")
    assert screen.settles().startswith("first ")
    assert stored(assistant, one) == [screen.answer]
    screen.go(two)
    assert stored(assistant, two) == [screen.settles()]


@pytest.mark.parametrize("by", ["button", "key"])
def test_an_answer_is_stopped(assistant: Stage, screen: Screen, by: str) -> None:
    """What was written stays, and is marked; the focus stays, and the button sends again."""
    screen.ask(assistant.teach(LONG * 5, latency=20))
    screen.shows(20)
    if by == "button":
        screen.page.get_by_label("Stop").click()
    else:
        screen.page.keyboard.press("Escape")
    eventually(lambda: screen.note == "Stopped. What was written is kept.")
    assert (LONG * 5).startswith(screen.answer)
    assert stored(assistant, screen.conversation) == [screen.answer]
    screen.page.get_by_label("Send").wait_for()
    assert screen.focus == ("go" if by == "button" else "question")


def test_a_reload_in_the_midst(assistant: Stage, screen: Screen) -> None:
    """The page comes back with the conversation and its answer, which goes on."""
    question = assistant.teach(LONG * 10, latency=20)
    screen.ask(question)
    before = screen.shows(60)
    screen.page.reload()
    after = screen.shows(len(before) + 30)
    assert after.startswith(before)
    assert (LONG * 10).startswith(after)
    screen.page.keyboard.press("Escape")
    screen.settles()
    assert screen.texts == [question, *stored(assistant, screen.conversation)]


def test_polling_instead_of_streaming(assistant: Stage, screen: Screen, visitor: Person) -> None:
    """With the switch off nothing is asked of the gateway, and the text so far shows with every poll."""
    switch = screen.page.get_by_role("switch", name="Streaming")
    switch.uncheck()
    eventually(lambda: visitor.http.get("/me").json()["streaming"] is False)
    screen.page.evaluate(RECORD)
    with screen.requests() as requests:
        screen.ask(assistant.teach(LONG, latency=30))
        assert screen.settles() == LONG
    assert stored(assistant, screen.conversation) == [LONG]
    assert not [url for url in requests if url.startswith(assistant.url("gateway"))]
    texts = {text for _, text in screen.page.evaluate("steps") if text}
    assert len(texts) >= 2
    screen.page.reload()
    assert not switch.is_checked()
    switch.check()
    eventually(lambda: visitor.http.get("/me").json()["streaming"] is True)


def test_the_gateway_goes_away_and_comes_back(
    assistant: Stage, screen: Screen, windows: Windows, visitor: Person
) -> None:
    """Without it the page says that it asks every two seconds instead, and so gets a whole answer where not
    even bridge.js can be loaded; afterwards an answer that was streaming goes on, and new ones stream again.
    """
    windows.expect(r"net::ERR_\S+ at " + assistant.url("gateway"))
    screen.ask(assistant.teach(LONG * 10, latency=20))
    before = screen.shows(60)
    with assistant.gateway.away():
        eventually(lambda: "Asking every two seconds" in screen.note)
        assert screen.answer.startswith(before)
        other = Screen.open(windows, visitor)
        other.ask(assistant.teach(TEXT))
        assert other.settles() == TEXT
    eventually(lambda: screen.note == "")
    screen.shows(len(screen.answer) + 30)
    screen.page.keyboard.press("Escape")
    screen.settles()
    assert stored(assistant, screen.conversation) == [screen.answer]
    assert (LONG * 10).startswith(screen.answer)
    with other.requests() as requests:
        other.ask(assistant.teach(TEXT))
        eventually(lambda: len(other.texts) == 4)
        assert other.settles() == TEXT
    assert [url for url in requests if "/events" in url]
    assert stored(assistant, other.conversation) == [TEXT, TEXT]


def test_a_provider_that_breaks_off(assistant: Stage, screen: Screen) -> None:
    """What had come stays, with the reason why there is no more; the user can ask again."""
    screen.ask(assistant.teach(LONG, latency=10, disconnectAfterMs=300))
    eventually(lambda: screen.note.startswith("Not finished: "))
    assert screen.answer
    assert [screen.answer] == stored(assistant, screen.conversation)
    screen.ask(assistant.teach(TEXT))
    eventually(lambda: len(screen.texts) == 4)
    assert screen.settles() == TEXT


def test_an_answer_that_cannot_be_stored(assistant: Stage, screen: Screen) -> None:
    """The user is told, and sees it all the same; as soon as it is stored, the page shows that, too."""
    with assistant.storing_fails():
        screen.ask(assistant.teach(TEXT))
        eventually(lambda: screen.note.startswith("Not saved yet."))
        assert screen.answer == TEXT
    screen.settles()
    assert screen.note == ""
    assert [screen.answer] == stored(assistant, screen.conversation) == [TEXT]


def test_text_is_text(assistant: Stage, screen: Screen, windows: Windows) -> None:
    """What looks like HTML, in a question or in an answer, is shown letter by letter and does nothing; and
    should a mistake of ours make an element of it, the browser refuses.
    """
    question = assistant.teach(HOSTILE) + HOSTILE
    screen.ask(question)
    assert screen.settles() == HOSTILE
    assert screen.texts == [question, HOSTILE]
    assert screen.page.locator("#thread, #list").locator("img, script, b").count() == 0
    windows.expect("requires 'TrustedHTML'|requires 'TrustedScript'|Content Security Policy")
    refused = "(html) => { try { document.body.innerHTML = html } catch (error) { return error.name } }"
    assert screen.page.evaluate(refused, HOSTILE) == "TypeError"
    assert screen.page.evaluate("window.pwned") is None
    screen.page.evaluate("violations.length = 0")


def test_what_cannot_be_sent_stays_in_the_field(
    assistant: Stage, screen: Screen, windows: Windows, visitor: Person
) -> None:
    """A refusal is said in the server's words, the question isn't lost, and what is being written meanwhile
    because of another screen is shown.
    """
    windows.expect(r"409 \(Conflict\) at http://[^/]+/messages$")
    screen.ask(assistant.teach(TEXT))
    screen.settles()
    elsewhere = assistant.teach(LONG, latency=10)
    visitor.ask_later(elsewhere, conversation_id=screen.conversation)
    screen.ask("Too soon")
    eventually(lambda: screen.notice == "An answer is being written in this conversation.")
    assert screen.page.locator("#question").input_value() == "Too soon"
    eventually(lambda: len(screen.texts) == 4)
    assert screen.texts[2] == elsewhere
    assert screen.settles() == LONG


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
    text = f"{'w' * 200} https://example.com/{'x' * 100}\n" + LONG
    screen.ask(assistant.teach(text, latency=5))
    screen.shows(210)
    page.get_by_role("button", name="Conversations").click()
    assert screen.focus == "shut"
    assert page.evaluate(CONTRASTS) == []
    windows.shot(page, f"list-{scheme}")
    page.keyboard.press("Escape")
    assert screen.focus == "menu"
    assert screen.settles() == text
    assert page.evaluate("document.documentElement.scrollWidth") == phone["width"]
    assert page.evaluate("document.querySelector('#thread').scrollWidth") <= phone["width"]
    assert page.evaluate(CONTRASTS) == []
    windows.shot(page, f"small-{scheme}")


def test_all_by_keyboard(assistant: Stage, windows: Windows, visitor: Person) -> None:
    """Logging in, a question of two lines, and logging out, after which also Back shows nothing of it."""
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
