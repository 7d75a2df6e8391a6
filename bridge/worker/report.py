"""What `report_progress` accepts, and what it makes of it. Everything is checked here, in the caller."""

from __future__ import annotations

from typing import Final

from bridge.codec import encode
from bridge.errors import InvalidEvent
from bridge.events import MAIN_FIELD, Data
from bridge.worker.buffer import Buffer

MAX_NAME: Final = 100
"""Characters of a field's or data's name."""
MAX_MESSAGE: Final = 1000
"""Characters of a status line; a longer one is cut."""


class Missing:
    """The type of a value that wasn't given: None can be a value."""


MISSING: Final = Missing()


def report(buffer: Buffer, value: object, message: str | None, name: str | None, field: str | None) -> bool:
    """Put one report into the buffer; whether the work should go on.

    Raises TypeError and `InvalidEvent` (a ValueError) for what can never be reported.
    """
    if name is not None:
        _report_data(buffer, value, message, name, field)
    elif isinstance(value, str):
        if message is not None:
            raise TypeError("text and message= are two reports: call report_progress once for each")
        buffer.add_text(value, MAIN_FIELD if field is None else check_name(field, "field"))
    elif field is not None and value is not None:
        raise TypeError(f"field= names the field of a text, and {_shown(value)} is no text")
    elif isinstance(value, float):
        buffer.add_progress(_fraction(value), _message(message))
    elif value is None or value is MISSING:
        # A model's stream may hold None where a piece has no text; that says nothing.
        if message is not None:
            buffer.add_progress(None, _message(message))
    else:
        raise _unusable(value)
    if buffer.go_on:
        return True
    if buffer.cancel_requested:
        buffer.told_to_stop = True
    return False


def _report_data(buffer: Buffer, value: object, message: str | None, name: str, field: str | None) -> None:
    if message is not None or field is not None:
        raise TypeError("name= goes with value= only; call report_progress again for message= or field=")
    if value is MISSING:
        raise TypeError("name= needs value=, the JSON value to be known under this name")
    # Encoded now, so that the caller may go on changing the value.
    buffer.add_data(name, encode(Data(check_name(name, "name"), value)))


def check_name(name: object, what: str) -> str:
    """Return a field's or data's name, or raise TypeError or `InvalidEvent`."""
    if not isinstance(name, str):
        raise TypeError(f"{what}= must be a string, not {_shown(name)}")
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidEvent(f"{what}= is 1-{MAX_NAME} printable characters (got {name[:60]!r})")
    return name


def _fraction(value: float) -> float:
    if not 0.0 <= value <= 1.0:  # not true for NaN, either
        raise InvalidEvent(f"a fraction is from 0.0 to 1.0 (got {value!r})")
    return float(value) + 0.0  # makes 0.0 of -0.0, and a float of its subclasses


def _message(message: object) -> str | None:
    if message is None:
        return None
    if not isinstance(message, str):
        raise TypeError(f"message= must be a string, not {_shown(message)}")
    return str(message) if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _unusable(value: object) -> TypeError:
    if isinstance(value, bool | int):
        return TypeError(
            f"{_shown(value)} could mean a count, a percentage or a fraction. Report a fraction as a float"
            " from 0.0 to 1.0 (done / total), text as a string, anything else with name= and value="
        )
    if isinstance(value, bytes | bytearray | memoryview):
        return TypeError("bytes are no text: decode them (incrementally, they may be cut inside a character)")
    return TypeError(
        f"report_progress takes text or a fraction, not {_shown(value)}; with name= it takes any JSON value"
    )


def _shown(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} {value}" if isinstance(value, int) and abs(value) < 10**9 else kind
