from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import InvalidPosition, InvalidTaskId
from bridge.events import (
    START,
    UNKNOWN_TASK_END,
    Position,
    check_task_id,
)
from tests.strategies import EPOCH


@pytest.mark.parametrize("task_id", ["a", "job-42", "A.z_9:~-", "x" * 200])
def test_task_id_of_the_allowed_characters_is_returned(task_id: str) -> None:
    """An id of 1-200 allowed characters comes back as it is."""
    assert check_task_id(task_id) == task_id


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        "x" * 201,
        "a\n",
        "\na",
        "a\r\nb",
        "a\0",
        "a b",
        "a/b",
        "{a}",
        "a%2F",
        "ä",
        "٣",
        "a\u2028",
        "\ud800",
    ],
)
def test_any_other_task_id_is_refused(task_id: str) -> None:
    """Empty, long, and ids with any other character, even a trailing line end, are refused."""
    with pytest.raises(InvalidTaskId) as caught:
        check_task_id(task_id)
    assert "1-200 characters" in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_position_survives_its_text(epoch: int, seq: int) -> None:
    """A position is the same after it was written and read."""
    position = Position(epoch, seq)
    assert Position.parse(str(position)) == position


@given(st.lists(st.tuples(st.integers(0, 10**16), st.integers(0, 10**16))))
def test_positions_are_ordered_as_numbers(pairs: list[tuple[int, int]]) -> None:
    """Epoch first, then seq, both as numbers: -10 comes after -9."""
    assert [(p.epoch, p.seq) for p in sorted(Position(*pair) for pair in pairs)] == sorted(pairs)
    assert START < UNKNOWN_TASK_END < Position(EPOCH, 9) < Position(EPOCH, 10) < Position(EPOCH + 1, 0)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "1-", "-", "1-2-3", "1--2", "+1-2", " 1-2", "1-2 ", "1-2\n", "1-2\0", "a-b", "١-٢",
     "1.0-2", "1_0-2", "99999999999999999-1", "1-99999999999999999", "1-" + "9" * 100_000],
)  # fmt: skip
def test_any_other_text_is_no_position(text: str) -> None:
    """Whatever isn't two plain numbers of at most 16 digits is refused, with a short message."""
    with pytest.raises(InvalidPosition) as caught:
        Position.parse(text)
    assert len(str(caught.value)) < 400
