"""The cases that both languages share (see the comments on top of the files), against the pure modules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge import sse
from bridge.client.session import Batch, Session
from bridge.errors import ClientError, GatewayUnavailable, RequestRefused, TaskNotFound
from bridge.events import Position
from bridge.sse import Decoder, Frame

Case = dict[str, Any]
CASES = Path(__file__).parent / "cases"

BASE = {
    "id": "job",
    "state": "running",
    "attempt": 1,
    "position": "7-1",
    "text": "",
    "fields": {},
    "progress": None,
    "message": None,
    "data": {},
    "cancel_requested": False,
    "result": None,
    "error": None,
    "usage": None,
    "truncated": False,
    "created_at": None,
    "started_at": None,
    "updated_at": None,
    "ended_at": None,
    "reset": False,
}
ERRORS = {
    "unavailable": GatewayUnavailable,
    "not_found": TaskNotFound,
    "refused": RequestRefused,
    "nonsense": ClientError,
}


def load(name: str) -> list[Any]:
    """The cases of a file, each a parameter with its name."""
    cases = yaml.safe_load((CASES / name).read_text(encoding="utf-8"))
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names)
    return [pytest.param(case, id=case["name"]) for case in cases]


# --- parsing ----------------------------------------------------------------------------------------------


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """The stream whole, cut in two at every byte, and byte by byte."""
    yield [stream]
    for middle in range(len(stream) + 1):
        yield [stream[:middle], stream[middle:]]
    yield [stream[at : at + 1] for at in range(len(stream))]


@pytest.mark.parametrize("case", load("parsing.yaml"))
def test_parsing(case: Case) -> None:
    """Bytes become these frames, wherever they are cut."""
    stream = bytes.fromhex(case["hex"]) if "hex" in case else case["stream"].encode()
    for pieces in cuts(stream):
        decoder = Decoder(last_event_id=case.get("resumed", ""))
        frames = [frame for piece in pieces for frame in decoder.feed(piece)]
        assert frames == [Frame(*frame) for frame in case["frames"]], pieces
        assert decoder.retry_ms == case.get("retry")
        if "last_id" in case:
            assert decoder.last_event_id == case["last_id"]


# --- following --------------------------------------------------------------------------------------------


class Runner:
    """One case: a session, its clock, and what it is told. `bytewise` cuts streams into single bytes."""

    def __init__(self, case: Case, *, bytewise: bool) -> None:
        self.now = 0.0
        self._bytewise = bytewise
        after = case.get("after")
        self.session = Session(
            "job",
            after=None if after is None else Position.parse(after),
            look_first=case.get("look_first", False),
            patience_seconds=case.get("patience", 60),
            clock=lambda: 1000.0 + self.now,
            jitter=lambda: float(case.get("jitter", 1)),
        )

    def exchange(self, one: Case) -> None:
        """Ask, answer, and see what follows."""
        way = one["way"]
        began = self.now
        request = self.session.next()
        assert (request.way, self.session.way) == (way, way)
        wait = one.get("wait", 25) if way == "long_poll" else 0
        after = {} if way == "stream" else {"after": one.get("after", "0")}
        assert dict(request.query) == after | ({"wait": str(wait)} if wait else {})
        assert request.headers.get("Last-Event-ID") == one.get("last_event_id")
        assert request.answer_seconds == (5 if way == "stream" else wait + 10)
        batch: Batch = []
        pause: float | None = None
        try:
            if way == "stream":
                self._stream(one, batch)
            elif (status := self._status(one)) is not None:
                self.now = began + one.get("takes", 0)
                batch += self.session.polled(status, self._headers(one), self._answer(one))
                pause = self.session.pause()
        except GatewayUnavailable as error:
            pause = self.session.failed(error)
        if "ends" in one:
            assert not self.session.done
            pause = self._end(one, began, request.answer_seconds)
        if "batch" in one:
            assert [event.kind for _, event in batch] == one["batch"]
        if "view" in one:
            self.compare(one["view"])
        if "pause" in one:
            assert pause == pytest.approx(one["pause"])
        self.now += pause or 0

    def compare(self, members: Case) -> None:
        """The view has these members; in `data`, their order counts as well."""
        view = self.session.view.as_dict()
        assert {name: view[name] for name in members} == members
        assert list(view["data"]) == list(members.get("data", view["data"]))

    def _status(self, one: Case) -> int | None:
        default = 200 if one.keys() & {"answer", "raw_answer", "body"} else None
        status: int | None = one.get("status", default)
        return status

    def _headers(self, one: Case) -> dict[str, str]:
        stream = one["way"] == "stream" and self._status(one) == 200
        kind = sse.CONTENT_TYPE if stream else "application/json"
        return {"content-type": kind, **one.get("headers", {})}

    def _answer(self, one: Case) -> bytes:
        if "answer" in one:
            return json.dumps({**BASE, **one["answer"]}).encode()
        return str(one.get("raw_answer", one.get("error_body", ""))).encode()

    def _stream(self, one: Case, batch: Batch) -> None:
        status, began = self._status(one), self.now
        if status is None:
            return
        self.session.answered(status, self._headers(one), one.get("error_body", "").encode())
        for piece in one.get("body", []):
            self.now = max(self.now, began + piece.get("at", 0))
            data = wire(piece)
            for part in [data[at : at + 1] for at in range(len(data))] if self._bytewise else [data]:
                batch += self.session.receive(part)

    def _end(self, one: Case, began: float, answer_seconds: float) -> float:
        match one["ends"]:
            case "mute":
                assert not one.get("body")
                self.now = began + answer_seconds
                return self.session.failed(GatewayUnavailable("mute"), "mute")
            case "silent":
                self.now += 45
                return self.session.failed(GatewayUnavailable("silent"), "silent")
            case "close" | "refused":
                self.now = max(self.now, began + one.get("ends_at", 0))
                return self.session.failed(GatewayUnavailable(one["ends"]), "broken")
            case other:
                raise AssertionError(f"a request can't end like this: {other}")


def wire(piece: Case) -> bytes:
    """The bytes of one piece of a stream."""
    if "raw" in piece:
        raw: str = piece["raw"]
        return raw.encode()
    if "retry" in piece:
        return sse.retry(piece["retry"])
    ((kind, data),) = [(name, value) for name, value in piece.items() if name not in ("at", "id")]
    return sse.frame(json.dumps(data), event=kind, id=piece["id"])


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("case", load("following.yaml"))
def test_following(case: Case, bytewise: bool) -> None:
    """The session asks, folds, waits and ends as the case says."""
    runner = Runner(case, bytewise=bytewise)
    exchanges = [
        {**one, "at": None} if again else one
        for one in case["exchanges"]
        for again in range(one.get("times", 1))
    ]
    for number, one in enumerate(exchanges, 1):
        if one.get("at") is not None:
            assert runner.now == pytest.approx(one["at"])
        if number == len(exchanges) and "error" in case:
            with pytest.raises(ClientError) as caught:
                runner.exchange(one)
            assert type(caught.value) is ERRORS[case["error"]]
            return
        assert not runner.session.done
        runner.exchange(one)
    assert runner.session.done == case.get("done", True)
    runner.compare(case.get("view", {}))
