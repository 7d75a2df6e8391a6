"""The tasks of `bridge demo`: started, stopped, cut off, killed and retried over its HTTP paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.cli.demo.kinds import KINDS
from bridge.cli.demo.measure import MODULES
from bridge.cli.demo.workers import MAX_TASKS
from bridge.cli.demo.works import FAILING, TYPED, tokens
from bridge.client import Client
from bridge.events import TERMINAL_STATES, Chunk, End, Event, Position, Reset
from tests.demos import Demo, running_demo
from tests.processes import descendants
from tests.waiting import eventually

proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demonstration for all tests here."""
    with running_demo() as one:
        yield one


def ended(demo: Demo, task_id: str) -> dict[str, Any]:
    """The view of a task, once it has ended."""
    eventually(lambda: demo.status(task_id)["state"] in TERMINAL_STATES)
    return demo.status(task_id)


def begun(demo: Demo, task_id: str) -> None:
    """Wait until a task has some text."""
    eventually(lambda: demo.status(task_id)["text"])


def error_code(answer: object) -> str:
    """The code in an error's body."""
    assert isinstance(answer, dict)
    code = answer["error"]["code"]
    assert isinstance(code, str)
    return code


def stop(demo: Demo, *task_ids: str) -> None:
    """Cancel tasks, and wait until the demonstration is done with them."""
    for task_id in task_ids:
        demo.post(f"/tasks/{task_id}/cancel")
    over(demo, *task_ids)


def over(demo: Demo, *task_ids: str) -> None:
    """Wait until the demonstration is done with tasks."""

    def done() -> bool:
        return all(demo.get(f"/demo/tasks/{one}").json()["state"] == "over" for one in task_ids)

    eventually(done)


def test_it_says_what_it_can_do(demo: Demo) -> None:
    """The page learns the kinds, with words for people, and the times it has to name."""
    answer = demo.get("/page.json")
    assert answer.status_code == 200
    said = answer.json()["demo"]
    assert [kind["name"] for kind in said["kinds"]] == [kind.name for kind in KINDS]
    assert all(kind["title"] and kind["about"] for kind in said["kinds"])
    assert said["max_tasks"] == MAX_TASKS
    assert 0 < said["lease_seconds"] <= 3


def test_a_task_is_queued_as_soon_as_it_is_taken_in(demo: Demo) -> None:
    """Whoever asks right after the 202 finds the task: nobody has to wait for its worker to start."""
    task_id = demo.start("slow")
    assert demo.get(f"/tasks/{task_id}/status").status_code == 200
    stop(demo, task_id)


def test_a_command_streams_what_it_prints(demo: Demo) -> None:
    """A real command's output comes while it runs, with its progress; a cancel ends the command."""
    task_id = demo.start("command")
    view = eventually(lambda: (view := demo.status(task_id))["progress"] and view)
    assert view["state"] == "running"
    assert view["text"].startswith(f"Importing {len(MODULES)} modules")
    assert view["message"].endswith(f" of {len(MODULES)} modules")
    demo.post(f"/tasks/{task_id}/cancel")
    assert ended(demo, task_id)["state"] == "cancelled"


def test_a_failing_task_keeps_its_part(demo: Demo) -> None:
    """The work raises in the middle: failed, with the exception's name and the text so far; no retry."""
    task_id = demo.start("failing")
    view = ended(demo, task_id)
    assert (view["state"], view["text"]) == ("failed", FAILING)
    assert view["error"] == {"code": "ConnectionError", "message": "the model's server closed the connection"}
    over(demo, task_id)
    assert demo.status(task_id)["attempt"] == 1


def test_a_slow_task_reports_progress_without_text(demo: Demo) -> None:
    """It says how far it is while it has nothing to show."""
    task_id = demo.start("slow")
    view = eventually(
        lambda: (view := demo.status(task_id))["state"] == "running" and view["message"] and view,
    )
    assert view["text"] == ""
    assert 0 < view["progress"] < 1
    stop(demo, task_id)


def test_a_dropped_connection_resumes_by_position(demo: Demo) -> None:
    """Cut off twice in the middle, a stream ends with exactly the worker's text: nothing twice, no reset."""
    task_id = demo.start("typed")
    dropped = told = 0
    heard: list[tuple[Position, Event]] = []
    drops: list[str] = []
    with Client(demo.url, on_drop=lambda reason, seconds: drops.append(reason)) as client:
        for position, event in client.events(task_id):
            heard.append((position, event))
            told += len(event.text) if isinstance(event, Chunk) else 0
            # By its length, because a busy machine makes fewer and larger events of the same text.
            if dropped < 2 and told > (dropped + 1) * len(TYPED) / 8:
                answer = demo.post(f"/demo/tasks/{task_id}/drop")
                assert answer.status_code == 202
                dropped += answer.json()["dropped"]
    assert dropped == 2
    assert len(drops) >= 2
    positions = [position for position, _ in heard]
    assert positions == sorted(set(positions))
    events = [event for _, event in heard]
    assert not any(isinstance(event, Reset) for event in events)
    assert (
        "".join(event.text for event in events if isinstance(event, Chunk) and event.field == "text") == TYPED
    )
    assert isinstance(events[-1], End)
    assert events[-1].state == "succeeded"
    view = demo.status(task_id)
    assert view["text"] == TYPED
    assert view["usage"]["output_tokens"] == len(tokens(TYPED))
    assert [source["title"] for source in view["data"]["sources"]]
    assert view["fields"]["reasoning"]


def test_a_killed_worker_is_lost_and_retried(demo: Demo) -> None:
    """The stream ends as worker_lost, with the partial text; then attempt 2 begins with a reset."""
    task_id = demo.start("typed")
    killed = False
    with Client(demo.url) as client:
        # Whoever comes only after the kill may find that the second attempt has begun.
        for _, last in client.events(task_id):
            if not killed and isinstance(last, Chunk) and last.field == "text":
                assert demo.post(f"/demo/tasks/{task_id}/kill").status_code == 202
                killed = True
        assert isinstance(last, End)
        assert last.error is not None
        assert last.error["code"] == "worker_lost"
        lost = demo.status(task_id)
        if lost["attempt"] == 1:
            assert lost["text"]
            assert TYPED.startswith(lost["text"])
        assert eventually(lambda: demo.status(task_id)["attempt"] == 2)
        with closing(client.events(task_id)) as again:
            _, first = next(again)
            assert isinstance(first, Reset)
            assert (first.reason, first.attempt) == ("retry", 2)
    assert demo.get(f"/demo/tasks/{task_id}").json()["attempt"] == 2
    stop(demo, task_id)
    assert demo.status(task_id)["state"] == "cancelled"


def test_a_lost_task_that_was_asked_to_stop_is_not_retried(demo: Demo) -> None:
    """Stopped after its worker was killed and before that was noticed: it ends as lost, and stays so."""
    task_id = demo.start("typed")
    begun(demo, task_id)
    demo.post(f"/demo/tasks/{task_id}/kill")
    assert demo.post(f"/tasks/{task_id}/cancel").json()["cancel_requested"]
    over(demo, task_id)
    assert demo.get(f"/demo/tasks/{task_id}").json()["attempt"] == 1
    view = demo.status(task_id)
    assert (view["attempt"], view["error"]["code"]) == (1, "worker_lost")


def test_a_task_that_is_over_has_no_worker_to_kill(demo: Demo) -> None:
    """Killing what doesn't run is refused, and changes nothing."""
    task_id = demo.start("slow")
    stop(demo, task_id)
    answer = demo.post(f"/demo/tasks/{task_id}/kill")
    assert (answer.status_code, error_code(answer.json())) == (409, "no_worker")
    assert demo.status(task_id)["state"] == "cancelled"


def test_a_drop_without_a_stream_drops_nothing(demo: Demo) -> None:
    """A task that nobody follows has no connection to cut."""
    task_id = demo.start("slow")
    answer = demo.post(f"/demo/tasks/{task_id}/drop")
    assert (answer.status_code, answer.json()) == (202, {"id": task_id, "dropped": 0})
    stop(demo, task_id)


def test_a_task_from_elsewhere_is_no_error(demo: Demo) -> None:
    """The page looks at whatever is open on it, and here there is nothing to say of that."""
    answer = demo.get("/demo/tasks/nobody")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("path", ["/demo/tasks/nobody/drop", "/demo/tasks/nobody/kill"])
def test_an_unknown_task_is_404(demo: Demo, path: str) -> None:
    """Only what the demonstration started, or somebody watches, can be dropped or killed."""
    answer = demo.post(path)
    assert (answer.status_code, error_code(answer.json())) == (404, "not_found")


@pytest.mark.parametrize("path", ["/demo/tasks/a%20b", "/demo/tasks/a%20b/drop", "/demo/tasks/a%20b/kill"])
def test_a_bad_id_is_400(demo: Demo, path: str) -> None:
    """What can't be a task's id is said to be none."""
    answer = demo.get(path) if path.endswith("b") else demo.post(path)
    assert (answer.status_code, error_code(answer.json())) == (400, "bad_task_id")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 4000,
        b"\xff",
        b"null",
        b'"typed"',
        b"{}",
        b'{"kind":7}',
        b'{"kind":["typed"]}',
        b'{"kind":"nothing"}',
        b'{"kind":"endless"}',
    ],
)
def test_an_unknown_kind_is_400(demo: Demo, body: bytes) -> None:
    """Only the kinds that are offered can be started, whatever the body is."""
    answer = demo.post("/demo/tasks", body)
    assert (answer.status_code, error_code(answer.json())) == (400, "bad_request")
    assert "typed" in answer.text


def test_a_large_body_is_413(demo: Demo) -> None:
    """Nobody fills the memory with a body."""
    answer = demo.post("/demo/tasks", b" " * 5000 + b'{"kind":"typed"}')
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/demo/tasks", "/demo/tasks/demo/drop", "/demo/tasks/demo/kill"])
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_form_of_another_site_can_send_is_415(demo: Demo, path: str, kind: str) -> None:
    """A page that somebody happens to visit starts and kills nothing here."""
    answer = demo.post(path, b'{"kind":"typed"}', kind)
    assert (answer.status_code, error_code(answer.json())) == (415, "not_json")


def test_the_content_type_may_have_a_charset(demo: Demo) -> None:
    """JSON with a charset is JSON."""
    answer = demo.post("/demo/tasks", b'{"kind":"slow"}', "Application/JSON; charset=utf-8")
    assert answer.status_code == 202
    stop(demo, answer.json()["id"])


@proc
def test_more_than_eight_are_too_many(demo: Demo) -> None:
    """The ninth at a time is refused with a time to come back; one that ended makes room, and no zombie."""
    before = descendants(demo.process.pid)
    started = [demo.start("slow") for _ in range(MAX_TASKS)]
    answer = demo.post("/demo/tasks", {"kind": "slow"})
    assert (answer.status_code, error_code(answer.json())) == (429, "too_many_tasks")
    assert int(answer.headers["retry-after"]) > 0
    stop(demo, started[0])
    more = demo.start("slow")
    stop(demo, *started[1:], more)
    eventually(lambda: descendants(demo.process.pid) <= before)


def next_round(demo: Demo, after: int = 0) -> int:
    """The attempt of the demonstration's own task once it runs, later than that one, and not told to stop."""

    def runs() -> int:
        view = demo.status("demo")
        assert (view["state"], view.get("cancel_requested")) == ("running", False)
        return int(view["attempt"] > after and view["attempt"])

    return eventually(runs)


def kill_endless(demo: Demo) -> None:
    """Kill its worker; there may just be none."""
    eventually(lambda: demo.post("/demo/tasks/demo/kill").status_code == 202)


def test_the_endless_task_is_retried_too(demo: Demo) -> None:
    """The demonstration's own task comes back after its worker was killed."""
    attempt = next_round(demo)
    worker = demo.get("/demo/tasks/demo").json()["attempt"]
    kill_endless(demo)
    eventually(lambda: demo.get("/demo/tasks/demo").json()["attempt"] == worker + 1)
    next_round(demo, attempt)


def test_the_endless_task_goes_on_also_when_it_is_lost_and_stopped(demo: Demo) -> None:
    """Each of its rounds is a request of its own, so a cancel means the present one only."""
    attempt = next_round(demo)
    kill_endless(demo)
    demo.post("/tasks/demo/cancel")
    next_round(demo, attempt)


def test_the_endless_task_goes_on_also_when_its_worker_dies_between_two_rounds(demo: Demo) -> None:
    """There is no task then that could be lost."""
    attempt = next_round(demo)
    demo.post("/tasks/demo/cancel")
    eventually(lambda: demo.status("demo")["state"] == "cancelled")
    kill_endless(demo)
    next_round(demo, attempt)


@pytest.mark.parametrize("path", ["/demo/tasks", "/demo/tasks/demo/drop", "/demo/tasks/demo/kill"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example"])
def test_a_name_that_was_made_to_lead_here_is_421(demo: Demo, path: str, host: str) -> None:
    """Nor does a page whose site moved its own address to this machine (DNS rebinding)."""
    answer = httpx.post(
        demo.url + path, headers={"host": host, "origin": f"http://{host}"}, json={"kind": "typed"}
    )
    assert (answer.status_code, error_code(answer.json())) == (421, "wrong_host")
