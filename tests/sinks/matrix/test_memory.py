from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.sinks.matrix.drafting import Draft, Message, Request
from bridge.sinks.matrix.memory import from_json, to_json

MESSAGE = Message("$1", "abc", 100.0, 3)
BEGINS = Request(1, "t1", {"body": "é\ud800", "m.mentions": {}}, "def", live=True)


def test_an_answer_goes_on_elsewhere() -> None:
    """With its messages, their age by the time of day, and the request that may have arrived."""
    data = to_json(Draft((MESSAGE,), BEGINS), now=160.0, clock=5000.0)
    draft = from_json(data, now=7.0, clock=5040.0)
    assert draft.messages == (replace(MESSAGE, born=7.0 - 100.0),)
    assert draft.pending == replace(BEGINS, content={"body": "é\ufffd", "m.mentions": {}})
    assert not draft.done
    assert from_json(to_json(Draft(done=True), 0, 0), 0, 0).done


def test_a_clock_that_was_set_back_makes_nothing_younger_than_now() -> None:
    """An age is never negative."""
    data = to_json(Draft((MESSAGE,)), now=100.0, clock=5000.0)
    assert from_json(data, now=7.0, clock=4000.0).messages[0].born == 7.0


def test_an_edit_is_not_kept() -> None:
    """The next one says the same and more."""
    edit = replace(BEGINS, target="$1")
    assert from_json(to_json(Draft((MESSAGE,), edit), 0, 0), 0, 0).pending is None


def test_nothing_is_an_answer_that_has_not_begun() -> None:
    """An empty note is where every answer begins."""
    assert from_json(b"", 0, 0) == Draft()


@pytest.mark.parametrize(
    "data",
    [b"x", b"[]", b"1", b"{}", b'{"version":2}', b'{"version":1,"done":false,"messages":[{}],"pending":null}',
     b'{"version":1,"done":false,"messages":[],"pending":{"a":1}}',
     b'{"version":1,"done":false,"messages":[{"event_id":"$1","shown":"a","born":"x","edits":1}],"pending":null}'],
)  # fmt: skip
def test_what_is_of_no_use_is_a_value_error(data: bytes) -> None:
    """Whoever reads it learns that there was something."""
    with pytest.raises(ValueError, match=r"read|version|JSON|Expecting|convert"):
        from_json(data, 0, 0)
