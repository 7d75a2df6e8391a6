"""Events without measure, and what is none: as a broken worker writes them, or whoever else reaches Redis.

Redis stands on our side: who writes there decides what tasks say. But one task's log must take neither the
gateway down nor another task, nor put lines of its own into the log or frames into a stream.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from bridge.events import Chunk, Data, Progress
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

MEGABYTE = 1_000_000
EVIL = "evil-93c1"


@pytest.fixture
def watched(redis_url: str) -> Iterator[Running]:
    """A gateway, on which a stream and polls of another task must not notice anything."""
    with (
        running(redis_url) as gateway,
        Writer(redis_url, "bystander", lease_ms=0) as writer,
        watch(gateway, "bystander") as viewer,
    ):
        writer.open().text("before ")
        viewer.text_is("before ")
        yield gateway
        writer.text("and after")
        viewer.text_is("before and after")
        assert gateway.get("/tasks/bystander/status").json()["text"] == "before and after"
        # On a busy machine it may just then wait for a probe.
        eventually(lambda: gateway.get("/readyz").status_code == 200)


def put(writer: Writer, kind: bytes, data: bytes, *, publish: bool = True) -> None:
    """Append an event that no script of ours has seen, and make the task's hash fit it."""
    hash_key, log = writer.keys.task(writer.task_id), writer.keys.log(writer.task_id)
    epoch, seq, size = (int(item or 0) for item in writer.client.hmget(hash_key, "epoch", "seq", "bytes"))
    position = f"{epoch}-{seq + 1}"
    writer.client.xadd(log, {"kind": kind, "data": data}, id=position)
    writer.client.hset(hash_key, mapping={"seq": seq + 1, "bytes": size + len(data)})
    if publish:
        message = position.encode() + b"\n" + kind + b" " + data
        writer.client.publish(writer.keys.channel(writer.task_id), message)


def assert_no_bugs(caplog: pytest.LogCaptureFixture) -> None:
    """What was logged is about what was found, each in one line, and no exception of ours."""
    ours = [record for record in caplog.records if record.name.startswith("bridge")]
    assert [record.getMessage() for record in ours if record.exc_info] == []
    assert [line for line in map(logging.LogRecord.getMessage, ours) if not line.isprintable()] == []


# --- JSON -----------------------------------------------------------------------------------------------


def named(value: bytes) -> bytes:
    """The data of a `data` event with this value, as it is."""
    return b'{"name":"n","value":' + value + b"}"


UNREADABLE: dict[str, tuple[bytes, bytes]] = {
    "depth of lists that never end": (b"data", b"[" * 200_000),
    "depth of objects that never end": (b"data", b'{"a":' * 200_000),
    "depth of lists": (b"data", named(b"[" * 50_000 + b"]" * 50_000)),
    "depth just too deep": (b"data", named(b"[" * 102 + b"]" * 102)),
    "depth in a kind that nobody knows": (b"novel", named(b"[" * 5000 + b"]" * 5000)),
    "a number of too many digits": (b"data", named(b"9" * 5000)),
    "a number beyond all": (b"data", named(b"1e999999999")),
    "a negative one": (b"data", named(b"-1e400")),
    "NaN": (b"data", named(b"NaN")),
    "Infinity": (b"data", named(b"-Infinity")),
    "a time beyond all": (b"data", b'{"name":"n","value":1,"at":1' + b"0" * 30 + b"}"),
    "a progress beyond all": (b"progress", b'{"progress":1e300,"message":null}'),
    "an attempt beyond all": (b"state", b'{"state":"running","attempt":1e300,"cancel_requested":false}'),
    "a length beyond all": (b"end", b'{"state":"failed","length":{"text":99999999999999999999}}'),
    "no UTF-8": (b"chunk", b'{"text":"\xff\xfe"}'),
    "UTF-16": (b"chunk", '{"text":"a"}'.encode("utf-16")),
    "a raw NUL": (b"chunk", b'{"text":"\x00"}'),
    "a raw line end in a text": (b"chunk", b'{"text":"a\n\nevent: end\ndata: {}\n\n"}'),
    "half an object": (b"chunk", b'{"text":"a"'),
    "more than an object": (b"chunk", b'{"text":"a"}{"text":"b"}'),
    "no object": (b"chunk", b'"text"'),
    "nothing": (b"chunk", b""),
    "a text that is none": (b"chunk", b'{"text":["a"]}'),
    "a state that is none": (b"state", b'{"state":"__proto__","attempt":1}'),
    "a kind of the browser's own": (b"error", b"{}"),
    "a kind with a line end": (b"chunk\nevent: end", b'{"text":"a"}'),
    "a kind with a return": (b"x\rdata: {}\r\r", b"{}"),
    "a kind without end": (b"k" * MEGABYTE, b"{}"),
    "no kind": (b"", b"{}"),
    "a kind that is no text": (b"\xff\xfe", b"{}"),
}


@pytest.mark.parametrize("publish", [True, False], ids=["published", "read"])
def test_json_depth_and_numbers(
    watched: Running, redis_url: str, publish: bool, expected_errors: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """That one task can't be read (500 `store_error`). What is heard is passed on unread, so a stream may
    bring it to its clients, in a frame of its own; written anew the task is as any other.
    """
    expected_errors.append("task odd-")
    for number, (name, (kind, data)) in enumerate(UNREADABLE.items()):
        with Writer(redis_url, f"odd-{number}") as writer, watch(watched, writer.task_id) as viewer:
            writer.open().text("good ")
            viewer.text_is("good ")
            put(writer, kind, data, publish=publish)
            if not publish:
                writer.text("behind it")
            eventually(lambda: watched.get(f"/tasks/{writer.task_id}/status").status_code == 500)
            answer = watched.get(f"/tasks/{writer.task_id}/status")
            assert answer.json()["error"]["code"] == "store_error", name
            if publish and kind == b"end":
                continue  # clients go when they hear that, whatever it says besides
            writer.forget()
            writer.open().text("as any other")
            viewer.until(lambda v: v.frames[-1].event == "chunk" and "as any other" in v.frames[-1].data)
            ours = ("state", "chunk", "reset")
            assert sum(frame.event not in ours for frame in viewer.frames) <= publish, name
            assert sum(frame.event == "reset" for frame in viewer.frames) == 1, name
    assert_no_bugs(caplog)


@pytest.mark.parametrize("data", [b'{"text":good}', b'{"text":0}'], ids=["as long", "shorter"])
def test_messages_that_do_not_say_what_the_log_says(
    watched: Running, writer: Writer, data: bytes, expected_errors: list[str]
) -> None:
    """What can't be read is read from the log, before anybody is told of it as the task's state; who was
    handed it is reset.
    """
    expected_errors.append("its log is read again")
    writer.open()
    with watch(watched) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        position = writer.text("a", "good").position
        writer.elsewhere = False
        writer.client.publish(
            writer.keys.channel("job-1"), b'%s\nchunk {"text":"a"}\nchunk %s' % (str(position).encode(), data)
        )
        viewer.until(lambda v: len(v.frames) >= 3)
        answer = watched.get("/tasks/job-1/status")
        assert (answer.json()["text"], answer.headers["etag"]) == ("agood", f'"{position}"')
        viewer.until(lambda v: v.frames[-1].event == "chunk" and "agood" in v.frames[-1].data)
        assert [frame.event for frame in viewer.frames[3:]] == ["reset", "state", "chunk"]


READABLE: dict[str, bytes] = {
    "depth as deep as may be": b"[" * 100 + b"]" * 100,
    "a number of many digits": b"9" * 4000,
    "the largest float": b"1.7976931348623157e308",
    "a number below all": b"1e-999999",
    "less than nothing": b"-0.0",
    "a number that no double holds": b"18446744073709551617",
    "half a character": b'"\\ud800"',
    "a NUL": b'"\\u0000"',
    "ends of lines": b'"\\r\\n\\n\\u2028\\u0085"',
    "white space around": b" \r\n\t[\r\n1 ]\r\n",
    "a name twice": b'{"a":1,"a":2}',
    "a prototype": b'{"__proto__":{"a":1},"constructor":{"prototype":{}}}',
    "a frame": b'"\\n\\nevent: end\\ndata: {\\"state\\":\\"succeeded\\"}\\n\\n"',
}


def test_odd_json_is_passed_on(
    watched: Running, redis_url: str, expected_errors: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What is JSON goes to streams and polls alike as what it says, whatever it looks like in a frame."""
    # Line ends between the tokens part a message in the wrong places; then the log is read.
    expected_errors.append("can't have 4 events")
    for number, (name, text) in enumerate(READABLE.items()):
        with Writer(redis_url, f"odd-{number}") as writer, watch(watched, writer.task_id) as viewer:
            writer.open()
            viewer.until(lambda v: len(v.frames) == 1)
            put(writer, b"data", named(text))
            viewer.until(lambda v: "n" in v.view.data)
            assert len(viewer.frames) == 2, name
            view = watched.get(f"/tasks/{writer.task_id}/status").json()
            assert view["data"] == json.loads(json.dumps(viewer.view.data)), name
    assert_no_bugs(caplog)


# --- size -----------------------------------------------------------------------------------------------


def test_huge_events(watched: Running, redis_url: str) -> None:
    """One of many megabytes, many in one batch, names as long as texts, thousands of fields: who was there,
    who comes later and who polls get all of it.
    """
    with Writer(redis_url, "huge") as writer, watch(watched, "huge") as viewer:
        writer.open()
        writer.append(Chunk("x" * 8 * MEGABYTE))
        writer.append(*[Chunk(f"{number} ") for number in range(3000)])
        writer.append(*[Chunk("y", f"field-{number}") for number in range(1000)])
        writer.append(Data("n" * MEGABYTE, ["v" * MEGABYTE]), Progress(0.5, "m" * MEGABYTE))
        wanted = writer.view().as_dict()
        assert len(wanted["text"]) > 8 * MEGABYTE
        viewer.until(lambda v: v.frames != [] and v.frames[-1].event == "progress")
        with watch(watched, "huge") as late:
            late.until(lambda v: v.frames != [] and v.frames[-1].event == "progress")
        for one in (viewer, late):
            assert one.view.text == wanted["text"]
            assert one.view.fields == wanted["fields"]
            assert one.view.data == wanted["data"]
        assert watched.get("/tasks/huge/status").json()["text"] == wanted["text"]


def test_events_beyond_the_memory(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that together are larger than the gateway may hold are read again when somebody asks; it doesn't
    grow with them.
    """
    with running(redis_url, channels_bytes=MEGABYTE, heartbeat_seconds=0.1, linger_seconds=600.0) as gateway:
        for number in range(20):
            with Writer(redis_url, f"large-{number}") as writer:
                writer.open().text("x" * MEGABYTE)
                assert len(gateway.get(f"/tasks/{writer.task_id}/status").json()["text"]) == MEGABYTE
        held = lambda: sum(channel.size for channel in gateway.hub._channels.values())  # noqa: E731
        eventually(lambda: gateway.inside(held) <= MEGABYTE)
        assert len(gateway.get("/tasks/large-0/status").json()["text"]) == MEGABYTE


# --- what the hash says ---------------------------------------------------------------------------------

LIES: list[tuple[str, str | bytes]] = [
    *[(name, value) for name in ("epoch", "seq", "bytes", "lease", "attempt", "batch")
      for value in ("9" * 5000, "9007199254740993", "-1", "nan", "1e9", "x", "")],
    ("state", "__proto__"), ("state", b"\xff"), ("state", f"x\n{EVIL}"), ("owner", b"\xff"),
    ("length", '{"text":'), ("token", ""),
]  # fmt: skip


def test_a_hash_that_lies(
    watched: Running, redis_url: str, expected_errors: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers without measure where the scripts keep theirs: that task may be told wrongly, or not at all.
    Every answer is one that is documented, and none keeps the gateway busy.
    """
    expected_errors.append("task odd-")
    for number, (name, value) in enumerate(LIES):
        with Writer(redis_url, f"odd-{number}") as writer:
            writer.open().text("a")
            path = f"/tasks/{writer.task_id}"
            assert watched.get(f"{path}/status").status_code == 200
            writer.client.hset(writer.keys.task(writer.task_id), name, value)
            for _ in range(2):
                assert watched.get(f"{path}/status").status_code in (200, 404, 500), (name, value)
                assert watched.post(f"{path}/cancel").status_code in (200, 404, 500), (name, value)
            assert watched.get("/healthz").status_code == 200
    assert_no_bugs(caplog)


# --- what stands between the lines ----------------------------------------------------------------------

INJECTIONS = [
    f"x\r\nERROR bridge.gateway {EVIL}", f"x\n{EVIL}", f"\x1b[2J{EVIL}", f"\x00{EVIL}", f"\u2028{EVIL}",
    f"\x85{EVIL}", f"\u202e{EVIL}",
]  # fmt: skip


def test_log_injection_from_redis(
    watched: Running, redis_url: str, expected_errors: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Kinds, data and whole messages that would begin a line of their own, or colour the terminal, don't."""
    expected_errors.append("task odd-")
    for number, text in enumerate(INJECTIONS):
        raw = text.encode()
        with Writer(redis_url, f"odd-{number}") as writer, watch(watched, writer.task_id) as viewer:
            writer.open().text("a")
            viewer.text_is("a")
            channel = writer.keys.channel(writer.task_id)
            for message in (
                raw,
                b"1-1\n" + raw,
                b"1-1\n" + raw + b" {}",
                b"1-1\nchunk " + raw,
                b"-\n\n" + raw,
            ):
                writer.client.publish(channel, message)
            put(writer, raw, raw)
            eventually(lambda: watched.get(f"/tasks/{writer.task_id}/status").status_code == 500)
    assert "can't be read" in caplog.text
    assert_no_bugs(caplog)


def test_messages_that_nobody_asked_for(watched: Running, redis_url: str, writer: Writer) -> None:
    """A flood on a task's channel, of a future, a past and nothing, ends in the text that is in the log."""
    writer.open().text("true")
    with Viewer(watched, "/tasks/job-1/events") as viewer:
        viewer.text_is("true")
        epoch = viewer.ids[-1].epoch
        channel = writer.keys.channel("job-1")
        for number in range(500):
            for position in (f"{epoch}-{number + 5}", f"{epoch + number + 1}-1", f"{epoch - 1}-{number + 1}"):
                writer.client.publish(channel, f'{position}\nchunk {{"text":"false"}}')
            writer.client.publish(channel, f"{epoch}-{10**15 + number}")
        writer.text(" and more")
        writer.end()
        viewer.to_end()
    assert viewer.view.text == "true and more"
    assert watched.get("/tasks/job-1/status").json()["text"] == "true and more"
