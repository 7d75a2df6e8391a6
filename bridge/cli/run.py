"""`bridge run` and `bridge publish`: make a task of a command's output, or of standard input.

How both end
------------
A signal to us (Ctrl-C, SIGTERM, a closed terminal) is a cancel by the person at this end; the exit code is
then the shell's 128 + n. A cancel through the bridge stops the work as well, with exit code 3, as `bridge
tail` has it. A signal that whoever started us wants ignored (nohup, a background job) stays ignored.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from bridge import create_task_async
from bridge.cli import errors, logs
from bridge.cli.hints import curl
from bridge.cli.options import WORKER, settings_options
from bridge.cli.perform import Outcome, perform
from bridge.cli.tee import Tee
from bridge.codec import dumps
from bridge.errors import CommandError
from bridge.events import check_task_id
from bridge.settings import Settings
from bridge.sources.command import Command
from bridge.sources.pipe import read_text

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""As shells have them."""

_STANDARD_INPUT: Final = 0
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2

_again = click.option(
    "--again", is_flag=True, help="Begin anew also if the task was cancelled; its earlier text is replaced."
)
_json = click.option("--json", "as_json", is_flag=True, help="At the end, print one JSON line on stdout.")


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--task", "task_id", metavar="ID", help="The task's id. [default: a random one, printed on stderr]"
)
@click.option("--quiet", "-q", is_flag=True, help="Don't show the command's output here.")
@_again
@_json
@settings_options(*WORKER)
def run(
    command: Sequence[str], task_id: str | None, quiet: bool, again: bool, as_json: bool, **flags: Any
) -> NoReturn:
    """Run COMMAND and stream its output as a task: bridge run --task build-1 -- make all

    All that the command writes appears on stdout as well (with --json on stderr). Without Redis the command
    runs all the same. A cancel or Ctrl-C reaches the command and all that it started; what doesn't end within
    a few seconds is killed.

    Exit code: the command's; 128 + n if signal n ended it or was sent to us (Ctrl-C is 130), 126 or 127 if it
    can't be run or found, 3 if the task was cancelled through the bridge, 1 if another worker has taken it
    over, 2 wrong usage.
    """
    logs.for_people()
    settings = Settings.from_env(**flags)
    task_id = check_task_id(task_id or f"run-{secrets.token_hex(8)}")
    # If whoever started us ignores this signal, we would never learn how the command ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    click.echo(f"bridge: task {task_id}; watch it: {curl(settings.gateway_url, task_id)}", err=True)
    output = None if quiet else _STANDARD_ERROR if as_json else _STANDARD_OUTPUT
    try:
        outcome = asyncio.run(_run(command, settings, task_id, output, again))
    except CommandError as error:
        code = NOT_FOUND if isinstance(error.__cause__, FileNotFoundError) else NOT_EXECUTABLE
        if as_json:
            _print_json(task_id, "failed", code)
        raise errors.Failure(str(error), code) from error
    _leave(task_id, outcome, as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@_again
@_json
@settings_options(*WORKER)
def publish(task_id: str, again: bool, as_json: bool, **flags: Any) -> NoReturn:
    """Stream standard input as the text of task ID: ./model | bridge publish job-42

    The text appears as it arrives; at its end the task has succeeded. Ctrl-C cancels it.

    Exit code: 0 all was read, 128 + n after signal n (Ctrl-C is 130), 3 the task was cancelled through the
    bridge, 1 another worker has taken it over, 2 wrong usage.
    """
    logs.for_people()
    settings = Settings.from_env(**flags)
    outcome = asyncio.run(_publish(settings, check_task_id(task_id), again))
    _leave(task_id, outcome, as_json)


async def _run(
    command: Sequence[str], settings: Settings, task_id: str, output: int | None, again: bool
) -> Outcome:
    if again:
        await create_task_async(task_id, settings=settings)
    tee = None if output is None else Tee(output)
    source = Command(command, tee=tee.write if tee else None)

    def stop(number: int) -> None:
        source.stop(number)
        if tee:
            tee.hurry()

    outcome = await perform(task_id, settings, source.events(), stop)
    if tee:
        tee.close()
        if tee.mid_line and os.isatty(tee.descriptor):
            click.echo(err=True)
    return outcome


async def _publish(settings: Settings, task_id: str, again: bool) -> Outcome:
    if again:
        await create_task_async(task_id, settings=settings)
    return await perform(task_id, settings, read_text(_STANDARD_INPUT))


def _leave(task_id: str, outcome: Outcome, as_json: bool) -> NoReturn:
    """Say how it ended, and exit with its code."""
    if not outcome.began and outcome.exit_code == errors.CANCELLED:
        click.echo(f"bridge: task {task_id} was cancelled before it began (--again begins it anew)", err=True)
    elif (outcome.state, outcome.exit_code) == ("cancelled", errors.CANCELLED):
        click.echo(f"bridge: task {task_id} was cancelled", err=True)
    if as_json:
        _print_json(task_id, outcome.state, outcome.exit_code)
    if not outcome.confirmed:
        # Redis was waited for once, and a warning has been given. The exit handlers would wait once more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(outcome.exit_code)
    raise click.exceptions.Exit(outcome.exit_code)


def _print_json(task_id: str, state: str, exit_code: int) -> None:
    click.echo(dumps({"id": task_id, "state": state, "exit_code": exit_code}))
