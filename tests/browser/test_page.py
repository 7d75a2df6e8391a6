"""What the page shows while a task runs, and while what it depends on is cut, killed and restarted.

Where the exact text matters this process is the worker. Otherwise the demonstration's own tasks are used, as
somebody who tries it out would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route

import bridge
from bridge.cli.demo.works import FAILING, REASONING, TYPED, tokens
from tests.browser.places import Demo
from tests.browser.windows import NO_NETWORK, UNKNOWN, Windows, disabled, left, right
from tests.waiting import eventually

pytestmark = pytest.mark.needs("chromium")

RECORD = """() => {
    window.grown = [];
    for (const side of ["stream", "legacy"]) {
        const text = document.querySelector(`#${side} .text`);
        const note = () => grown.push([side, text.textContent.length]);
        new MutationObserver(note).observe(text, {childList: true, characterData: true, subtree: true});
    }
}"""

NOTICES = """() => {
    window.notices = [];
    const notice = document.querySelector("#notice");
    new MutationObserver(() => notices.push(notice.textContent)).observe(notice, {childList: true});
}"""
"""From now on, all that is said below the task's name: some of it is there for a moment only."""
KILL_AND_STOP = """() => {
    const [notice, kill, stop] = ["#notice", "#kill", "#stop"].map((one) => document.querySelector(one));
    const look = new MutationObserver(() => {
        if (!notice.textContent.startsWith("The worker is dead")) return;
        look.disconnect();
        stop.click();
    });
    look.observe(notice, {childList: true});
    kill.click();
}"""
"""Press Stop as soon as the page says that the worker is dead: when its lease runs out it is too late."""


@pytest.fixture
def open_task(windows: Windows, demo: Demo) -> Callable[..., Page]:
    """Opens the page with a task of this process."""
    windows.expect(UNKNOWN)

    def open_task(task_id: str, **options: Any) -> Page:
        return windows.open(f"{demo.url}/?task={task_id}", **options)

    return open_task


def start(page: Page, kind: str) -> str:
    """Press a button that starts a task; its id, once the page shows it."""
    page.locator(f"#kinds [data-kind={kind}]").click()
    page.wait_for_url(f"**/?task={kind}-*")
    return page.url.partition("?task=")[2]


def notice(page: Page) -> str:
    """What is said below the task's name."""
    return page.locator("#notice").text_content() or ""


def same_as_status(page: Page, demo: Demo, task_id: str) -> bool:
    """Whether both sides show the text that `/status` has."""
    wanted = demo.status(task_id)["text"]
    return bool(left(page).text == right(page).text == wanted)


def test_it_opens_empty(windows: Windows, demo: Demo) -> None:
    """Without a task the page says what it is, and offers tasks to start."""
    page = windows.open(demo.url)
    page.locator("#kinds button").first.wait_for()
    assert page.locator("#kinds button strong").all_text_contents() == [
        "Typed answer", "Command output", "Slow task", "Failing task"
    ]  # fmt: skip
    assert left(page).note
    assert right(page).note
    windows.shot(page, "empty")


def test_the_left_grows_before_the_right_shows_any(
    open_task: Callable[..., Page], windows: Windows, demo: Demo
) -> None:
    """Text appears on the left word by word as it is written, while the right still waits for its poll; in
    the end both have it all.
    """
    context = windows.context()
    polls: list[Route] = []
    # The right asks once at a time. Its first question goes no further until the left has it all.
    context.route("**/tasks/job-left/status", lambda poll: polls.append(poll), times=1)
    page = open_task("job-left", context=context)
    page.evaluate(RECORD)
    words = ["The ", "left ", "side ", "sees ", "every ", "word."]
    with bridge.task("job-left") as task:
        for number in range(len(words)):
            task.report_progress(words[number])
            left(page).shows("".join(words[: number + 1]))
    # Looking at the page lets Playwright tell of its requests.
    eventually(lambda: left(page).text and polls)
    polls[0].continue_()
    left(page).ends("succeeded")
    right(page).ends("succeeded")
    right(page).shows("".join(words))
    assert same_as_status(page, demo, "job-left")
    grown: list[list[Any]] = page.evaluate("() => grown")
    sides = [side for side, length in grown if length]
    assert sides[: len(words)] == ["stream"] * len(words)
    assert "legacy" in sides[len(words) :]


def test_a_task_that_is_typed(windows: Windows, demo: Demo) -> None:
    """A task that a button starts is typed on the left while it is written, and goes on when the page is
    reloaded in its midst.
    """
    page = windows.open(demo.url)
    task_id = start(page, "typed")
    windows.expect(UNKNOWN)
    eventually(lambda: len(left(page).text) > 100, timeout=30)
    eventually(lambda: right(page).text)
    eventually(lambda: len(left(page).text) > len(right(page).text))
    windows.shot(page, "growing")
    assert left(page).state == "running"

    before = left(page).text
    assert left(page).first.endswith(" s")
    assert right(page).first.endswith(" s")
    page.reload()
    eventually(lambda: len(left(page).text) > len(before), timeout=30)
    # What was there before the page came is no measure of anything.
    eventually(lambda: left(page).first == right(page).first == "replayed")
    assert left(page).text.startswith(before)
    assert left(page).requests == 1
    assert REASONING.strip() in page.locator("#stream .more dl").evaluate("node => node.textContent")

    page.locator("#stop").click()
    left(page).ends("cancelled")
    right(page).ends("cancelled")
    assert same_as_status(page, demo, task_id)
    assert TYPED.startswith(left(page).text)


def test_a_page_that_is_reloaded(open_task: Callable[..., Page], windows: Windows, demo: Demo) -> None:
    """After a reload in the midst of a task both sides end with exactly the worker's text, and say so."""
    page = open_task("job-reload")
    middle = TYPED.index("## On the right")
    with bridge.task("job-reload") as task:
        task.report_progress(0.5, message="answering")
        task.report_progress(TYPED[:middle])
        left(page).shows(TYPED[:middle])
        page.reload()
        left(page).shows(TYPED[:middle])
        for token in tokens(TYPED[middle:]):
            task.report_progress(token)
        task.report_progress(1.0, message="done")
        task.succeed(usage={"output_tokens": 395})
    left(page).ends("succeeded")
    right(page).ends("succeeded")
    left(page).shows(TYPED)
    right(page).shows(TYPED)
    assert same_as_status(page, demo, "job-reload")
    verdict = page.locator("#verdict")
    eventually(lambda: f"Both ended with the same {len(TYPED):,}" in (verdict.text_content() or ""))
    page.locator("#stream .log summary").click()
    windows.shot(page, "ended")


def test_a_real_command_is_stopped(windows: Windows, demo: Demo) -> None:
    """Stop ends a command; what it had written stays, and the page says that it was stopped."""
    page = windows.open(demo.url)
    task_id = start(page, "command")
    eventually(lambda: left(page).text.count("\n") > 4, timeout=30)
    windows.shot(page, "command")
    page.locator("#stop").click()
    left(page).ends("cancelled")
    right(page).ends("cancelled")
    assert left(page).text.startswith("Importing ")
    assert same_as_status(page, demo, task_id)
    assert "Stopped" in left(page).note
    assert disabled(page, "#stop")
    assert notice(page) == ""
    windows.shot(page, "stopped")


def test_a_task_that_fails(windows: Windows, demo: Demo) -> None:
    """The text stays as far as it came, and both sides say what was wrong."""
    page = windows.open(demo.url)
    start(page, "failing")
    for side in (left(page), right(page)):
        side.ends("failed")
        side.shows(FAILING)
        assert "the model's server closed the connection" in side.note
    eventually(lambda: page.locator("#verdict").text_content())
    assert page.locator("#verdict.good").count() == 0
    windows.shot(page, "failed")


def test_a_task_that_nobody_knows_yet(open_task: Callable[..., Page], windows: Windows) -> None:
    """A page that is opened before its task waits, says so, and shows it as soon as it begins."""
    page = open_task("job-later")
    for side in (left(page), right(page)):
        eventually(lambda: side.state == "waiting" and side.note)  # noqa: B023 (called at once)
    windows.shot(page, "unknown")
    bridge.create_task("job-later")
    eventually(lambda: left(page).state == "queued")
    with bridge.task("job-later") as task:
        task.report_progress("here it is")
        left(page).shows("here it is")
    left(page).ends("succeeded")


def test_the_connection_is_dropped_by_the_button(
    open_task: Callable[..., Page], windows: Windows, demo: Demo
) -> None:
    """After the gateway has cut the page's stream it comes back and goes on where it was: in the end it shows
    exactly what the worker wrote, also what it wrote meanwhile.
    """
    windows.expect(NO_NETWORK)
    page = open_task("job-drop")
    with bridge.task("job-drop") as task:
        task.report_progress("one ")
        left(page).shows("one ")
        page.locator("#stream .log summary").click()
        page.locator("#drop").click()
        eventually(lambda: any(line.startswith("dropped") for line in left(page).log))
        windows.shot(page, "dropped")
        task.report_progress("two ")
        left(page).shows("one two ")
        task.report_progress("three")
        left(page).shows("one two three")
    left(page).ends("succeeded")
    left(page).shows("one two three")
    right(page).shows("one two three")
    assert any(line.startswith("resumed") for line in left(page).log)
    assert not any("anew" in line for line in left(page).log)
    windows.shot(page, "resumed")


def test_the_worker_is_killed(windows: Windows, demo: Demo) -> None:
    """The page keeps what a killed worker wrote and says that it is lost; when the task is retried, the new
    text stands in the place of the old.
    """
    page = windows.open(demo.url)
    task_id = start(page, "typed")
    eventually(lambda: len(left(page).text) > 100, timeout=30)
    page.locator("#kill").click()
    left(page).ends("failed")
    kept = left(page).text
    assert TYPED.startswith(kept)
    assert kept
    assert "worker_lost" in left(page).note
    windows.shot(page, "worker-lost")

    eventually(lambda: page.locator("#attempt").text_content() == "attempt 2", timeout=30)
    eventually(lambda: left(page).state == "running" and left(page).text)
    assert TYPED.startswith(left(page).text)
    eventually(lambda: right(page).state == "running" and right(page).text)
    assert TYPED.startswith(right(page).text)
    windows.shot(page, "retried")
    page.locator("#stop").click()
    left(page).ends("cancelled")
    right(page).ends("cancelled")
    assert same_as_status(page, demo, task_id)


def test_a_lost_task_that_was_asked_to_stop(windows: Windows, demo: Demo) -> None:
    """Nobody retries it: the page says so, also when it is reloaded, and offers nothing for it any more."""
    page = windows.open(demo.url)
    task_id = start(page, "typed")
    eventually(lambda: left(page).text, timeout=30)
    eventually(lambda: not any(disabled(page, button) for button in ("#kill", "#stop")))
    page.evaluate(KILL_AND_STOP)
    left(page).ends("failed")
    right(page).ends("failed")
    eventually(lambda: "it isn’t retried" in notice(page))
    windows.shot(page, "lost-and-stopped")
    page.reload()
    left(page).ends("failed")
    eventually(lambda: "it isn’t retried" in notice(page))
    assert all(disabled(page, button) for button in ("#stop", "#drop", "#kill"))
    assert demo.status(task_id)["attempt"] == 1


def test_a_task_that_begins_anew(windows: Windows, demo: Demo) -> None:
    """The demonstration's own task has another round a moment after each end: both sides follow it again."""
    page = windows.open(f"{demo.url}/?task=demo")
    page.evaluate(NOTICES)
    # Its round ends by itself, too. This one has just begun.
    eventually(lambda: left(page).state == "running" and 0 < len(left(page).text) < 100, timeout=60)
    attempt = demo.status("demo")["attempt"]
    page.locator("#stop").click()
    left(page).ends("cancelled")
    eventually(lambda: any("begins it anew" in one for one in page.evaluate("() => notices")))
    windows.shot(page, "between-rounds")
    eventually(lambda: page.locator("#attempt").text_content() == f"attempt {attempt + 1}", timeout=30)
    for side in (left(page), right(page)):
        eventually(lambda: side.state == "running" and side.text, timeout=30)  # noqa: B023 (called at once)
    assert notice(page) == ""


def test_a_task_that_ends_without_text(open_task: Callable[..., Page]) -> None:
    """There is no text to be the same, and the last word doesn't say that there were."""
    page = open_task("job-empty")
    with bridge.task("job-empty"):
        left(page).ends("running")
    eventually(lambda: page.locator("#verdict").text_content() == "Both ended, and without any text.")


def test_a_retry_in_the_midst(open_task: Callable[..., Page], demo: Demo) -> None:
    """A new attempt that begins while the old one runs replaces its text; nothing of both is mixed."""
    page = open_task("job-again")
    first = bridge.task("job-again", bind=False).start()
    first.report_progress("the first attempt's text ")
    left(page).shows("the first attempt's text ")
    with bridge.task("job-again", bind=False) as second:
        second.report_progress("the second's")
        left(page).shows("the second's")
    left(page).ends("succeeded")
    right(page).shows("the second's")
    assert same_as_status(page, demo, "job-again")
    assert page.locator("#attempt").text_content() == "attempt 2"
    first.finish()


def test_two_tabs(open_task: Callable[..., Page], windows: Windows) -> None:
    """Two tabs of one user show the same; one that comes late has all of it at once."""
    context = windows.context()
    early = open_task("job-two", context=context)
    with bridge.task("job-two") as task:
        task.report_progress("one ")
        left(early).shows("one ")
        late = open_task("job-two", context=context)
        left(late).shows("one ")
        task.report_progress("two")
        for page in (early, late):
            left(page).shows("one two")
    for page in (early, late):
        left(page).ends("succeeded")
