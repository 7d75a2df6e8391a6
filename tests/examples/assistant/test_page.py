"""The assistant's page in a browser, in front of all its real processes."""

from __future__ import annotations

from itertools import pairwise

import httpx
import pytest

from tests.browser.windows import Windows
from tests.examples.assistant.people import Person
from tests.examples.assistant.screen import BURST, RECORD, Screen
from tests.examples.assistant.stage import EXAMPLE, TEXT, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.needs("chromium", "node", "aimock")

FOLDER = EXAMPLE / "page"
LONG = "".join(f"This is sentence {number} of an answer that takes its time.\n" for number in range(6))
ENDLESS = LONG * 40
"""For what is stopped before its end."""
HOSTILE = (
    """<img src=x onerror="window.pwned = 1"><script>window.pwned = 1</script> &lt;b&gt; **bold** ${1}"""
)
USAGE = {"prompt_tokens": 1234, "completion_tokens": 56}


def stored(stage: Stage, conversation: int) -> list[str]:
    """The contents of the assistant's messages, from the database itself."""
    question = "SELECT content FROM messages WHERE conversation_id = ? AND role = 'assistant' ORDER BY id"
    with stage.connect() as database:
        return [row[0] for row in database.execute(question, (conversation,))]


@pytest.mark.parametrize("file", sorted(file.name for file in FOLDER.iterdir()))
def test_every_file_comes_under_the_policy(assistant: Stage, file: str) -> None:
    """None runs anything inline, and none is used without asking whether it is still the newest."""
    answer = httpx.get(f"{assistant.url('web')}/{file}")
    assert answer.content == (FOLDER / file).read_bytes()
    again = httpx.get(answer.url, headers={"If-None-Match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code) == (200, 304)
    for headers in (answer.headers, again.headers):
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' ")
        assert "unsafe" not in policy
        assert f"{assistant.url('gateway')}/tasks/" in policy
        assert headers["cache-control"] == "no-cache"
        assert headers["x-content-type-options"] == "nosniff"


def test_an_answer_grows_in_its_bubble(assistant: Stage, screen: Screen) -> None:
    """Dots show until the first text; then it grows in place, by the gateway's stream, and what is left in
    the end is the database's row, with who wrote it and what it took.
    """
    screen.page.evaluate(RECORD)
    profile = {"ttft": 300, "tps": 60}
    question = assistant.teach(response={"content": LONG, "usage": USAGE}, streamingProfile=profile)
    with screen.requests() as requests:
        screen.ask(question)
        assert screen.settles() == LONG
    assert [url for url in requests if url.startswith(assistant.url("gateway")) and "/events" in url]
    assert stored(assistant, screen.conversation) == [LONG]
    assert screen.texts == [question, LONG]
    assert screen.meta == "openai · gpt-5-mini · 1,234 tokens in, 56 out"
    steps: list[list[str]] = screen.page.evaluate("steps")
    grown = list(dict.fromkeys(text for _, text in steps if text))
    assert len(grown) >= 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(grown))
    assert {name for name, text in steps if not text} >= {"assistant typing"}
    assert {name for name, text in steps if text} <= {"assistant writing", "assistant typing", "assistant"}
    assert screen.focus == "question"
    eventually(lambda: screen.page.locator("#spoken").text_content() == f"The assistant said: {LONG}")


def test_a_burst_is_one_write(screen: Screen) -> None:
    """However much comes within one frame, the bubble's text changes once."""
    assert screen.page.evaluate(BURST) == [100]


def test_two_answers_at_once(assistant: Stage, screen: Screen, visitor: Person) -> None:
    """Who goes to another conversation meanwhile finds each answer where it belongs, and on the list which
    of them is being written and which is new.
    """
    screen.ask(assistant.teach("first " * 3000, latency=20))
    one = screen.conversation
    screen.shows()
    screen.page.keyboard.type("not sent yet")
    screen.begin()
    assert (screen.texts, screen.draft) == ([], "")
    screen.ask(assistant.teach("second " * 3000, latency=20))
    two = eventually(lambda: screen.conversation != one and screen.conversation)
    assert ("second " * 3000).startswith(screen.shows(20))
    eventually(lambda: screen.sign(one) == screen.sign(two) == "answering")
    screen.go(one)
    assert screen.draft == "not sent yet"
    assert ("first " * 3000).startswith(screen.shows(20))
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
    screen.ask(assistant.teach(ENDLESS, latency=20))
    screen.shows(20)
    if by == "button":
        screen.page.get_by_label("Stop").click()
    else:
        screen.page.keyboard.press("Escape")
    eventually(lambda: screen.note == "Stopped. What was written is kept.")
    assert ENDLESS.startswith(screen.answer)
    assert stored(assistant, screen.conversation) == [screen.answer]
    screen.page.get_by_label("Send").wait_for()
    assert screen.focus == ("go" if by == "button" else "question")


def test_a_reload_in_the_midst(assistant: Stage, screen: Screen) -> None:
    """The page comes back with the conversation and its answer, which goes on."""
    question = assistant.teach(ENDLESS, latency=20)
    screen.ask(question)
    before = screen.shows(60)
    screen.page.reload()
    after = screen.shows(len(before) + 30)
    assert after.startswith(before)
    assert ENDLESS.startswith(after)
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
        # Three times as long as from one poll to the next.
        screen.ask(assistant.teach(LONG, latency=50))
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
    screen.ask(assistant.teach(ENDLESS, latency=20))
    before = screen.shows(60)
    with assistant.gateway.away():
        eventually(lambda: "Asking every two seconds" in screen.note)
        with screen.page.expect_request("**/check_generation*", timeout=8_000):
            assert screen.answer.startswith(before)
        other = Screen.open(windows, visitor)
        other.ask(assistant.teach(TEXT))
        assert other.settles() == TEXT
    eventually(lambda: screen.note == "", timeout=30)
    screen.shows(len(screen.answer) + 30)
    screen.page.keyboard.press("Escape")
    screen.settles()
    assert stored(assistant, screen.conversation) == [screen.answer]
    assert ENDLESS.startswith(screen.answer)
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
    elsewhere = assistant.teach(ENDLESS, latency=10)
    visitor.ask_later(elsewhere, conversation_id=screen.conversation)
    screen.ask("Too soon")
    eventually(lambda: screen.notice == "An answer is being written in this conversation.")
    assert screen.draft == "Too soon"
    eventually(lambda: len(screen.texts) == 4)
    assert screen.texts[2] == elsewhere
    assert ENDLESS.startswith(screen.shows(20))
    screen.page.keyboard.press("Escape")
    screen.settles()
