"""What it costs that somebody decides: something when a request begins, nothing per event."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.gateway.auth import Visitor
from tests.credentials import SECRET, bearer, token
from tests.elsewhere import Said, elsewhere
from tests.gateway.test_guards import FIRST_READ, counted, encodes
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer

__all__ = ["encodes"]

STATUS, EVENTS = "/tasks/job-1/status", "/tasks/job-1/events"
JWT: dict[str, Any] = {"auth": "jwt", "jwt_keys": SECRET}
ANN, BOB = bearer(token(sub="ann")), bearer(token(sub="bob"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Grows by the owner, whenever it is looked at whether a visitor may see a task."""
    calls: list[str | None] = []
    real = Visitor.may_see

    def counting(visitor: Visitor, owner: str | None) -> bool:
        calls.append(owner)
        return real(visitor, owner)

    monkeypatch.setattr(Visitor, "may_see", counting)
    return calls


def test_an_event_for_its_owners_costs_what_it_costs_for_all(writer: Writer, encodes: list[int]) -> None:
    """No Redis and one encode, however many follow; and who may not see it gets not a byte."""
    writer.create("ann")
    writer.open()
    with counted(writer, **JWT) as (gateway, commands):
        viewers = [Viewer(gateway, EVENTS, headers=ANN).until(lambda v: v.frames != []) for _ in range(20)]
        stranger = Viewer(gateway, EVENTS, headers=BOB).until(lambda v: v.body != b"")
        received = stranger.received
        commands.since_last()
        encodes.clear()
        for number in range(1, 11):
            writer.text("a", "b")
            for viewer in viewers:
                viewer.until(lambda v: len(v.view.text) == 2 * number)  # noqa: B023 (called at once)
        assert encodes == [2] * 10
        assert commands.since_last() == []
        # An answer of the gateway's comes after all that it sent before.
        assert gateway.get(STATUS, headers=BOB).status_code == 404
        stranger.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.socket.recv(1)
        assert stranger.received == received
        for viewer in (*viewers, stranger):
            viewer.close()


def test_where_nobody_is_asked_no_event_asks_either(writer: Writer, asked: list[str | None]) -> None:
    """With auth none, whose a task is isn't looked at while it streams."""
    writer.open()
    with counted(writer) as (gateway, _), Viewer(gateway, EVENTS) as viewer:
        viewer.until(lambda v: v.frames != [])
        before = len(asked)
        for number in range(1, 51):
            writer.text("x")
            viewer.text_is("x" * number)
        # The hub's clock looks once a second whether a wait is over.
        assert len(asked) - before < 40


def test_a_poll_of_ones_own_hot_task_costs_no_redis(writer: Writer) -> None:
    """As it does for all. A cancel of it costs one look more: whose it is."""
    writer.create("ann")
    writer.open()
    with counted(writer, **JWT) as (gateway, commands):
        gateway.get(STATUS, headers=ANN)
        assert commands.since_last() == FIRST_READ
        for headers in (ANN, BOB) * 5:
            gateway.get(STATUS, headers=headers)
        assert commands.since_last() == []
        assert gateway.post("/tasks/job-1/cancel", headers=BOB).status_code == 404
        assert commands.since_last() == ["TIME", "HMGET", "EXISTS"]


def test_a_pages_requests_cost_the_app_one_question(writer: Writer) -> None:
    """A stream and the polls beside it come with the same credentials."""
    writer.open()
    with elsewhere(Said()) as app:
        with counted(writer, auth="forward", forward_url=app.url) as (gateway, _):
            headers = {"Cookie": "session=1"}
            with Viewer(gateway, EVENTS, headers=headers) as viewer:
                viewer.until(lambda v: v.frames != [])
                for _ in range(5):
                    assert gateway.get(STATUS, headers=headers).status_code == 200
        assert len(app.asked) == 1
