"""An app that is polled, and what those who follow see."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from contextlib import ExitStack
from email.utils import formatdate
from itertools import pairwise
from time import monotonic, time
from typing import Any

import pytest
import redis

from bridge.events import UNKNOWN_TASK_END, Chunk, Data, End, Event, Reset
from bridge.store.log import POLLER_TOKEN
from tests.gateway.upstream.conftest import Behind
from tests.gateway.upstream.legacy import Asked, Legacy, Reply, reply
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually


def runs(text: str = "", **more: Any) -> dict[str, Any]:
    """What the app says of a task that runs."""
    return {"status": "running", "text": text, **more}


def of_kind(viewer: Viewer, kind: type[Event]) -> list[Any]:
    """All events of a kind that it got."""
    return [event for event in viewer.events if isinstance(event, kind)]


def stands_still(app: Legacy, seconds: float = 0.5) -> bool:
    """Whether no question came in so long."""
    last = app.asked[-1].at if app.asked else 0.0
    return monotonic() - last > seconds


def test_text_that_grows_is_streamed(app: Legacy, in_front: Behind) -> None:
    """Only what is new is told, and the end comes with its result."""
    with in_front() as gateway:
        app.tasks["job-1"] = runs("Hel", progress=0.4)
        with watch(gateway) as viewer:
            viewer.text_is("Hel")
            app.tasks["job-1"] = runs("Hello", progress=0.5, message="nearly")
            viewer.until(lambda v: (v.view.text, v.view.message) == ("Hello", "nearly"))
            app.tasks["job-1"] = {"status": "done", "text": "Hello!", "result": {"n": 1}}
            viewer.to_end()
        assert [event.text for event in of_kind(viewer, Chunk)] == ["Hel", "lo", "!"]
        assert (viewer.view.state, viewer.view.text, viewer.view.result) == ("succeeded", "Hello!", {"n": 1})
        (end,) = of_kind(viewer, End)
        assert end.length == {"text": 6}
        assert gateway.get("/tasks/job-1/status").json()["text"] == "Hello!"


def test_text_that_is_rewritten_is_told_anew(app: Legacy, in_front: Behind) -> None:
    """A reset, then all of it, as long as the app says something else than before."""
    with in_front() as gateway:
        app.tasks["job-1"] = runs("a first draft", progress=0.5)
        with watch(gateway) as viewer:
            viewer.text_is("a first draft")
            app.tasks["job-1"] = runs("a better one")
            viewer.text_is("a better one")
            assert [event.reason for event in of_kind(viewer, Reset)] == ["rewritten"]
            assert viewer.view.progress == 0.5
            assert viewer.view.state == "running"


def test_a_failure_keeps_the_partial_text(app: Legacy, in_front: Behind) -> None:
    """The app's error, with what had been told."""
    with in_front() as gateway:
        app.tasks["job-1"] = runs("Hel")
        with watch(gateway) as viewer:
            viewer.text_is("Hel")
            app.tasks["job-1"] = {"status": "failed", "error": "boom"}
            viewer.to_end()
        assert (viewer.view.state, viewer.view.text) == ("failed", "Hel")
        assert viewer.view.error == {"code": "failed", "message": "boom"}


def test_a_hundred_followers_cost_the_app_one_poller(app: Legacy, in_front: Behind) -> None:
    """On two gateways, all see the same; the app is never asked twice at a time, nor too often."""
    with in_front(lease_seconds=30.0) as one, in_front(lease_seconds=30.0) as two, ExitStack() as stack:
        app.tasks["job-1"] = runs("H")
        viewers = [stack.enter_context(watch(gateway)) for gateway in (one, two) for _ in range(50)]
        for viewer in viewers:
            viewer.text_is("H")
        for length in range(2, 8):
            app.tasks["job-1"] = runs("Hello, you"[:length])
            viewers[0].text_is("Hello, you"[:length])
        app.tasks["job-1"] = {"status": "done", "text": "Hello, you"}
        for viewer in viewers:
            viewer.to_end()
            assert viewer.view.text == "Hello, you"
        assert app.most_open == 1
        polls = app.polls
        assert len(polls) == len(app.asked)
        pauses = [then.at - before.at for before, then in pairwise(polls)]
        assert min(pauses) >= 0.05
        for gateway in (one, two):
            assert gateway.gateway.upstream is not None
            pollers = gateway.gateway.upstream.pollers
            eventually(lambda: len(pollers) == 0)  # noqa: B023 (called at once)


def test_nobody_following_means_no_polling(app: Legacy, in_front: Behind, redis_client: redis.Redis) -> None:
    """After the last one left the app is left in peace, and the lease is given back; who comes again sees it
    all.
    """
    with in_front() as gateway:
        app.tasks["job-1"] = runs("Hel")
        with watch(gateway) as viewer:
            viewer.text_is("Hel")
        eventually(lambda: gateway.followers("job-1") == 0)
        eventually(lambda: not redis_client.exists("bridge:{job-1}:poller"))
        eventually(lambda: stands_still(app))  # a question that was given up may reach the app all the same
        count = len(app.asked)
        app.tasks["job-1"] = runs("Hello")
        eventually(lambda: stands_still(app))
        assert len(app.asked) == count
        with watch(gateway) as viewer:
            viewer.text_is("Hello")


def test_the_lease_is_given_back(
    app: Legacy, in_front: Behind, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody follows: the next gateway needn't wait until it runs out."""
    monkeypatch.setattr("bridge.gateway.upstream.lease.LONGEST_SECONDS", 3600.0)
    app.tasks["job-1"] = {"status": "running", "text": "a"}
    with in_front(lease_seconds=3600.0) as gateway:
        with watch(gateway) as viewer:
            viewer.text_is("a")
            assert redis_client.exists("bridge:{job-1}:poller")
        eventually(lambda: not redis_client.exists("bridge:{job-1}:poller"))


def test_a_slow_app_is_not_waited_for_when_nobody_follows(app: Legacy, in_front: Behind) -> None:
    """The question under way is given up with the last follower."""
    go_on = threading.Event()
    app.answer = lambda asked: Reply([go_on])
    with in_front() as gateway:
        with watch(gateway):
            eventually(lambda: app.open == 1)
        eventually(lambda: app.open == 0)


def test_a_task_of_a_worker_is_not_asked_about(app: Legacy, in_front: Behind, writer: Writer) -> None:
    """What the log has from a worker is the worker's, and what was only announced as well."""
    app.tasks["job-1"] = runs("the app's")
    with in_front() as gateway:
        writer.create()
        with watch(gateway) as viewer:
            viewer.until(lambda v: bool(v.frames))
            writer.open().text("a worker's")
            viewer.text_is("a worker's")
            writer.end()
            viewer.to_end()
        assert app.asked == []


def test_a_worker_that_begins_takes_the_task(app: Legacy, in_front: Behind, writer: Writer) -> None:
    """Its report goes before what the app says; from then on the app isn't asked."""
    app.tasks["job-1"] = runs("the app's")
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.text_is("the app's")
        writer.open().text("a worker's")
        viewer.text_is("a worker's")
        eventually(lambda: stands_still(app))
        writer.end()
        viewer.to_end()
        assert viewer.view.text == "a worker's"


def test_a_worker_that_begins_is_never_disturbed(app: Legacy, in_front: Behind, writer: Writer) -> None:
    """Also when it begins while the app is being asked about a task that nobody knew."""
    asked, go_on = threading.Event(), threading.Event()

    def answer(_: Asked) -> Reply:
        asked.set()
        return Reply([go_on, *reply(runs("the app's")).pieces])

    app.answer = answer
    with in_front() as gateway, watch(gateway) as viewer:
        assert asked.wait(10)
        writer.open()
        go_on.set()
        assert writer.text("a worker's").verdict == "applied"
        viewer.text_is("a worker's")
        assert writer.end().verdict == "applied"
        viewer.to_end()


def test_what_the_app_does_not_know_is_unknown(
    app: Legacy, in_front: Behind, redis_client: redis.Redis
) -> None:
    """A stream waits for it, and then ends; nothing is written. One that appears meanwhile is told."""
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.head()
        eventually(lambda: len(app.asked) > 3)
        app.tasks["job-1"] = runs("there")
        viewer.text_is("there")
    with in_front(unknown_task_wait_seconds=0.5) as gateway:
        with watch(gateway, "job-2") as viewer:
            viewer.to_end()
            assert viewer.ids == [UNKNOWN_TASK_END]
        assert not redis_client.exists("bridge:{job-2}:task")
        with watch(gateway, "job-2", after="0-1") as viewer:
            assert viewer.head().status == 204


def test_a_task_that_the_app_forgets_ends(app: Legacy, in_front: Behind) -> None:
    """Not at once, as it may be a mistake; then as failed, with its text."""
    app.tasks["job-1"] = runs("Hel")
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        count = len(app.asked)
        del app.tasks["job-1"]
        eventually(lambda: len(app.asked) > count + 1)
        app.tasks["job-1"] = runs("Hello")
        viewer.text_is("Hello")
        gateway.change(unknown_task_wait_seconds=0.5)
        del app.tasks["job-1"]
        viewer.to_end()
        assert viewer.view.error == {"code": "unknown_task", "message": "The app does not know this task."}
        assert viewer.view.text == "Hello"


def test_a_task_that_waits_is_queued(app: Legacy, in_front: Behind) -> None:
    """And then runs."""
    app.tasks["job-1"] = {"status": "pending"}
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: v.view.state == "queued" and bool(v.frames))
        app.tasks["job-1"] = runs()
        viewer.until(lambda v: v.view.state == "running" and v.view.started_at is not None)


# --- trouble ------------------------------------------------------------------------------------------------


def said(status: int = 200, body: bytes = b"", **headers: str) -> Callable[[Asked], Reply]:
    """An app that always answers so."""
    return lambda _: reply(body, status, [(name.replace("_", "-"), value) for name, value in headers.items()])


SLOW = threading.Event()
HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status":'
ENDLESS = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    *[b"1000\r\n" + b" " * 4096 + b"\r\n"] * 1000,
]

TROUBLES: dict[str, tuple[Callable[[Asked], Reply], str]] = {
    "an error": (said(500, b'{"status":"failed"}'), "status 500"),
    "a proxy's page": (said(502, b"<html>"), "status 502"),
    "wrong credentials": (said(401, b'{"status":"failed"}'), "status 401"),
    "a redirect to itself": (said(302, location="/api/jobs/job-1"), "status 302"),
    "no JSON": (said(200, b"<html>hello</html>"), "not JSON"),
    "no state": (said(200, b"{}"), "names no state"),
    "a strange state": (said(200, b'{"status":"odd"}'), "'odd' is not in the mapping"),
    "silence": (lambda _: Reply([SLOW]), "no answer within"),
    "half an answer": (lambda _: Reply([HALF, SLOW]), "no answer within"),
    "a broken answer": (lambda _: Reply([HALF], "close"), "broken off"),
    "no HTTP": (lambda _: Reply([b"+PONG\r\n"], "close"), "no HTTP"),
    "a huge answer": (said(200, b'{"text":"' + b"x" * 100_000 + b'"}'), "more than 50000 bytes"),
    "an endless answer": (lambda _: Reply(ENDLESS), "more than 50000 bytes"),
    "a compressed answer": (
        said(200, gzip.compress(b'{"status":"running"}'), content_encoding="gzip"), "compressed (gzip)",
    ),
    "an answer to a question nobody asked": (said(304), "status 304"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TROUBLES)
def test_followers_are_told_of_trouble_and_of_its_end(app: Legacy, in_front: Behind, kind: str) -> None:
    """The text stays as it is, and goes on when the app is well again; the app is left alone meanwhile."""
    answer, reason = TROUBLES[kind]
    app.tasks["job-1"] = runs("Hel")
    # Short only where it is waited for: the app is on a busy machine, too.
    patience = 1 if reason == "no answer within" else 10
    with (
        in_front(upstream_answer_seconds=patience, upstream_answer_bytes=50_000) as gateway,
        watch(gateway) as viewer,
    ):
        viewer.text_is("Hel")
        app.answer = answer
        viewer.until(lambda v: v.view.data.get("upstream", {}).get("answers") is False)
        assert reason in viewer.view.data["upstream"]["reason"]
        assert (viewer.view.text, viewer.view.state) == ("Hel", "running")
        app.answer, app.tasks["job-1"] = None, runs("Hello")
        viewer.until(lambda v: v.view.data["upstream"] == {"answers": True} and v.view.text == "Hello")
        assert len(of_kind(viewer, Data)) == 2


def test_an_app_that_is_down_is_told_of_and_found_again(app: Legacy, in_front: Behind) -> None:
    """Also to those who follow a task that nobody has ever seen: it waits, and they know why."""
    app.stop()
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: v.view.data.get("upstream") == {"answers": False, "reason": "no connection"})
        assert viewer.view.state == "queued"
        app.tasks["job-1"] = {"status": "done", "text": "Hello"}
        app.back()
        viewer.to_end()
        assert (viewer.view.text, viewer.view.data["upstream"]) == ("Hello", {"answers": True})


def test_one_question_that_comes_to_nothing_worries_nobody(app: Legacy, in_front: Behind) -> None:
    """A single error among answers isn't told."""
    app.tasks["job-1"] = runs("Hel")
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        failed = threading.Event()

        def once(asked: Asked) -> Reply:
            if failed.is_set():
                return app.said(asked)
            failed.set()
            app.tasks["job-1"] = {"status": "done", "text": "Hello"}
            return reply(b"", 503)

        app.answer = once
        viewer.to_end()
        assert of_kind(viewer, Data) == []
        assert viewer.view.text == "Hello"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_what_the_app_asks_for_is_respected(app: Legacy, in_front: Behind, form: str) -> None:
    """`Retry-After`, as seconds or as a date, is the least pause."""

    def answer(asked: Asked) -> Reply:
        after = "1" if form == "seconds" else formatdate(time() + 2, usegmt=True)
        return reply(runs("x" * len(app.asked)), 200, [("Retry-After", after)])

    app.answer = answer
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.view.text) >= 2)
    polls = app.polls
    assert all(then.at - before.at >= 0.9 for before, then in pairwise(polls))


def test_an_etag_saves_the_answer(app: Legacy, in_front: Behind) -> None:
    """What hasn't changed is asked for with the ETag, and said with 304."""
    conditions: list[str | None] = []

    def answer(asked: Asked) -> Reply:
        conditions.append(asked.header("if-none-match"))
        etag = f'"{app.tasks["job-1"]["text"]}"'
        return reply(b"", 304) if conditions[-1] == etag else reply(app.tasks["job-1"], 200, [("ETag", etag)])

    app.answer, app.tasks["job-1"] = answer, runs("Hel")
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        eventually(lambda: conditions.count('"Hel"') >= 2)
        app.tasks["job-1"] = runs("Hello")
        viewer.text_is("Hello")
        eventually(lambda: conditions[-1] == '"Hello"')
        assert conditions[0] is None


def test_pauses_grow_while_nothing_changes(app: Legacy, in_front: Behind) -> None:
    """Up to the longest one, and from the beginning after a change."""
    app.tasks["job-1"] = runs("Hel")
    with in_front(upstream_longest_seconds=0.6, lease_seconds=30.0) as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        eventually(lambda: len(app.polls) >= 8)
    polls = app.polls
    pauses = [then.at - before.at for before, then in pairwise(polls)]
    # The first one is a tenth of that. A busy machine makes them longer, but never shorter.
    assert pauses[-1] >= 0.5


def test_the_poller_has_credentials_of_its_own(app: Legacy, in_front: Behind) -> None:
    """Those of the settings, with what the mapping adds; never a client's cookie or token."""
    app.tasks["job-1"] = runs("Hel")
    secret = "Authorization: Bearer s3cret\nX-Tenant: blue"
    with in_front(upstream_headers=secret, upstream_mapping="plain") as gateway:
        headers = {"Cookie": "session=ann", "Authorization": "Basic YW5uOnB3", "Accept": "text/event-stream"}
        with Viewer(gateway, "/tasks/job-1/events", headers=headers) as viewer:
            viewer.text_is("Hel")
    for asked in app.asked:
        assert asked.header("authorization") == "Bearer s3cret"
        assert asked.header("x-tenant") == "blue"
        assert asked.header("cookie") is None
        assert asked.header("host") == app.url.removeprefix("http://")
        assert asked.header("accept-encoding") == "identity"


def test_cookies_of_the_app_are_not_kept(app: Legacy, in_front: Behind) -> None:
    """What it sets with an answer doesn't come with the next question."""
    app.answer = lambda asked: reply(runs("x" * len(app.asked)), 200, [("Set-Cookie", "a=b; Path=/")])
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.view.text) >= 3)
    assert all(asked.header("cookie") is None for asked in app.asked)


def test_questions_under_way_are_bounded(app: Legacy, in_front: Behind) -> None:
    """However many tasks are followed, the app has so many at a time; all come their turn."""
    go_on = threading.Event()

    def answer(asked: Asked) -> Reply:
        return Reply([go_on, *reply({"status": "done", "text": asked.target[-2:]}).pieces])

    app.answer = answer
    with in_front(max_upstream_questions=3) as gateway, ExitStack() as stack:
        viewers = [stack.enter_context(watch(gateway, f"job-{n:02}")) for n in range(20)]
        eventually(lambda: app.open == 3)
        go_on.set()
        for number, viewer in enumerate(viewers):
            assert viewer.to_end().view.text == f"{number:02}"
        assert app.most_open == 3


def test_an_id_of_several_parts(app: Legacy, in_front: Behind) -> None:
    """Where the app's endpoint needs two names, the task has both."""
    app.answer = lambda _: reply({"role": "assistant", "content": "Hello"})
    path = "/chat/check_generation?taskId={1}&sessionId={2}"
    with in_front(upstream_status=path, upstream_mapping="nextcloud") as gateway:
        with watch(gateway, "12~34") as viewer:
            assert viewer.to_end().view.text == "Hello"
        assert app.asked[0].target == "/chat/check_generation?taskId=12&sessionId=34"
        assert app.asked[0].header("ocs-apirequest") == "true"


def test_a_long_text_is_told_whole(app: Legacy, in_front: Behind) -> None:
    """More than a message can carry, and growing."""
    text = "é0123456789" * 120_000
    app.tasks["job-1"] = runs(text[:1_200_000])
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.body) > 1_200_000)
        app.tasks["job-1"] = {"status": "done", "text": text}
        assert viewer.to_end().view.text == text
        assert of_kind(viewer, Reset) == []


# --- polls --------------------------------------------------------------------------------------------------


def test_a_long_poll_follows(app: Legacy, in_front: Behind) -> None:
    """It waits for the app's answer like a stream does."""
    app.tasks["job-1"] = {"status": "done", "text": "Hello"}
    with in_front() as gateway:
        view = gateway.get("/tasks/job-1/status?wait=10").json()
        assert (view["state"], view["text"]) == ("succeeded", "Hello")


def test_a_plain_poll_shows_the_task_as_it_is_now(app: Legacy, in_front: Behind) -> None:
    """Where nobody follows, the app is asked once for it; where it can't be, the log must do."""
    app.tasks["job-1"] = runs("Hel")
    with in_front() as gateway:
        assert gateway.get("/tasks/job-1/status?after=0").json()["text"] == "Hel"
        app.tasks["job-1"] = runs("Hello")
        assert gateway.get("/tasks/job-1/status").json()["text"] == "Hello"
        eventually(lambda: stands_still(app, 0.3))
        assert len(app.asked) == 2
        app.stop()
        assert gateway.get("/tasks/job-1/status").json()["text"] == "Hello"


def test_what_was_polled_is_one_attempt_of_one_writer(
    app: Legacy, in_front: Behind, redis_client: redis.Redis
) -> None:
    """Whoever polls, and however often: no retry, no lease of a worker, and keys that don't stay for ever."""
    app.tasks["job-1"] = runs("Hel")
    with in_front() as gateway:
        for _ in range(3):
            with watch(gateway) as viewer:
                assert viewer.text_is("Hel").view.attempt == 1
        assert redis_client.hget("bridge:{job-1}:task", "token") == POLLER_TOKEN.encode()
        assert redis_client.hget("bridge:{job-1}:task", "lease") == b"0"
