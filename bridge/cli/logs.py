"""Where log messages go when a command runs: to stderr, one line each."""

from __future__ import annotations

import logging
import sys

import click

from bridge.cli.errors import one_line


class _Lines(logging.Handler):
    """Warnings and errors as the commands' own messages look, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        try:
            click.echo(f"bridge: {one_line(record.getMessage())}", err=True)
        except Exception:
            self.handleError(record)


def for_people() -> None:
    """What a command at a terminal should say: warnings, like ``bridge: Redis can't be reached``."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()], force=True)


def for_operators(level: str) -> None:
    """What a service should say: with time and origin, and tracebacks where there are some."""
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    # What uvicorn tells of its start and stop, we tell ourselves.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
    # A line per question to the app, with its URL; and, for debugging, with the headers of its answer.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
