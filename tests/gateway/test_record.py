"""What the log says of a stream when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from bridge.events import UNKNOWN_TASK_END
from bridge.settings import Settings
from bridge.tickets import ticket
from tests.credentials import TICKET_KEY
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.servers import free_port
from tests.waiting import eventually

MEMBERS = ("task", "reason", "seconds", "bytes", "events", "resumed")
STUCK: dict[str, Any] = {"stall_timeout_seconds": 0.2, "heartbeat_seconds": 0.05}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[dict[str, Any]]]:
    """Waits for that many lines; what they hold."""
    caplog.set_level(logging.INFO, "bridge.streams")

    def lines(number: int) -> list[dict[str, Any]]:
        def found() -> list[logging.LogRecord]:
            return [record for record in caplog.records if record.name == "bridge.streams"]

        eventually(lambda: len(found()) >= number)
        assert len(found()) == number
        return [{name: getattr(record, name) for name in MEMBERS} for record in found()]

    return lines


def reasons(lines: list[dict[str, Any]]) -> list[str]:
    """Why each is over."""
    return [line["reason"] for line in lines]


def test_a_stream_that_came_to_the_end(
    gateway: Running, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """One line: the task, how long, the bytes that were its body, and its events."""
    writer.open().text("one", "two")
    writer.end()
    with watch(gateway) as viewer:
        viewer.to_end()
    (line,) = said(1)
    assert line.pop("seconds") >= 0
    assert line == {
        "task": "job-1", "reason": "ended", "bytes": len(viewer.body), "events": 4, "resumed": False
    }  # fmt: skip


def test_live_events_are_counted_as_merged_ones_are(
    gateway: Running, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """By how far the stream was brought, from its position on; and by the bytes of the body."""
    position = str(writer.open().text("old").position)
    with watch(gateway) as first, watch(gateway, after=position) as second:
        for text in ("a", "b"):
            writer.text(text)
            for viewer in (first, second):
                viewer.until(lambda v: v.view.text.endswith(text))  # noqa: B023 (called at once)
        writer.end()
        first.to_end()
        second.to_end()
    lines = said(2)
    assert sorted((line["resumed"], line["events"]) for line in lines) == [(False, 5), (True, 3)]
    for line in lines:
        assert line["bytes"] >= len((second if line["resumed"] else first).body)


def test_a_replaced_log_is_counted_twice(
    redis_url: str, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """What a stream was given of the old log, and all of the new one."""
    writer.open().text("a", "b")
    with running(redis_url) as gateway, watch(gateway) as viewer:
        viewer.text_is("ab")
        writer.forget()
        writer.open()
        writer.text("new")
        writer.end()
        viewer.to_end()
        resets = gateway.inside(lambda: gateway.hub.counts.resets)
    (line,) = said(1)
    assert (line["reason"], line["events"]) == ("ended", 3 + 3)
    assert resets == 1


def test_who_has_it_all(
    gateway: Running, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """A 204 is a stream that was over before it began, and that was resumed."""
    end = writer.open().end().position
    with watch(gateway, after=str(end)) as viewer:
        viewer.to_end()
    with watch(gateway, "nobody", after=str(UNKNOWN_TASK_END)) as viewer:
        viewer.to_end()
    lines = said(2)
    assert reasons(lines) == ["no_more", "no_more"]
    assert all(line["resumed"] and line["bytes"] == line["events"] == 0 for line in lines)


def test_a_client_that_left(
    gateway: Running, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """In the midst of the task."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
    assert reasons(said(1)) == ["gone"]


def test_a_client_that_takes_nothing(
    redis_url: str, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """It is cut off for that, and the line says so; not that it left."""
    writer.open()
    with running(redis_url, **STUCK) as gateway, watch(gateway, receive_buffer=4096) as stuck:
        stuck.until(lambda v: len(v.frames) == 1)
        for _ in range(200):
            writer.text("x" * 40_000)
        assert reasons(said(1)) == ["stalled"]


def test_a_stream_that_was_cut(
    gateway: Running, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """By a drill, which isn't the client's doing."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        assert gateway.inside(lambda: gateway.hub.cut("job-1")) == 1
        assert reasons(said(1)) == ["cut"]


def test_a_gateway_that_goes_away(
    redis_url: str, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """Open streams were drained."""
    writer.open()
    with running(redis_url) as gateway:
        viewers = [watch(gateway).until(lambda v: len(v.frames) == 1) for _ in range(3)]
    for viewer in viewers:
        viewer.close()
    assert reasons(said(3)) == ["drained"] * 3


def test_a_task_that_nobody_knows(redis_url: str, said: Callable[[int], list[dict[str, Any]]]) -> None:
    """It was waited for."""
    with running(redis_url, unknown_task_wait_seconds=0.1, heartbeat_seconds=0.1) as gateway:
        with watch(gateway, "nobody") as viewer:
            viewer.to_end()
    assert reasons(said(1)) == ["unknown_task"]


def test_a_redis_that_stays_away(said: Callable[[int], list[dict[str, Any]]]) -> None:
    """The client was told to come back."""
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    quick: dict[str, Any] = {"outage_wait_seconds": 0.1, "heartbeat_seconds": 0.1}
    with running(nowhere, ready=False, **quick) as gateway, watch(gateway) as viewer:
        viewer.to_end()
    assert reasons(said(1)) == ["redis_away"]


def test_who_was_not_let_in(
    redis_url: str, writer: Writer, said: Callable[[int], list[dict[str, Any]]]
) -> None:
    """Over a limit, and without good credentials, whether they came with a position or not."""
    writer.open()
    with running(redis_url, unlimited_addresses="", max_streams=1) as gateway, watch(gateway) as inside:
        inside.until(lambda v: len(v.frames) == 1)
        with watch(gateway, after="1-1") as refused:
            refused.to_end()
        assert [(line["reason"], line["resumed"]) for line in said(1)] == [("refused", True)]
    said(2)
    with running(redis_url, auth="jwt", ticket_keys=TICKET_KEY) as gateway:
        assert gateway.get("/tasks/job-1/events").status_code == 401
    assert reasons(said(3)) == ["refused", "gone", "refused"]


def test_a_mistake_of_ours(
    redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str],
    said: Callable[[int], list[dict[str, Any]]],
) -> None:  # fmt: skip
    """What we didn't think of is not called by another name."""
    expected_errors.append("Exception in ASGI application")
    expected_errors.append("returned without completing")

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("bridge.gateway.stream.native", broken)
    writer.open()
    with running(redis_url) as gateway, Viewer(gateway, "/tasks/job-1/events") as viewer:
        viewer.to_end()
        assert reasons(said(1)) == ["failed"]


def test_no_credentials_are_in_it(
    redis_url: str, writer: Writer, caplog: pytest.LogCaptureFixture,
    said: Callable[[int], list[dict[str, Any]]],
) -> None:  # fmt: skip
    """Neither the ticket, nor whose it is, nor an address."""
    writer.open()
    writer.end()
    settings = Settings(ticket_keys=TICKET_KEY)
    secret = ticket("job-1", settings=settings)
    with running(redis_url, auth="jwt", ticket_keys=TICKET_KEY) as gateway:
        assert gateway.get(f"/tasks/job-1/events?ticket={secret}").status_code == 200
    said(1)
    (record,) = [one for one in caplog.records if one.name == "bridge.streams"]
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
    assert set(vars(record)) - plain == set(MEMBERS)
    assert secret not in str(vars(record))
    assert "127.0.0.1" not in str(vars(record))
