"""How a command fails: one line on stderr, and an exit code that a script can use.

0    it worked; of `tail`: the task succeeded
1    it failed; of `tail`: the task failed
2    the command line, a setting, an id or a position is wrong
3    of `tail`: the task was cancelled
4    no gateway, or it doesn't know the task
130  interrupted by Ctrl-C
141  whoever read the output went away, as a shell counts SIGPIPE
"""

from __future__ import annotations

from typing import IO, Any, Final

import click

from bridge.errors import BridgeError, ClientError, InvalidInput, SettingsError

SUCCEEDED: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
CANCELLED: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141


class Failure(click.ClickException):
    """A command's error, as ``bridge: message`` without a traceback."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it for the class, and reads it from here

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"bridge: {one_line(self.message)}", file=file, err=True)


def exit_code(error: BridgeError) -> int:
    """The exit code that an error means."""
    if isinstance(error, InvalidInput | SettingsError):
        return WRONG_USAGE
    return UNREACHABLE if isinstance(error, ClientError) else FAILED


def one_line(text: str) -> str:
    """`text` without line ends and control characters, which could confuse a terminal."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
