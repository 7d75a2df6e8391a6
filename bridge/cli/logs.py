"""Where log messages go when a command runs: to stderr, one line each.

What is logged may hold what strangers have sent. So nothing in it can begin another line, or change a
terminal's colours: as JSON everything but ASCII is escaped, in the console's form what can't be printed.
Tracebacks have many lines there, but none of them begins in the first column.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import click

from bridge.cli.errors import one_line

_OWN: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
"""What every record has. The last is uvicorn's, the message once more, for terminals."""


class _Lines(logging.Handler):
    """Warnings and errors as the commands' own messages look, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        try:
            click.echo(f"bridge: {one_line(record.getMessage())}", err=True)
        except Exception:
            self.handleError(record)


class Console(logging.Formatter):
    """For people: time, level and origin, the message, then what else is known as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback if there is one."""
        said = [self.formatTime(record), record.levelname, f"{record.name}: {_message(record)}"]
        said += [f"{name}={_shown(value)}" for name, value in _extra(record)]
        lines = [_printable(" ".join(said))]
        for _, text in _traces(self, record):
            lines += ["  " + _printable(line) for line in text.splitlines()]
        return "\n".join(lines)


class Json(logging.Formatter):
    """For machines: one object a line. `time` (RFC 3339, UTC), `level`, `logger`, `message`, what else is
    known, and `exception` and `stack` as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for name, value in (*_extra(record), *_traces(self, record)):
            said[f"{name}_" if name in said else name] = value
        return json.dumps(said)


_FORMATS: Final = {"console": Console, "json": Json}


def for_people() -> None:
    """What a command at a terminal should say: warnings, like ``bridge: Redis can't be reached``."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)


def for_operators(level: str, form: str = "console") -> None:
    """What a service should say: with time and origin, and tracebacks where there are some.

    form: `console` or `json`, for all that is logged, also by libraries; and for Python's own warnings.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATS[form]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # What uvicorn tells of its start and stop, we tell ourselves.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
    # A line per question to the app, with its URL; and, for debugging, with the headers of its answer.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that don't fit the message are a bug, but no reason to lose it
        return f"{record.msg} {record.args!r}"


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """What a message was given beside its text, as JSON knows it."""
    for name, value in vars(record).items():
        if name not in _OWN:
            plain = value is None or isinstance(value, str | bool | int)
            finite = isinstance(value, float) and math.isfinite(value)
            yield name, value if plain or finite else str(value)


def _traces(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    if record.exc_info and record.exc_info[0] is not None:
        yield "exception", formatter.formatException(record.exc_info)
    if record.stack_info:
        yield "stack", formatter.formatStack(record.stack_info)


def _shown(value: Any) -> str:
    """A value in the console: as it is where nobody can mistake where it ends, else in quotes."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = value and value.isprintable() and not set(value) & set(' "=')
    return value if plain else json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    """`text` with escapes for all that is no character to be seen, or a space."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
