"""The assistant's page as somebody sees and uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from playwright.sync_api import Page

from tests.browser.windows import Windows
from tests.examples.assistant.people import Person
from tests.waiting import eventually

EXPECTED: Final = r"(400|417) \(.*\) at http://[^/]+/check_generation"
"""What browsers log of answers that belong to the page's life."""

POLICY: Final = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""
RECORD: Final = """() => {
    window.steps = [];
    new MutationObserver(() => {
        const bubble = document.querySelector("#thread .assistant:last-child");
        if (bubble) steps.push([bubble.className, bubble.querySelector(".text").textContent]);
    }).observe(document.querySelector("#thread"), {
        attributes: true, childList: true, characterData: true, subtree: true });
}"""
"""From now on, what the last answer looks like after each change."""
BURST: Final = """async () => {
    const { Bubble } = await import("./bubble.js");
    const bubble = new Bubble("assistant");
    const [text] = bubble.element.querySelectorAll(".text");
    const seen = [];
    new MutationObserver((records) => records.forEach(() => seen.push(text.textContent.length)))
        .observe(text, { childList: true, characterData: true, subtree: true });
    for (let length = 1; length <= 100; length++) {
        bubble.answer({ text: "x".repeat(length), running: true, message: null, error: null });
        await null;
    }
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return seen;
}"""
"""A bubble that is told a hundred times within one frame: the lengths of its text after each change."""


@dataclass(frozen=True, slots=True)
class Screen:
    """The page in one tab."""

    page: Page

    @classmethod
    def open(cls, windows: Windows, person: Person, **options: Any) -> Self:
        """The page of somebody who is logged in."""
        context = windows.context(**options)
        context.add_init_script(POLICY)
        windows.expect(EXPECTED)
        url = str(person.http.base_url)
        context.add_cookies([{"name": k, "value": v, "url": url} for k, v in person.http.cookies.items()])
        screen = cls(windows.open(url, context))
        screen.page.locator("#question").wait_for()
        return screen

    def ask(self, question: str) -> None:
        """Type a question and send it, all by keyboard; wait until it is on its way."""
        self.page.locator("#question").fill(question)
        with self.page.expect_response("**/messages"):
            self.page.keyboard.press("Enter")

    def begin(self) -> None:
        """Begin a new conversation."""
        self.page.locator("#new").click()

    def go(self, conversation: int) -> None:
        """Open a conversation from the list."""
        self.page.locator(f"#list a[data-id='{conversation}']").click()

    @property
    def conversation(self) -> int:
        """The id of the one that is open."""
        found: str = eventually(lambda: self.page.evaluate("location.hash.slice(1)"))
        return int(found)

    @property
    def texts(self) -> list[str]:
        """What stands in the bubbles, exactly."""
        return self.page.locator("#thread .text").all_text_contents()

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return self._of_answer("text")

    @property
    def note(self) -> str:
        """What is said below the last answer."""
        return self._of_answer("note")

    @property
    def meta(self) -> str:
        """Who has written the last answer, and what it took."""
        return self._of_answer("meta")

    def shows(self, length: int = 1) -> str:
        """Wait until so many characters of the last answer are there; the text."""
        eventually(lambda: len(self.answer) >= length, timeout=20)
        return self.answer

    def settles(self) -> str:
        """Wait until the last answer is stored and shows it; its text."""
        eventually(lambda: self.meta or self.note.startswith(("Not finished", "Stopped")), timeout=30)
        return self.answer

    def sign(self, conversation: int) -> str:
        """What the list says of a conversation beside its title."""
        return self._text(f"#list a[data-id='{conversation}'] .sign")

    @property
    def draft(self) -> str:
        """What is typed and not sent."""
        return self.page.locator("#question").input_value()

    @property
    def notice(self) -> str:
        """What couldn't be done."""
        return self._text("#notice")

    @property
    def focus(self) -> str:
        """What has the focus."""
        found: str = self.page.evaluate("document.activeElement.id")
        return found

    @contextmanager
    def requests(self) -> Iterator[list[str]]:
        """The URLs of all requests that the page makes during the block."""
        seen: list[str] = []

        def note(request: Any) -> None:
            seen.append(request.url)

        self.page.on("request", note)
        try:
            yield seen
        finally:
            self.page.remove_listener("request", note)

    @property
    def violations(self) -> list[str]:
        """What was tried although the page's policy forbids it."""
        found: list[str] = self.page.evaluate("violations")
        return found

    def _of_answer(self, part: str) -> str:
        return self._text(f"#thread .assistant:last-child .{part}")

    def _text(self, selector: str) -> str:
        found = self.page.locator(selector)
        return found.evaluate("node => node.textContent") if found.count() else ""
