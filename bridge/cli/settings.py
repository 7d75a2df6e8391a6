"""`bridge settings`: what is set, and where it comes from."""

from __future__ import annotations

import os
from dataclasses import Field
from typing import Any

import click

from bridge.cli.options import SETTINGS
from bridge.codec import dumps
from bridge.settings import Settings, source_of
from bridge.urls import shown


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script to read.")
def settings(as_json: bool) -> None:
    """Print every setting with its value and where that comes from.

    These are the values that a command without flags would use. Passwords and secrets are never shown.
    """
    values = Settings.from_env()
    table = [(name, _shown(one, getattr(values, name)), _source(one)) for name, one in SETTINGS.items()]
    if as_json:
        click.echo(dumps({name: {"value": value, "source": source} for name, value, source in table}))
        return
    width = max(len(name) for name in SETTINGS)
    wide = max(len(str(value)) for _, value, _ in table)
    for name, value, source in table:
        click.echo(f"{name:{width}}  {value!s:{wide}}  {source}".rstrip())


def _shown(one: Field[Any], value: Any) -> Any:
    if one.metadata["secret"]:
        return "***" if value else ""
    return shown(value) if isinstance(value, str) else value


def _source(one: Field[Any]) -> str:
    return source_of(one, os.environ)[0] or "default"
