"""The command `bridge demo` itself: a Redis, a gateway with its page, and workers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import click

from bridge.cli import logs
from bridge.cli.demo.kinds import ENDLESS
from bridge.cli.demo.routes import demo_routes
from bridge.cli.demo.workers import LEASE_SECONDS, Workers
from bridge.cli.hints import curl, program
from bridge.cli.options import SETTINGS, settings_options
from bridge.cli.serve import REDIS_PORT, local_redis, sigterm_ends
from bridge.gateway.server import serve as serve_gateway
from bridge.settings import Settings, env_name

DEMO_TASK: Final = "demo"
_DRAIN_SECONDS: Final = 0.5


@click.command()
@settings_options("host", "port", "base_path", "insecure")
@click.option(
    "--redis-port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help=f"The port of the embedded server. [default: {REDIS_PORT} if it is free, else any]",
)
def demo(redis_port: int | None, **flags: Any) -> None:
    """Show what the bridge does: a Redis, a gateway and workers, all on this machine, until Ctrl-C.

    Nothing is kept and nothing else needs to run. Open the page that it names in a browser; the other lines
    that it prints can be copied. Whoever can reach the port can start the page's tasks.
    """
    logs.for_operators("warning")
    with ExitStack() as stack:
        stack.enter_context(sigterm_ends())
        redis_url = stack.enter_context(local_redis(redis_port))
        settings = Settings.from_env(redis_url=redis_url, **flags)
        settings = settings.with_(
            page=True,
            lease_seconds=min(settings.lease_seconds, LEASE_SECONDS),
            drain_seconds=min(settings.drain_seconds, _DRAIN_SECONDS),
        )
        workers = stack.enter_context(Workers(settings))
        workers.start(ENDLESS, DEMO_TASK)
        serve_gateway(
            settings,
            ready=lambda url: click.echo(_welcome(url, redis_url)),
            extra_routes=demo_routes(workers),
        )


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
        f"page     {url}/",
        f"gateway  {url}",
        f"redis    {redis_url} (keeps nothing)",
        "",
        "Open the page: it shows a stream beside a client that polls, and has tasks to start, stop and kill.",
        "",
        "A worker writes one answer after the other. Watch it live, or ask as old clients do:",
        "",
        f"  {curl(url, DEMO_TASK)}",
        f"  curl {url}/tasks/{DEMO_TASK}/status",
        "",
        "Stream any command from another terminal, and watch it from a third, or on the page:",
        "",
        *(f"  {line}" for line in exports),
        f"  {program()} run --task build-1 -- pip download --no-deps -d /tmp/x redis",
        f"  {curl(url, 'build-1')}",
        f"  {url}/?task=build-1",
        "",
        "Ctrl-C ends it all.",
    ]
    return "\n".join(lines)
