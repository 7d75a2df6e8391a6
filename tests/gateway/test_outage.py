"""Redis away: at the start, in the midst, stopped, restarted empty or with what it had saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from bridge.events import Chunk, Reset
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.servers import RedisProcess
from tests.waiting import eventually

STATUS = "/tasks/job-1/status"
CANCEL = "/tasks/job-1/cancel"


def assert_away(answer: httpx.Response) -> None:
    """503 in the one shape of errors, with the time to come back."""
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == "redis_away"


def test_the_gateway_starts_and_stays_up_without_redis() -> None:
    """It is alive and not ready; polls and cancels say that Redis is away and when to come back."""
    with running(RedisProcess().url, ready=False) as gateway:
        for _ in range(3):
            assert gateway.get("/healthz").status_code == 200
            assert_away(gateway.get("/readyz"))
            assert_away(gateway.get(STATUS))
            assert_away(gateway.get(f"{STATUS}?wait=5&after=5-5"))
            assert_away(gateway.post(CANCEL))
        assert gateway.get("/openapi.json").status_code == 200


def test_a_new_stream_is_sent_away_kindly() -> None:
    """It waits for `outage_wait_seconds`; then it is told when to come back and why, under status 200."""
    for after in (None, "5-5"):
        with running(RedisProcess().url, ready=False, outage_wait_seconds=0.1) as gateway:
            with watch(gateway, after=after) as viewer:
                viewer.to_end()
        assert viewer.status == 200
        assert re.fullmatch(rb"retry: \d+\n(:\n)*retry: \d+\n: [^\n]*Redis is away\n", viewer.body)


def test_a_stream_that_waits_is_served_when_redis_comes() -> None:
    """Nothing has to be restarted: the gateway becomes ready, and who waited gets the task."""
    server = RedisProcess()
    with running(server.url, ready=False) as gateway, watch(gateway) as viewer:
        viewer.head()
        assert_away(gateway.get("/readyz"))
        with server, Writer(server.url) as writer:
            writer.open()
            writer.text("at last")
            writer.end()
            viewer.to_end()
            assert viewer.view.text == "at last"
            eventually(lambda: gateway.get("/readyz").status_code == 200)
            assert gateway.get(STATUS).json()["text"] == "at last"


def test_redis_dies_and_comes_back_empty() -> None:
    """Polls say that it is away, the stream stays open; the worker's repair reaches it as `reset` and all."""
    with RedisProcess() as server, Writer(server.url) as writer, running(server.url) as gateway:
        last = writer.open().text("acknow").position
        with watch(gateway) as viewer:
            viewer.text_is("acknow")
            server.kill()
            eventually(lambda: gateway.get("/readyz").status_code == 503)
            assert_away(gateway.get(STATUS))
            server.start()
            writer.restore(Chunk("acknowledged"), known_epoch=last.epoch)
            viewer.text_is("acknowledged")
            writer.end()
            viewer.to_end()
        assert any(isinstance(event, Reset) for event in viewer.events)
        assert viewer.ids == sorted(set(viewer.ids))
        assert gateway.get(STATUS).json() == writer.view().as_dict() == viewer.view.as_dict()


def test_redis_comes_back_with_what_it_had(tmp_path: Path) -> None:
    """When nothing was lost nothing is reset: the stream goes on where it was."""
    with (
        RedisProcess(data_dir=tmp_path) as server,
        Writer(server.url) as writer,
        running(server.url) as gateway,
    ):
        writer.open()
        writer.text("kept ")
        with watch(gateway) as viewer:
            viewer.text_is("kept ")
            writer.client.save()
            server.restart()
            writer.text("on")
            writer.end()
            viewer.to_end()
        assert viewer.view.text == "kept on"
        assert not any(isinstance(event, Reset) for event in viewer.events)


def test_redis_lost_a_part(tmp_path: Path) -> None:
    """A restart with older data under the same epoch: who saw more is reset to what there is."""
    with (
        RedisProcess(data_dir=tmp_path) as server,
        Writer(server.url) as writer,
        running(server.url) as gateway,
    ):
        writer.open()
        writer.text("saved ")
        writer.client.save()
        writer.text("lost")
        with watch(gateway) as viewer:
            viewer.text_is("saved lost")
            server.kill()
            server.start()
            viewer.text_is("saved ")
            assert any(isinstance(event, Reset) for event in viewer.events)
            eventually(lambda: gateway.get(STATUS).json().get("text") == "saved ")


def test_redis_stops_and_goes_on(redis_url: str) -> None:
    """While it doesn't answer, polls are refused instead of hanging; afterwards streams go on."""
    with RedisProcess() as server, Writer(server.url) as writer:
        with running(server.url, lease_seconds=1.0, probe_seconds=0.5) as gateway, watch(gateway) as viewer:
            writer.open()
            writer.text("be")
            viewer.text_is("be")
            server.pause()
            eventually(lambda: gateway.get("/readyz").status_code == 503)
            assert_away(gateway.get(STATUS))
            assert gateway.get("/healthz").status_code == 200
            server.resume()
            writer.text("fore")
            viewer.text_is("before")
            eventually(lambda: gateway.hub.ready)
            assert not any(isinstance(event, Reset) for event in viewer.events)


def test_an_outage_does_not_make_a_task_unknown() -> None:
    """A stream that waits for its task doesn't hear "no such task" from a gateway that can't know."""
    with RedisProcess() as server:
        settings: dict[str, Any] = {"unknown_task_wait_seconds": 2.0, "heartbeat_seconds": 0.05}
        with running(server.url, **settings) as gateway, watch(gateway) as viewer:
            eventually(lambda: gateway.followers() == 1)
            server.kill()
            eventually(lambda: not gateway.hub.ready)
            beats = len(viewer.body)
            # Fifty heartbeats, of two bytes each: more than the wait for an unknown task takes.
            viewer.until(lambda v: len(v.body) > beats + 100)
            assert viewer.frames == []
            server.start()
            with Writer(server.url) as writer:
                writer.open()
                writer.end()
            viewer.to_end()
        assert viewer.view.state == "succeeded"


def check_leftovers(gateway: Running) -> None:
    """What the hub keeps for later is empty when there is nothing to be done later."""
    readers, acks = gateway.hub._readers, gateway.hub._link._acks

    def left() -> tuple[int, int, int]:
        return len(readers._postponed), readers._due.qsize(), len(acks)

    eventually(lambda: gateway.inside(left) == (0, 0, 0))


def test_an_outage_leaves_nothing_behind() -> None:
    """Reads that failed and acknowledgements that never came are not kept."""
    server = RedisProcess()
    with running(server.url, ready=False, linger_seconds=0.1, outage_wait_seconds=0.1) as gateway:
        for number in range(20):
            assert_away(gateway.get(f"/tasks/poll-{number}/status"))
        viewers = [watch(gateway, f"stream-{number}") for number in range(20)]
        for viewer in viewers:
            viewer.to_end().close()
        with server:
            eventually(lambda: gateway.hub.ready)
            eventually(lambda: gateway.inside(lambda: not gateway.hub._channels))
            assert gateway.inside(lambda: gateway.hub._by_name) == {}
            check_leftovers(gateway)
