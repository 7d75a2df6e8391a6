"""`bridge serve` and `bridge demo`: run a gateway, alone or with all that a demonstration needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NoReturn

import click

from bridge.cli import logs
from bridge.cli.hints import curl, program
from bridge.cli.options import GATEWAY, SETTINGS, settings_options
from bridge.errors import EmbeddedServerError
from bridge.gateway.server import serve as serve_gateway
from bridge.settings import Settings, env_name
from bridge.store.connect import shown
from bridge.store.embedded import embedded_server

REDIS_PORT: Final = 6379
"""Where everybody looks for a Redis; a free port is the second choice."""

DEMO_TASK: Final = "demo"
_DEMO_DRAIN_SECONDS: Final = 0.5
_WORKER_END_SECONDS: Final = 5.0


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
    logs.for_operators(log_level)
    if embedded and flags["redis_url"] is not None:
        raise click.UsageError("--embedded starts a Redis, --redis-url names one: give only one of them.")
    with ExitStack() as stack:
        stack.enter_context(_sigterm_ends())
        if embedded:
            flags["redis_url"] = stack.enter_context(_embedded(None))
        settings = Settings.from_env(**flags)

        def ready(url: str) -> None:
            click.echo(f"bridge: gateway at {url} with Redis at {shown(settings.redis_url)}")

        serve_gateway(settings, ready=ready)


@click.command()
@settings_options("host", "port", "base_path")
@click.option(
    "--redis-port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help=f"The port of the embedded server. [default: {REDIS_PORT} if it is free, else any]",
)
def demo(redis_port: int | None, **flags: Any) -> None:
    """Show what the bridge does: a Redis, a gateway and a worker, all on this machine, until Ctrl-C.

    Nothing is kept and nothing else needs to run. The lines that it prints can be copied.
    """
    logs.for_operators("warning")
    with ExitStack() as stack:
        stack.enter_context(_sigterm_ends())
        redis_url = stack.enter_context(_embedded(redis_port))
        settings = Settings.from_env(redis_url=redis_url, **flags)
        settings = settings.with_(drain_seconds=min(settings.drain_seconds, _DEMO_DRAIN_SECONDS))
        stack.enter_context(_worker(settings))
        serve_gateway(settings, ready=lambda url: click.echo(_welcome(url, redis_url)))


def _welcome(url: str, redis_url: str) -> str:
    """What the demonstration prints: what runs, what to look at, what to try."""
    here = Settings.from_env()
    # Another terminal has this one's defaults and, most likely, its variables.
    exports = [
        f"export {env_name(SETTINGS[name])}={value}"
        for name, value in (("redis_url", redis_url), ("gateway_url", url))
        if getattr(here, name) != value
    ]
    lines = [
        f"gateway  {url}",
        f"redis    {redis_url} (keeps nothing)",
        "",
        "A worker writes one answer after the other. Watch it live, or ask as old clients do:",
        "",
        f"  {curl(url, DEMO_TASK)}",
        f"  curl {url}/tasks/{DEMO_TASK}/status",
        "",
        "Stream any command from another terminal, and watch it from a third:",
        "",
        *(f"  {line}" for line in exports),
        f"  {program()} run --task build-1 -- pip download --no-deps -d /tmp/x redis",
        f"  {curl(url, 'build-1')}",
        "",
        "Ctrl-C ends it all.",
    ]
    return "\n".join(lines)


@contextmanager
def _embedded(port: int | None) -> Iterator[str]:
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
def _worker(settings: Settings) -> Iterator[None]:
    """The demonstration's worker, in a process of its own. It ends with this one, however that ends."""
    environ = {
        **os.environ,
        "BRIDGE_REDIS_URL": settings.redis_url,
        # When it ends, Redis may have gone before it.
        "BRIDGE_CLOSE_TIMEOUT_SECONDS": "1",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli.demo_worker", DEMO_TASK],
        # Nothing is ever written: that the pipe closes is the message.
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environ,
        # A Ctrl-C is for us; it is told when its time has come.
        start_new_session=True,
    )
    assert worker.stdin is not None
    try:
        yield
    finally:
        worker.stdin.close()
        try:
            worker.wait(_WORKER_END_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@contextmanager
def _sigterm_ends() -> Iterator[None]:
    """Leave in order at a SIGTERM that comes before the gateway takes signals, or after."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
