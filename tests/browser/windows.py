"""What a test sees and does in a browser: pages that are watched for errors, and the two sides of our page.

Whatever a page logs as an error, and every exception that nothing caught, fails the test, unless the test
said before its end that this belongs to what it does.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.tools import require_tool
from tests.waiting import eventually

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
UNKNOWN: Final = r"404 \(Not Found\) at http://[^/]+/(bridge/)?tasks/[^/]+/status$"
"""What browsers log of an answer that the page expects: that nobody knows the task yet."""
NO_NETWORK: Final = r"net::ERR_\S+ at http://[^/]+/(bridge/)?tasks/"
"""What they log of streams that are cut, and of polls while there is no gateway, as after a test's end."""
CONTRASTS: Final = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (color) => {
        const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (one) => {
        for (; one; one = one.parentElement) {
            const color = rgba(getComputedStyle(one).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
    };
    const poor = [];
    for (const one of document.querySelectorAll("body *")) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !one.checkVisibility() || one.closest("[aria-disabled=true], noscript")) continue;
        const [a, b] = [light(rgba(getComputedStyle(one).color)), light(ground(one))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) poor.push([one.textContent.slice(0, 40), contrast]);
    }
    return poor;
}"""
"""What is too pale to be read, by WCAG 2.2's 1.4.3: texts, each with its contrast."""
_DESKTOP: Final = {"width": 1200, "height": 900}


class Windows:
    """The pages that a test has open. All contexts are its own: no cache, no storage, no others' sockets."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        self._contexts: list[BrowserContext] = []
        self._expected: list[re.Pattern[str]] = []
        self._errors: list[str] = []

    def context(self, **options: Any) -> BrowserContext:
        """A new profile, as of a user that was never here."""
        context = self._browser.new_context(**{"viewport": _DESKTOP, **options})
        context.set_default_timeout(20_000)
        context.on("console", self._hear)
        context.on("weberror", lambda error: self._errors.append(f"not caught: {error.error}"))
        self._contexts.append(context)
        return context

    def open(self, url: str, context: BrowserContext | None = None, **options: Any) -> Page:
        """A new tab, in a profile of its own unless told otherwise, that has loaded this address."""
        page = (context or self.context(**options)).new_page()
        page.goto(url)
        return page

    def expect(self, pattern: str) -> None:
        """Let errors be that match this. They read ``TEXT at ADDRESS``, or ``not caught: TEXT``."""
        self._expected.append(re.compile(pattern, re.DOTALL))

    def shot(self, page: Page, name: str) -> None:
        """Keep what is seen now, for people: in the test's folder, and in BRIDGE_SHOTS if that is set."""
        # Transitions are over in it, and the caret doesn't blink.
        file = self._folder / f"{name}.png"
        page.screenshot(path=file, full_page=True, animations="disabled")
        if chosen := os.environ.get("BRIDGE_SHOTS"):
            Path(chosen).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, chosen)

    def close(self) -> list[str]:
        """Close all; returns the errors that nobody expected."""
        for context in self._contexts:
            context.close()
        return [one for one in self._errors if not any(each.search(one) for each in self._expected)]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self._errors.append(f"{message.text} at {message.location['url']}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's own, without a screen; as long as it is there no async test can run in this thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_tool("chromium"), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, folder: Path) -> Iterator[Windows]:
    """A test's own windows. An error in one that the test didn't expect fails it."""
    windows = Windows(browser, folder)
    yield windows
    errors = windows.close()
    if errors:
        pytest.fail("in the browser:\n" + "\n".join(errors), pytrace=False)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two clients on our page, as somebody sees it."""

    page: Page
    root: str

    @property
    def text(self) -> str:
        """The task's text, exactly."""
        return self._content(".text")

    @property
    def state(self) -> str:
        return self._content(".badge")

    @property
    def note(self) -> str:
        """The sentence below the text."""
        return self._content(".note")

    @property
    def link(self) -> str:
        """How it is connected, in words."""
        return self._content(".said")

    @property
    def first(self) -> str:
        """After how long it had its first text."""
        return self._content(".first")

    @property
    def requests(self) -> int:
        """How many requests it says that it made."""
        return int(self._content(".requests").replace(",", "").replace("–", "0"))

    @property
    def log(self) -> list[str]:
        """What its connection log says, without the times."""
        return self.page.locator(f"{self.root} .log li span").all_text_contents()

    def shows(self, text: str) -> None:
        """Wait until exactly this text is there."""
        eventually(lambda: self._same(text), timeout=20)

    def ends(self, state: str) -> None:
        """Wait until it says that the task has ended so."""
        eventually(lambda: self._is(state), timeout=30)

    def _same(self, text: str) -> bool:
        seen = self.text
        assert seen == text, f"{len(seen)} characters, not {len(text)}: …{seen[-60:]!r}"
        return True

    def _is(self, state: str) -> bool:
        assert self.state == state, f"{self.state!r}: {self.note} {self.link}"
        return True

    def _content(self, selector: str) -> str:
        content: str = self.page.locator(f"{self.root} {selector}").evaluate("node => node.textContent")
        return content


def disabled(page: Page, button: str) -> bool:
    """Whether a button does nothing now. All keep the focus, so it isn't the attribute of that name."""
    return page.locator(button).get_attribute("aria-disabled") == "true"


def left(page: Page) -> Side:
    """The side that streams."""
    return Side(page, "#stream")


def right(page: Page) -> Side:
    """The side that polls."""
    return Side(page, "#legacy")
