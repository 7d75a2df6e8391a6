"""`Hub.cut`: the connections of a task's streams are broken off, and their clients come back by position."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from bridge.events import Chunk
from tests.gateway.running import Running, running
from tests.gateway.test_mount import parent
from tests.gateway.test_stream import big_texts
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

IN_ORDER = b"\r\n0\r\n\r\n"
"""How an answer ends that was not broken off."""


def cut(gateway: Running, task_id: str = "job-1") -> int:
    """Cut on the gateway's own loop."""
    return gateway.inside(lambda: gateway.hub.cut(task_id))


def texts(viewer: Viewer) -> str:
    """What a viewer got of the main text, whatever it began with."""
    return "".join(event.text for event in viewer.events if isinstance(event, Chunk))


def test_all_streams_of_the_task_are_cut_and_come_back(gateway: Running, writer: Writer) -> None:
    """Their sockets break in the midst of the answer; with their positions they get the rest, once."""
    writer.open().text("before ")
    viewers = [watch(gateway) for _ in range(5)]
    for viewer in viewers:
        viewer.text_is("before ")
    assert cut(gateway) == 5
    for viewer in viewers:
        viewer.to_end().close()
        assert not viewer.received.endswith(IN_ORDER)
    eventually(lambda: gateway.followers() == 0 and gateway.connections() == 0)
    writer.text("meanwhile ")
    for viewer in viewers:
        with watch(gateway, after=str(viewer.ids[-1])) as again:
            again.text_is("meanwhile ")
    with watch(gateway, after=str(viewers[0].ids[-1])) as again:
        again.text_is("meanwhile ")
        writer.end("succeeded", Chunk("after"))
        again.to_end()
    assert texts(viewers[0]) + texts(again) == "before meanwhile after"
    assert viewers[0].ids + again.ids == sorted({*viewers[0].ids, *again.ids})


def test_nobody_else_is_cut(gateway: Running, writer: Writer, redis_url: str) -> None:
    """Neither streams of other tasks nor long polls of this one, which are not counted either."""
    position = writer.open().text("a").position
    with Writer(redis_url, "job-2") as other:
        other.open()
        long_poll = Viewer(gateway, f"/tasks/job-1/status?after={position}&wait=60")
        with watch(gateway) as viewer, watch(gateway, "job-2") as bystander, long_poll as poll:
            viewer.text_is("a")
            bystander.until(lambda v: len(v.frames) == 1)
            eventually(lambda: gateway.followers("job-1") == 2)
            assert cut(gateway) == 1
            viewer.to_end()
            other.text("still there")
            bystander.text_is("still there")
            writer.text("b")
            assert poll.to_end().status == 200


def test_a_task_that_nobody_watches(gateway: Running, writer: Writer) -> None:
    """There is nothing to cut, known or not."""
    writer.open()
    gateway.get("/tasks/job-1/status")
    assert cut(gateway) == 0
    assert cut(gateway, "nobody") == 0


def test_a_stream_is_cut_once(gateway: Running, writer: Writer) -> None:
    """Who asks twice before the connection is gone is told how many he has cut."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        hub = gateway.hub
        assert gateway.inside(lambda: (hub.cut("job-1"), hub.cut("job-1"))) == (1, 0)
        viewer.to_end()


def test_a_client_that_reads_nothing_is_cut_too(redis_url: str, writer: Writer) -> None:
    """What waits for it is thrown away at once; it is not waited for."""
    writer.open()
    with running(redis_url, stall_timeout_seconds=10_000) as gateway:
        with watch(gateway, receive_buffer=4096) as stuck:
            stuck.until(lambda v: len(v.frames) == 1)
            written = big_texts(writer)
            assert cut(gateway) == 1
            eventually(lambda: gateway.followers() == 0 and gateway.connections() == 0)
            stuck.to_end()
        with watch(gateway, after=str(stuck.ids[-1])) as again:
            writer.end()
            again.to_end()
    assert texts(stuck) + texts(again) == written


def test_a_stream_that_has_not_begun_is_cut_too() -> None:
    """While a Redis that says nothing is asked what to answer, the connection breaks all the same."""
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        url = "redis://{}:{}/0".format(*mute.getsockname())
        with running(url, ready=False) as gateway, watch(gateway, after="5-5") as viewer:
            eventually(lambda: gateway.followers() == 1)
            assert cut(gateway) == 1
            viewer.to_end()
            assert not viewer.received.endswith(IN_ORDER)
            eventually(lambda: gateway.followers() == 0)


@pytest.mark.parametrize("known", [True, False])
def test_under_any_other_server_the_stream_ends(redis_url: str, writer: Writer, known: bool) -> None:
    """One that can't cut connections is not needed: the answer ends before its time, and they come back."""
    if known:
        writer.open().text("a")
    with parent(redis_url) as app, Viewer(app, "/bridge/tasks/job-1/events") as viewer:
        viewer.until(lambda v: v.view.text == "a" if known else b"\n" in v.body)
        hub = app.gateway.hub
        assert hub.cut("job-1") == 1
        viewer.to_end()
        assert viewer.received.endswith(IN_ORDER)
        if not known:
            writer.open().text("a")
        writer.text("b")
        after = {"Last-Event-ID": str(viewer.ids[-1])} if known else {}
        with Viewer(app, "/bridge/tasks/job-1/events", headers=after) as again:
            again.until(lambda v: texts(viewer) + texts(v) == "ab")
