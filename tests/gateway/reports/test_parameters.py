"""What a worker's request says beside its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.errors import InvalidInput, UnsupportedBody
from bridge.gateway.reports.parameters import ending_of, owner_of, piece_of, refuse_encoding
from bridge.store.log import POLLER_TOKEN


def test_request_has_one_name() -> None:
    """A number goes before a key; a request without either has a name that no other has."""
    numbered = piece_of({"attempt": "a", "batch": "7"}, "key", "events")
    assert (numbered.token, numbered.number, numbered.name) == ("http:a", 7, "")
    assert piece_of({}, "key", "events").name == piece_of({}, "key", "events").name
    assert piece_of({}, "key", "events").name != piece_of({}, "key", "end").name
    assert piece_of({}, None, "events").name != piece_of({}, None, "events").name
    assert not {" ", "=", "#"} & set(piece_of({}, "a key = #", "events").name)


def test_own_token_is_none_that_can_be_sent() -> None:
    """Nobody takes the attempt that nobody named by guessing its name, nor that of a gateway that polls."""
    assert piece_of({"attempt": POLLER_TOKEN}, None, "events").token != POLLER_TOKEN
    own = piece_of({}, None, "events").own_token
    assert own.startswith("~")
    with pytest.raises(InvalidInput):
        piece_of({"attempt": own}, None, "events")


@pytest.mark.parametrize(
    ("text", "lease_ms"), [("", None), ("0", 0), ("0.5", 500), ("30", 30_000), ("86400", 86_400_000)]
)
def test_lease_is_in_seconds(text: str, lease_ms: int | None) -> None:
    """Nothing means as before, 0 none."""
    assert piece_of({"lease": text}, None, "events").lease_ms == lease_ms


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ({"attempt": "a b"}, None), ({"attempt": "ä"}, None), ({"attempt": "a" * 101}, None),
        ({"batch": "1"}, None), ({"attempt": "a", "batch": "0"}, None),
        ({"attempt": "a", "batch": "01"}, None),
        ({"attempt": "a", "batch": "-1"}, None), ({"attempt": "a", "batch": "1e3"}, None),
        ({"attempt": "a", "batch": "9" * 16}, None), ({"attempt": "a", "batch": "٣"}, None),
        ({"lease": "x"}, None), ({"lease": "nan"}, None), ({"lease": "inf"}, None), ({"lease": "-1"}, None),
        ({"lease": "0.4"}, None), ({"lease": "86401"}, None), ({"lease": "1_0"}, None),
        ({}, ""), ({}, " "), ({}, "k" * 256), ({}, "a\tb"), ({}, "é"),
    ],
)  # fmt: skip
def test_what_names_nothing_is_refused(query: dict[str, str], key: str | None) -> None:
    """400 for each."""
    with pytest.raises(InvalidInput):
        piece_of(query, key, "events")


def test_bodies_come_as_they_are() -> None:
    """A compressed body is refused before it is read."""
    for encoding in (None, "", "identity", " Identity"):
        refuse_encoding(encoding)
    for encoding in ("gzip", "identity, gzip", "br"):
        with pytest.raises(UnsupportedBody):
            refuse_encoding(encoding)


def test_end_is_a_success_unless_it_says_otherwise() -> None:
    """An empty body and an empty object say the same."""
    for value in (None, {}, {"state": "succeeded"}):
        said = ending_of(value, 1000)
        assert (said.ending.state, said.ending.code, said.truncated) == ("succeeded", "", False)
        assert json.loads(said.ending.data) == {
            "state": "succeeded", "error": None, "result": None, "usage": None
        }  # fmt: skip


def test_long_messages_are_cut() -> None:
    """An error's message has at most a thousand characters, as with `task.fail`."""
    said = ending_of({"state": "failed", "error": {"code": "c", "message": "m" * 2000}}, 10_000)
    assert len(json.loads(said.ending.data)["error"]["message"]) == 1000


@pytest.mark.parametrize(
    "value",
    [
        [], "failed", 1, {"state": "running"}, {"state": "queued"}, {"state": None}, {"state": ["failed"]},
        {"status": "failed"}, {"error": {"code": "c", "message": "m"}}, {"state": "failed", "error": "oops"},
        {"state": "failed", "error": {"code": 1}}, {"state": "failed", "error": {"message": None}},
        {"state": "failed", "error": {"code": ""}}, {"state": "failed", "error": {"code": "worker_lost"}},
        {"state": "failed", "error": {"code": "unknown_task"}}, {"state": "failed", "error": {"text": "m"}},
        {"state": "cancelled", "error": {"code": "c", "message": "m"}}, {"usage": 5}, {"usage": [1]},
        {"length": {}}, {"truncated": True},
    ],
)  # fmt: skip
def test_what_is_no_end_is_refused(value: Any) -> None:
    """What a task can't end with, what the bridge itself says, and names that nobody knows."""
    with pytest.raises(InvalidInput):
        ending_of(value, 1000)


def test_owner_is_text() -> None:
    """Whose a task is; nobody's without one."""
    said: list[Any] = [None, {}, {"owner": None}, {"owner": "ann"}]
    assert [owner_of(value) for value in said] == ["", "", "", "ann"]
    wrong: list[Any] = [{"owner": 1}, {"owner": "é" * 501}, {"owners": "ann"}, []]
    for value in wrong:
        with pytest.raises(InvalidInput):
            owner_of(value)
