"""`bridge serve`: run a gateway."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NoReturn

import click

from bridge.cli import logs
from bridge.cli.options import GATEWAY, SETTINGS, flag, settings_options
from bridge.errors import EmbeddedServerError
from bridge.gateway.server import serve as serve_gateway
from bridge.settings import Settings, misspelt
from bridge.store.embedded import embedded_server
from bridge.urls import shown

log = logging.getLogger(__name__)

_HOW: Final = ("upstream_status", "upstream_mapping")
"""What makes no sense without `upstream`."""

REDIS_PORT: Final = 6379
"""Where everybody looks for a Redis; a free port is the second choice."""


@click.command()
@settings_options(*GATEWAY)
@click.option(
    "--embedded", is_flag=True, help="Start a Valkey or Redis server of its own, which keeps nothing."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much is logged, on stderr.",
)
def serve(embedded: bool, log_level: str, **flags: Any) -> None:
    """Run a gateway until SIGTERM or Ctrl-C.

    It starts and stays up without Redis, too, and serves as soon as there is one. At the end the open
    streams are told when to come back, and are closed spread over the drain time.
    """
    if embedded and flags["redis_url"] is not None:
        raise click.UsageError("--embedded starts a Redis, --redis-url names one: give only one of them.")
    settings = Settings.from_env(**flags)
    _refuse_loose_upstream(settings)
    logs.for_operators(log_level, settings.log_format)
    for name, meant in misspelt(os.environ).items():
        log.warning("%s is no setting and changes nothing; is %s meant?", name, meant)
    with ExitStack() as stack:
        stack.enter_context(sigterm_ends())
        if embedded:
            settings = settings.with_(redis_url=stack.enter_context(local_redis(None)))

        def ready(url: str) -> None:
            click.echo(f"bridge: gateway at {url} with Redis at {shown(settings.redis_url)}")

        serve_gateway(settings, ready=ready)


def _refuse_loose_upstream(settings: Settings) -> None:
    """Whoever says how an app is asked, and names none, would wait for streams that never come."""
    loose = [name for name in _HOW if getattr(settings, name) != SETTINGS[name].default]
    if loose and not settings.upstream:
        raise click.UsageError(
            f"{flag(SETTINGS[loose[0]])} says how an app is asked, but --upstream names none."
        )


@contextmanager
def local_redis(port: int | None) -> Iterator[str]:
    """An embedded server on that port; with none named on the usual one, or if need be on any."""
    with ExitStack() as stack:
        if port is None:
            try:
                url = stack.enter_context(embedded_server(REDIS_PORT))
            except EmbeddedServerError:
                # Most likely a Redis runs there. If it is anything else, this says so.
                url = stack.enter_context(embedded_server())
        else:
            url = stack.enter_context(embedded_server(port))
        yield url


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Leave in order at a SIGTERM that comes before the gateway takes signals, or after."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
