from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

from bridge.errors import InvalidEvent
from bridge.worker.outcome import Ending, ending, error_of, json_copy

SAID = Ending("succeeded", None, {"a": 1}, {"tokens": 3})
FAILED = Ending("failed", {"code": "quota", "message": "used up"})
RETURNED = Ending("", None, {"a": 1})
AGAIN = Ending("queued")


@pytest.mark.parametrize(
    ("said", "raised", "told", "requested", "state", "code"),
    [
        (None, None, False, False, "succeeded", None),
        (None, None, False, True, "succeeded", None),
        (None, None, True, True, "cancelled", None),
        (SAID, None, True, True, "succeeded", None),
        (FAILED, None, True, True, "failed", "quota"),
        (FAILED, ValueError("x"), False, False, "failed", "quota"),
        (SAID, ValueError("x"), False, False, "failed", "ValueError"),
        (None, ValueError("x"), False, True, "failed", "ValueError"),
        (None, ValueError("x"), True, True, "cancelled", None),
        (None, asyncio.CancelledError(), False, True, "cancelled", None),
        (None, asyncio.CancelledError(), False, False, "failed", "CancelledError"),
        (None, concurrent.futures.CancelledError(), False, True, "failed", "CancelledError"),
        (None, GeneratorExit(), False, False, "failed", "GeneratorExit"),
        (None, GeneratorExit(), False, True, "cancelled", None),
        (None, KeyboardInterrupt(), False, False, "failed", "KeyboardInterrupt"),
        (None, SystemExit(0), False, False, "succeeded", None),
        (SAID, SystemExit(), False, False, "succeeded", None),
        (None, SystemExit(3), False, False, "failed", "SystemExit"),
        (RETURNED, None, False, True, "succeeded", None),
        (RETURNED, None, True, True, "cancelled", None),
        (RETURNED, ValueError("x"), False, False, "failed", "ValueError"),
        (AGAIN, None, False, False, "queued", None),
        (AGAIN, ValueError("x"), True, True, "queued", None),
    ],
)
def test_how_it_ends(
    said: Ending | None, raised: BaseException | None, told: bool, requested: bool, state: str, code: str
) -> None:
    """The rules at the top of the module, in their order."""
    end = ending(said, raised, told_to_stop=told, cancel_requested=requested)
    assert end.state == state
    assert (end.error["code"] if end.error else None) == code


def test_usage_is_kept_when_the_work_fails_later() -> None:
    """What was spent is still worth knowing; the result isn't one any more."""
    end = ending(SAID, ValueError("x"), told_to_stop=False, cancel_requested=False)
    assert (end.result, end.usage) == (None, {"tokens": 3})


def test_a_cancelled_end_keeps_the_result() -> None:
    """What there is, is worth as much as the text that was written."""
    for said, raised in ((RETURNED, None), (SAID, asyncio.CancelledError())):
        end = ending(said, raised, told_to_stop=True, cancel_requested=True)
        assert (end.state, end.result) == ("cancelled", {"a": 1})


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("can't say it")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ValueError("bad \ud800"), "bad \N{REPLACEMENT CHARACTER}"),
        (ValueError(), "ValueError without a message"),
        (_Mute(), "_Mute without a message"),
        (ValueError("x" * 5000), "x" * 999 + "…"),
        (SystemExit(2), "The work exited with status 2."),
    ],
)
def test_the_message_is_bounded_and_clean(raised: BaseException, message: str) -> None:
    """Whatever an exception says fits into an event."""
    assert error_of(raised) == {"code": type(raised).__name__, "message": message}


def test_a_json_copy_is_its_own() -> None:
    """Changing the value afterwards doesn't change the copy, and what isn't JSON is refused."""
    value = {"a": [1]}
    copy, size = json_copy(value)
    value["a"].append(2)
    assert (copy, size) == ({"a": [1]}, 9)
    with pytest.raises(InvalidEvent):
        json_copy({1, 2})
