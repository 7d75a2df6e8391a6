"""A poll told as events, where examples don't suffice. The examples are cases/following.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.client.polling import polled
from bridge.errors import InvalidInput
from bridge.view import View

GOOD: dict[str, Any] = {**View("job").as_dict(), "position": "7-1", "reset": False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": None},
        {"position": "seven"},
        {"state": "asleep"},
        {"state": None},
        {"attempt": "one"},
        {"attempt": "one", "reset": True},
        {"text": None},
        {"fields": ["a"]},
        {"fields": {"a": 1}},
        {"data": "x"},
        {"data": {"x": float("nan")}},
        {"progress": 2},
        {"message": 1},
        {"cancel_requested": "no"},
        {"created_at": 17},
        {"started_at": "soon"},
        {"updated_at": "2026-01-01"},
        {"state": "failed", "error": "boom"},
        {"state": "failed", "usage": 1},
        {"state": "failed", "ended_at": 1},
    ],
)
def test_what_is_no_view_is_refused(wrong: dict[str, Any]) -> None:
    """A member of a wrong type is an error that names it: going on would show what never was."""
    with pytest.raises(InvalidInput):
        polled(View("job"), GOOD | wrong)


def test_older_and_newer_gateways() -> None:
    """Members that are missing count as empty, and those that nobody knows are ignored."""
    poll = polled(View("job"), {"state": "failed", "position": "7-1", "text": "a", "sparkle": True})
    view = View("job")
    poll.fold(view)
    assert (view.state, view.text, view.ended, poll.ended) == ("failed", "a", True, True)


def test_a_value_that_changed_its_type_alone_has_changed() -> None:
    """JSON tells true from 1, as Python's == does not."""
    view = View("job")
    polled(view, GOOD | {"data": {"x": 1}}).fold(view)
    polled(view, GOOD | {"data": {"x": True}, "position": "7-2"}).fold(view)
    assert view.data["x"] is True
