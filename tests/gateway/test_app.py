"""The application's two ways to a stream: the direct one, and Starlette's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.credentials import SECRET, bearer, token
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer

EVENTS = "/tasks/job-1/events"
APP = "https://app.example"
_VARIES = re.compile(rb"\r\ndate: [^\r]+|(?<=retry: )\d+")
ANN = bearer(token(sub="ann"))

CASES: list[tuple[str, dict[str, str], int, bool]] = [
    (EVENTS, ANN, 200, True),
    (EVENTS, {**ANN, "Origin": APP}, 200, True),
    (f"{EVENTS}?ticket={token(sub='ann')}", {}, 200, True),
    (f"{EVENTS}?after=FIRST", ANN, 200, True),
    (EVENTS, {**ANN, "Last-Event-ID": "FIRST"}, 200, True),
    (f"{EVENTS}?after=FIRST", {**ANN, "Last-Event-ID": "END"}, 204, True),
    (f"{EVENTS}?after=END", {**ANN, "Last-Event-ID": ""}, 204, True),
    (f"{EVENTS}?after=END", {**ANN, "Last-Event-ID": "-1"}, 200, True),
    ("/tasks/job%2D1/events", ANN, 200, True),
    (EVENTS, {}, 401, True),
    (EVENTS, {"Origin": APP}, 401, True),
    (f"{EVENTS}?after=x", ANN, 400, True),
    (EVENTS, {**ANN, "Last-Event-ID": "\xe4"}, 400, True),
    (f"/tasks/{'x' * 201}/events", ANN, 400, True),
    ("/tasks/a b/events".replace(" ", "%20"), ANN, 400, False),
    (f"{EVENTS}/", ANN, 404, False),
    (f"{EVENTS}%0a", ANN, 200, False),
    ("/tasks//events", ANN, 404, False),
]


def answers(gateway: Running, path: str, headers: dict[str, str]) -> tuple[list[bytes], bool]:
    """The answer by each way, and whether the first was the direct one."""
    app, taken, received = gateway.gateway, [], []
    real = app._is_stream

    def watched(scope: Any) -> bool:
        taken.append(real(scope))
        return bool(taken[-1])

    for way in (watched, lambda _: False):
        gateway.inside(lambda: setattr(app, "_is_stream", way))  # noqa: B023 (called at once)
        with Viewer(gateway, path, headers={**headers, "Connection": "close"}) as viewer:
            head = viewer.to_end().received.partition(b"\r\n\r\n")[0]
            received.append(_VARIES.sub(b"", head + b"\r\n\r\n" + viewer.body))
    gateway.inside(lambda: setattr(app, "_is_stream", real))
    return received, taken == [True]


def test_both_ways_begin_alike(redis_url: str, writer: Writer) -> None:
    """Head and body but the date and the jitter, whoever asks; and plain requests take the direct one."""
    writer.create(owner="ann")
    positions = {"FIRST": str(writer.open().text("all").position), "END": str(writer.end().position)}

    def told(text: str) -> str:
        return re.sub("FIRST|END", lambda found: positions[found[0]], text)

    with running(redis_url, auth="jwt", jwt_keys=SECRET, cors_origins=APP, ticket_keys="") as gateway:
        for path, headers, status, direct in CASES:
            named = {name: told(value) for name, value in headers.items()}
            (mine, theirs), was_direct = answers(gateway, told(path), named)
            assert mine == theirs
            assert (path, mine[9:12], was_direct) == (path, b"%d" % status, direct)


def test_both_ways_refuse_alike(redis_url: str, writer: Writer) -> None:
    """Over a limit, in a 200 that says so; and a mistake of ours is a 500 in the shape of all errors."""
    writer.open()
    limits: dict[str, Any] = {"unlimited_addresses": "", "new_streams_per_second": 1}
    with running(redis_url, max_streams=1, **limits) as gateway:
        gateway.stop_windows()
        with Viewer(gateway, EVENTS) as viewer:
            viewer.head()
            for said in (b": too many streams are open", b": too many requests from your address"):
                (mine, theirs), direct = answers(gateway, EVENTS, {})
                assert (mine == theirs, direct, said in mine) == (True, True, True)
                answers(gateway, EVENTS, {})


def test_a_mistake_is_answered_alike(
    redis_url: str, expected_errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a 500 in the shape of all errors, with the traceback in the log."""
    expected_errors.append("Exception in ASGI application")

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with running(redis_url) as gateway:
        monkeypatch.setattr(gateway.gateway.gate, "pace", broken)
        (mine, theirs), direct = answers(gateway, EVENTS, {})
        assert (mine == theirs, direct, mine[9:12]) == (True, True, b"500")
        assert b'"code":"internal"' in mine
