"""The group of all commands: loads each command's file when it is asked for, and says errors in one line.

A file is imported by name only when its command is used, so that `bridge status` doesn't wait for a web
server to be imported, and works where only its own extra is installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

import click

import bridge
from bridge.cli import errors
from bridge.errors import BridgeError

COMMANDS: Final = {
    "serve": "bridge.cli.serve",
    "demo": "bridge.cli.demo.command",
    "run": "bridge.cli.run",
    "publish": "bridge.cli.run",
    "tail": "bridge.cli.watch",
    "status": "bridge.cli.watch",
    "cancel": "bridge.cli.watch",
    "matrix": "bridge.cli.matrix",
    "ticket": "bridge.cli.ticket",
    "settings": "bridge.cli.settings",
}
"""Where each command lives, in the order of the help. It is the module's attribute of the same name."""

_EXTRAS: Final = {"matrix": "cli,matrix"}
"""What a command needs, if that isn't the extra `cli` alone."""


class _Missing(click.Command):
    """A command that lacks its packages: the help lists it, and calling it says what is missing."""

    def __init__(self, name: str, needs: str) -> None:
        super().__init__(name, short_help=needs)
        self._needs = needs

    def make_context(self, *_: Any, **__: Any) -> click.Context:
        """Nothing can be parsed for it, not even a call of its own help."""
        raise errors.Failure(f"`bridge {self.name}` {self._needs}")


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports them when they are needed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as the program that it is."""
        _open_standard_streams()
        return super().__call__(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command, or None for a name that isn't one."""
        if name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(COMMANDS[name])
        except ModuleNotFoundError as error:
            package = error.name or "a package"
            if package.partition(".")[0] == "bridge":
                raise
            return _Missing(name, f"needs {package}: pip install 'bridge[{_EXTRAS.get(name, 'cli')}]'")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Errors of ours become one line, a closed pipe and Ctrl-C a plain exit code."""
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            raise errors.Failure(str(error), errors.exit_code(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(errors.INTERRUPTED) from None
        except BrokenPipeError:
            _forget_stdout()
            raise click.exceptions.Exit(errors.CLOSED_PIPE) from None


def _open_standard_streams() -> None:
    """Give descriptors 0, 1 and 2 that were closed (``<&-``, ``>&-``) to the null device.

    Else the next file or socket would get one of these numbers, and what is printed, or what a command that
    we run writes, would go there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)
            else:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            # As Python has them: never closed.
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _forget_stdout() -> None:
    """Python flushes stdout once more when it exits, which would fail, and say so, a second time."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bridge.__version__, message="bridge %(version)s")
def main() -> None:
    """Live streaming for background tasks: workers report, browsers and scripts watch, old clients poll."""
