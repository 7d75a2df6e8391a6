"""Polls and long polls over a real socket."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from bridge.events import Chunk, Data, Position, Progress
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

VIEW_MEMBERS = [
    "id", "state", "attempt", "position", "text", "fields", "progress", "message", "data", "cancel_requested",
    "result", "error", "usage", "truncated", "created_at", "started_at", "updated_at", "ended_at",
]  # fmt: skip
STATUS = "/tasks/job-1/status"


def error_code(answer: httpx.Response) -> str:
    """The code of an error, which has the one shape of all errors."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    return str(error["code"])


class LongPoll:
    """A poll that waits, in a thread of its own; begun when the gateway has it."""

    def __init__(self, gateway: Running, query: str, headers: dict[str, str] | None = None) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._answer: Future[httpx.Response] = self._pool.submit(
            gateway.get, f"{STATUS}?{query}", headers=headers
        )
        eventually(lambda: self._answer.done() or gateway.followers("job-1") > 0)

    @property
    def waits(self) -> bool:
        return not self._answer.done()

    def answer(self) -> httpx.Response:
        answer = self._answer.result(10)
        self._pool.shutdown()
        return answer


def test_the_view_has_one_shape(gateway: Running, writer: Writer) -> None:
    """A poll prints the fold of the log, each member always there."""
    writer.create()
    writer.open()
    writer.append(Chunk("Hel"), Chunk("hm", "reasoning"), Progress(0.4, "reading"), Data("sources", [1]))
    answer = gateway.get(STATUS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == VIEW_MEMBERS
    assert body == writer.view().as_dict()
    assert (body["id"], body["state"], body["text"]) == ("job-1", "running", "Hel")
    assert (body["progress"], body["message"]) == (0.4, "reading")
    assert (body["fields"], body["data"]) == ({"reasoning": "hm"}, {"sources": [1]})
    for time in ("created_at", "started_at", "updated_at"):
        assert body[time].endswith("Z")
    assert body["ended_at"] is None


def test_all_paths_mean_the_same(gateway: Running, writer: Writer) -> None:
    """Old clients keep the path that they know."""
    writer.open()
    writer.text("same")
    paths = [STATUS, "/status/job-1", "/status?task_id=job-1"]
    bodies = [gateway.get(path).content for path in paths]
    assert len(set(bodies)) == 1


def test_retry_after_stands_there_while_the_task_runs(redis_url: str, writer: Writer) -> None:
    """A poller is told when to ask again, in whole seconds rounded up, and after the end no more."""
    writer.open()
    with running(redis_url, poll_interval_seconds=1.2) as gateway:
        assert gateway.get(STATUS).headers["retry-after"] == "2"
        writer.end()
        eventually(lambda: gateway.get(STATUS).json()["state"] == "succeeded")
        assert "retry-after" not in gateway.get(STATUS).headers


def test_etag_is_the_position(gateway: Running, writer: Writer) -> None:
    """Who has the newest gets 304 without a body; any other tag gets the view."""
    position = writer.open().text("a").position
    tag = gateway.get(STATUS).headers["etag"]
    assert tag == f'"{position}"'
    for same in (tag, f"W/{tag}"):
        answer = gateway.get(STATUS, headers={"If-None-Match": same})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert answer.headers["retry-after"] == "2"
    for other in ('"5-5"', "nonsense", '"', "*"):
        assert gateway.get(STATUS, headers={"If-None-Match": other}).status_code == 200


def test_a_tag_from_a_quicker_gateway_makes_the_log_be_read(redis_url: str, writer: Writer) -> None:
    """A poller that is sent to and fro between gateways never sees an older view after a newer one."""
    writer.open().text("a")
    with running(redis_url, audit_seconds=1000.0, probe_seconds=1000.0) as gateway:
        assert gateway.get(STATUS).json()["text"] == "a"
        writer.elsewhere = True  # another gateway has this event already
        newest = f'"{writer.text("b").position}"'
        assert gateway.get(STATUS, headers={"If-None-Match": newest}).status_code == 304
        assert gateway.get(STATUS).json()["text"] == "ab"


def test_a_long_poll_after_the_start_answers_when_there_is_something(
    gateway: Running, writer: Writer
) -> None:
    """A client that has nothing yet, and says so, doesn't wait for the end."""
    writer.open().text("a")
    assert gateway.get(f"{STATUS}?after=0&wait=60").json()["text"] == "a"


def test_after_gives_only_the_text_after_it(gateway: Running, writer: Writer) -> None:
    """The view with less text: only what the client lacks, of every field, and it says so."""
    writer.open()
    position = writer.append(Chunk("old"), Chunk("old", "reasoning")).position
    writer.append(Chunk("new"), Chunk("er", "reasoning"), Chunk("!"), Progress(0.5))
    answer = gateway.get(f"{STATUS}?after={position}")
    body = answer.json()
    assert list(body) == [*VIEW_MEMBERS, "reset"]
    assert (body["text"], body["fields"], body["reset"]) == ("new!", {"reasoning": "er"}, False)
    assert body["progress"] == 0.5
    assert answer.headers["etag"] == f'"{body["position"]}"'
    assert gateway.get(f"{STATUS}?after={body['position']}").json()["text"] == ""


@pytest.mark.parametrize("start", ["0", "-1", ""])
def test_after_the_start_gives_everything(gateway: Running, writer: Writer, start: str) -> None:
    """Nothing was had before, so nothing is reset."""
    writer.open()
    writer.text("all")
    body = gateway.get(f"{STATUS}?after={start}").json()
    assert (body["text"], body["reset"]) == ("all", False)


def test_after_a_position_of_another_log_gives_everything_and_says_reset(
    gateway: Running, writer: Writer
) -> None:
    """Of an earlier epoch, of a later one, or ahead of the log: the client is told to forget."""
    newest = writer.open().text("all").position
    for position in (
        Position(newest.epoch - 1, 1),
        Position(newest.epoch + 1, 1),
        Position(newest.epoch, newest.seq + 1),
    ):
        body = gateway.get(f"{STATUS}?after={position}").json()
        assert (body["text"], body["reset"]) == ("all", True)


def test_after_a_retry_says_reset(gateway: Running, writer: Writer) -> None:
    """A reset in the same epoch voids what the client has, too."""
    position = writer.open().text("first").position
    writer.open()
    writer.text("second")
    body = gateway.get(f"{STATUS}?after={position}").json()
    assert (body["text"], body["reset"], body["attempt"]) == ("second", True, 2)


def test_an_unknown_task_is_404(gateway: Running) -> None:
    """An id that nobody used yet; it is not remembered either."""
    for path in (STATUS, "/status/job-1", "/status?task_id=job-1", f"{STATUS}?wait=5", f"{STATUS}?after=5-5"):
        answer = gateway.get(path)
        assert (answer.status_code, error_code(answer)) == (404, "not_found")
    eventually(lambda: gateway.inside(lambda: not gateway.hub._channels))


def test_a_task_is_found_as_soon_as_it_is_there(gateway: Running, writer: Writer) -> None:
    """A poll that came too early doesn't hide the task from the next one."""
    assert gateway.get(STATUS).status_code == 404
    writer.open()
    writer.text("here")
    assert gateway.get(STATUS).json()["text"] == "here"


def test_long_poll_answers_the_next_change(gateway: Running, writer: Writer) -> None:
    """With a position, it waits until there is another one."""
    position = writer.open().text("a").position
    for by_tag in (False, True):
        poll = LongPoll(
            gateway,
            "wait=30" if by_tag else f"wait=30&after={position}",
            {"If-None-Match": f'"{position}"'} if by_tag else None,
        )
        assert poll.waits
        position = writer.text("b").position
        answer = poll.answer()
        assert answer.status_code == 200
        assert answer.json()["position"] == str(position)


def test_long_poll_with_an_old_position_answers_at_once(gateway: Running, writer: Writer) -> None:
    """There is a change already."""
    position = writer.open().text("a").position
    writer.text("b")
    body = gateway.get(f"{STATUS}?wait=1000&after={position}").json()
    assert body["text"] == "b"


def test_long_poll_without_a_position_waits_for_the_end(gateway: Running, writer: Writer) -> None:
    """Changes on the way don't answer it."""
    writer.open()
    poll = LongPoll(gateway, "wait=30")
    writer.text("on the way")
    eventually(lambda: gateway.get(STATUS).json()["text"] == "on the way")
    assert poll.waits
    writer.end()
    assert poll.answer().json()["state"] == "succeeded"


def test_long_poll_that_sees_nothing_says_so(redis_url: str, writer: Writer) -> None:
    """When the time is up: 304 for who sent a tag, the view for who waited for the end. `wait` is capped."""
    position = writer.open().text("a").position
    with running(redis_url, longest_wait_seconds=0.05) as gateway:
        answer = gateway.get(f"{STATUS}?wait=1e309", headers={"If-None-Match": f'"{position}"'})
        assert answer.status_code == 304
        assert gateway.get(f"{STATUS}?wait=0.01").json()["state"] == "running"
        body = gateway.get(f"{STATUS}?wait=5&after={position}").json()
        assert (body["text"], body["reset"], body["position"]) == ("", False, str(position))


def test_long_poll_of_a_task_that_vanishes_is_404(gateway: Running, writer: Writer) -> None:
    """When Redis loses the task, nobody goes on waiting for its end."""
    writer.open()
    poll = LongPoll(gateway, "wait=60")
    writer.forget()
    assert poll.answer().status_code == 404


def test_long_poll_whose_client_leaves_is_let_go_at_once(gateway: Running, writer: Writer) -> None:
    """A closed connection frees its follower long before the wait is over."""
    writer.open()
    with Viewer(gateway, f"{STATUS}?wait=60"):
        eventually(lambda: gateway.followers() == 1)
    eventually(lambda: gateway.followers() == 0)


def test_head_of_a_status_has_no_body(gateway: Running, writer: Writer) -> None:
    """HEAD is GET without the body."""
    writer.open()
    with Viewer(gateway, STATUS, method="HEAD") as viewer:
        viewer.head()
    assert viewer.status == 200
    assert viewer.headers["etag"] == gateway.get(STATUS).headers["etag"]
    assert viewer.body == b""


def test_polls_and_streams_tell_one_story(gateway: Running, writer: Writer) -> None:
    """While a worker writes: of any two readers one has a prefix of what the other has, a poll has at least
    what the same client saw before it asked, and its position never goes back.
    """
    writer.open()
    seen: list[dict[str, Any]] = []
    texts: list[tuple[str, str]] = []
    streams = [watch(gateway)]
    for number in range(60):
        writer.text(f"{number},", f"{number};")
        if number % 10 == 0:
            # Opened at the same moment: the stream's first events against the poll's text.
            streams.append(watch(gateway))
            polled = gateway.get(STATUS).json()["text"]
            streams[-1].until(lambda v: v.view.text != "")
            texts.append((polled, streams[-1].view.text))
        seen.append(gateway.get(STATUS).json())
    writer.end()
    whole = writer.view().text
    for stream in streams:
        assert stream.to_end().view.text == whole
        stream.close()
    positions = [Position.parse(one["position"]) for one in seen]
    assert positions == sorted(positions)
    assert all(whole.startswith(text) for one in texts for text in one)
    assert all(whole.startswith(one["text"]) for one in seen)
    lengths = [len(one["text"]) for one in seen]
    assert lengths == sorted(lengths)


def test_polls_never_go_back_under_concurrent_writing(gateway: Running, redis_url: str) -> None:
    """Four pollers and two streams against a writer that doesn't wait for them."""
    with Writer(redis_url) as writer, ThreadPoolExecutor(6) as pool:
        writer.open()

        def poll() -> list[tuple[Position, str]]:
            seen = []
            with httpx.Client(base_url=gateway.url, timeout=10) as client:
                while True:
                    body = client.get(STATUS).json()
                    seen.append((Position.parse(body["position"]), body["text"]))
                    if body["state"] == "succeeded":
                        return seen

        def stream() -> list[tuple[Position, str]]:
            with watch(gateway) as viewer:
                viewer.to_end()
                return [(position, viewer.view.text) for position in viewer.ids[-1:]]

        readers = [pool.submit(poll) for _ in range(4)] + [pool.submit(stream) for _ in range(2)]
        for number in range(300):
            writer.text(f"{number} ")
        writer.end()
        whole = writer.view()
        for reader in readers:
            seen = reader.result(30)
            assert [position for position, _ in seen] == sorted(position for position, _ in seen)
            assert all(whole.text.startswith(text) for _, text in seen)
            assert seen[-1] == (whole.position, whole.text)
