"""Command line options made from the settings, so that each setting's name, default and help exist once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, Final, TypeVar

import click

from bridge.settings import Settings, default_text, env_name

Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS: Final = {one.name: one for one in fields(Settings)}

STORE: Final = ("redis_url", "prefix")
"""What everybody needs who writes or reads a log."""

LOG: Final = ("lease_seconds", "ended_ttl_seconds", "live_ttl_seconds", "max_task_bytes")

WORKER: Final = (
    *STORE,
    *LOG,
    "flush_milliseconds",
    "flush_bytes",
    "close_timeout_seconds",
    "cancel_check_seconds",
    "create_timeout_seconds",
)

MATRIX: Final = ("matrix_homeserver",)

_OTHERS: Final = {*WORKER, *MATRIX, "gateway_url"} - {*STORE, *LOG}

SECRETS: Final = tuple(name for name, one in SETTINGS.items() if one.metadata["secret"])
"""They are no options: a command line can be read by everybody on the machine, and stays in the history."""

GATEWAY: Final = tuple(name for name in SETTINGS if name not in {*_OTHERS, *SECRETS})
"""All that isn't a worker's or a sink's alone: a new setting is the gateway's until somebody says otherwise.
"""


def flag(one: Field[Any]) -> str:
    """The option of a setting: ``--heartbeat-seconds``."""
    return "--" + one.name.replace("_", "-")


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Add an option for each of these settings. The command's function takes them as keywords.

    An option that isn't given is None, for `Settings.from_env(**flags)`: the environment and the defaults
    are that function's business alone.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _option(SETTINGS[name])(command)
        return command

    return decorate


def _option(one: Field[Any]) -> Callable[[Command], Command]:
    variables = ", ".join((env_name(one), *one.metadata["also"]))
    text = f"{one.metadata['help']} [{variables}; default: {default_text(one) or 'none'}]"
    if isinstance(one.default, bool):
        return click.option(f"{flag(one)}/--no-{flag(one)[2:]}", default=None, help=text)
    return click.option(
        flag(one),
        type=type(one.default),
        default=None,
        metavar=_METAVARS.get(type(one.default), "TEXT"),
        help=text,
    )


_METAVARS: Final = {int: "N", float: "NUMBER"}
