"""`bridge tail`, `status` and `cancel`: look at tasks through a gateway."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any, Final

import click

from bridge.cli import errors
from bridge.cli.errors import one_line
from bridge.client import Client
from bridge.codec import dumps, encode, utf8
from bridge.errors import TaskNotFound
from bridge.events import MAIN_FIELD, Chunk, End, Event, Position, Progress, Reset, State, check_task_id
from bridge.settings import Settings, env_name
from bridge.urls import shown

EXIT_CODES: Final = {
    "succeeded": errors.SUCCEEDED,
    "failed": errors.FAILED,
    "cancelled": errors.CANCELLED,
}

_SETTING: Final = next(one for one in fields(Settings) if one.name == "gateway_url")

_gateway = click.option(
    "--gateway",
    metavar="URL",
    help=f"Where the gateway is. Default: {env_name(_SETTING)}, else {_SETTING.default}.",
)
_ticket = click.option(
    "--ticket",
    metavar="TEXT",
    help="What lets you in, where the gateway asks for it. Everybody on this machine can read it here:"
    " BRIDGE_TICKET says it too, and BRIDGE_TICKET_FILE names a file that holds it.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script to read.")
_id = click.argument("task_id", metavar="ID")


def _settings(gateway: str | None, ticket: str | None) -> Settings:
    return Settings.from_env(gateway_url=gateway, ticket=ticket)


def _client(settings: Settings, **more: Any) -> Client:
    return Client(settings.gateway_url, ticket=settings.ticket, **more)


@click.command()
@_id
@_gateway
@_ticket
@click.option(
    "--field",
    default=MAIN_FIELD,
    show_default=True,
    metavar="NAME",
    help="Which text to print, if not the main.",
)
@click.option(
    "--after", metavar="POSITION", help="Only what came after this position, such as 1763650000000-17."
)
@click.option("--json", "as_json", is_flag=True, help="Print every event as one line of JSON.")
def tail(
    task_id: str, gateway: str | None, ticket: str | None, field: str, after: str | None, as_json: bool
) -> None:
    """Print the text of task ID as it grows, until the task ends.

    Dropped connections are taken up again where they broke. When the text starts anew (the worker tried
    again, say), a line says so and the new text follows from its beginning. A task that nobody has created
    yet is waited for.

    Exit code: 0 the task succeeded, 1 it failed, 3 it was cancelled; 2 wrong usage, 4 no gateway or no such
    task, 130 Ctrl-C (which stops the watching, not the task).
    """
    start = None if after is None else Position.parse(after)
    settings = _settings(gateway, ticket)
    printer: _Printer = _JsonLines() if as_json else _Text(field)
    printer.note(f"watching {check_task_id(task_id)} at {shown(settings.gateway_url)}")
    with _client(settings, on_drop=printer.dropped) as client:
        for position, event in client.events(task_id, after=start):
            printer.take(position, event)
        # Without an `end` there was nothing more to send: the task had ended at or before the position.
        state = printer.end.state if printer.end else client.status(task_id).get("state", "")
    printer.finish()
    if printer.end and printer.end.error and printer.end.error.get("code") == "unknown_task":
        raise TaskNotFound(f"nobody has created a task {task_id}, and the gateway has stopped waiting for it")
    raise click.exceptions.Exit(EXIT_CODES.get(state, errors.FAILED))


class _Printer:
    """What both kinds of output share: the `end`, and notes for whoever sits at a terminal."""

    def __init__(self) -> None:
        self.end: End | None = None
        self._mid_line = False
        self._last_note = ""

    def take(self, position: Position, event: Event) -> None:
        """Print one event."""
        if isinstance(event, End):
            self.end = event

    def note(self, text: str, *, always: bool = False) -> None:
        """A line on stderr, if that is a terminal: a log file has no use for a hundred of them."""
        if text != self._last_note and (always or sys.stderr.isatty()):
            self._last_note = text
            self._leave_line()
            click.echo(f"[{one_line(text)}]", err=True)

    def dropped(self, reason: str, seconds: float) -> None:
        """Say that the stream broke."""
        self.note(f"{reason}; again in {seconds:.1f} s" if seconds else reason)

    def finish(self) -> None:
        """Leave the terminal at the start of a line, and say why a task failed."""
        self._leave_line()
        if self.end and self.end.error:
            said = ": ".join(text for text in self.end.error.values() if text)
            click.echo(f"bridge: the task {self.end.state}: {one_line(said)}", err=True)

    def write(self, data: bytes) -> None:
        """Bytes to stdout, at once. Always UTF-8, whatever the locale says: the text may be any."""
        click.echo(data, nl=False)

    def _leave_line(self) -> None:
        # Into a pipe or a file goes the text alone, to the byte.
        if self._mid_line and sys.stdout.isatty():
            self.write(b"\n")
            self._mid_line = False


class _JsonLines(_Printer):
    """One JSON object per event."""

    def take(self, position: Position, event: Event) -> None:
        """Print one event."""
        super().take(position, event)
        self.write(
            b'{"position":"%b","kind":"%b","data":%b}\n'
            % (
                str(position).encode(),
                event.kind.encode(),
                encode(event),
            )
        )

    def finish(self) -> None:
        """Everything was said in the events."""


class _Text(_Printer):
    """The text of one field; the rest as notes."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field
        self._printed = False

    def take(self, position: Position, event: Event) -> None:
        """Print one event."""
        super().take(position, event)
        match event:
            case Chunk(text, field) if field == self._field and text:
                self.write(utf8(text))
                self._printed = True
                self._mid_line = not text.endswith("\n")
            case Reset(reason):
                self._start_again(reason)
            case State(state, attempt, cancel_requested):
                asked = ", asked to stop" if cancel_requested else ""
                self.note(f"{state}, attempt {attempt}{asked}" if attempt else f"{state}{asked}")
            case Progress(progress, message):
                percent = None if progress is None else f"{progress:.0%}"
                self.note(" ".join(part for part in (percent, message) if part))
            case End(state):
                self.note(state)

    def _start_again(self, reason: str) -> None:
        """What was printed can't be taken back, so a line on both outputs parts the old from the new."""
        if self._printed:
            self.write((b"\n" if self._mid_line else b"") + f"--- reset: {reason} ---\n".encode())
            self._printed = self._mid_line = False
            self.note(f"the text starts again ({reason})", always=True)


@click.command()
@_id
@_gateway
@_ticket
@_json
def status(task_id: str, gateway: str | None, ticket: str | None, as_json: bool) -> None:
    """Print what is known of task ID now.

    Exit code: 0 whatever the task's state; 2 wrong usage, 4 no gateway or no such task.
    """
    with _client(_settings(gateway, ticket)) as client:
        view = client.status(task_id)
    click.echo(dumps(view) if as_json else utf8(_summary(view)))


@click.command()
@_id
@_gateway
@_ticket
@_json
def cancel(task_id: str, gateway: str | None, ticket: str | None, as_json: bool) -> None:
    """Ask task ID to stop. Asking again changes nothing.

    A worker stops at its next report, so this returns before the task has ended; `bridge tail ID` waits.
    Exit code: 0 asked, or ended already; 2 wrong usage, 4 no gateway or no such task.
    """
    with _client(_settings(gateway, ticket)) as client:
        view = client.cancel(task_id)
    if as_json:
        click.echo(dumps(view))
    elif view.get("state") in EXIT_CODES:
        click.echo(f"{task_id} has ended: {view['state']}")
    else:
        click.echo(f"{task_id} is asked to stop")


def _summary(view: dict[str, Any]) -> str:
    """A view for people: a line per fact that is known, then the text."""
    progress, error = view.get("progress"), view.get("error") or {}
    facts = {
        "task": view.get("id"),
        "state": view.get("state"),
        "attempt": view.get("attempt"),
        "progress": None if progress is None else f"{progress:.0%}",
        "message": view.get("message"),
        "cancel": "requested" if view.get("cancel_requested") else None,
        "error": ": ".join(str(part) for part in error.values() if part),
        "result": None if view.get("result") is None else dumps(view["result"]).decode(),
        "usage": None if view.get("usage") is None else dumps(view["usage"]).decode(),
        "position": view.get("position"),
        "created": view.get("created_at"),
        "updated": view.get("updated_at"),
        "ended": view.get("ended_at"),
        "data": ", ".join(view.get("data") or {}),
    }
    lines = [f"{name:9} {one_line(str(value))}" for name, value in facts.items() if value]
    for field, text in {MAIN_FIELD: view.get("text"), **(view.get("fields") or {})}.items():
        if text:
            lines += ["", f"{one_line(field)}:", text]
    return "\n".join(lines)
