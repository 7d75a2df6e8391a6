"""Everything with one command, for trying it: python -m assistant --demo-model

It starts a gateway (with a Redis of its own where none is configured), a Celery worker and the web
application, and stops them all at Ctrl-C, or when one of them ends. `python -m assistant user NAME` adds a
user, or gives one a new password.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final, NoReturn

from assistant import accounts
from assistant.config import Config, ConfigError
from assistant.database import Database

HOST: Final = "127.0.0.1"
DEMO_USERS: Final = ("alice", "bob")
LOOK_SECONDS: Final = 0.2
STOP_SECONDS: Final = 10.0

GATEWAY: Final = ("bridge", "serve", "--log-level", "warning")
WORKER: Final = ("celery", "--quiet", "-A", "assistant.generation", "worker", "-c", "4", "-l", "warning")
WEB: Final = (
    *("uvicorn", "--factory", "assistant.app:create_app"),
    *("--log-level", "warning", "--timeout-graceful-shutdown", "2"),
)


def main() -> None:
    """Read the command line, and do it."""
    parser = argparse.ArgumentParser(prog="python -m assistant", description="A chat on the bridge.")
    parser.add_argument("--port", type=int, default=8000, help="of the page (8000; 0: any free one)")
    parser.add_argument(
        "--demo-model", action="store_true", help="offer a built-in model, and two users to try it with"
    )
    commands = parser.add_subparsers(dest="command")
    user = commands.add_parser("user", help="add a user, or give one a new password")
    user.add_argument("name")
    arguments = parser.parse_args()
    try:
        database = Database(Config.from_env().database)
    except ConfigError as error:
        sys.exit(f"assistant: {error}")
    database.create()
    if arguments.command == "user":
        add_user(database, arguments.name)
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        run(database, arguments.port, demo=arguments.demo_model)
    except KeyboardInterrupt:
        pass  # the usual way to stop it


def add_user(database: Database, name: str) -> None:
    """Ask for a password, at a terminal or on stdin, and store it."""
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < 8:
        sys.exit("A password has at least 8 characters.")
    with database.transaction() as db:
        accounts.set_password(db, name, password)


def run(database: Database, port: int, *, demo: bool) -> None:
    """Run all of it until somebody ends it, or one of the processes ends."""
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(port))
        place = listener.getsockname()[1]
        url = f"http://{HOST}:{place}"
        env = {
            "BRIDGE_PORT": "0",
            "BRIDGE_AUTH": "jwt",
            "BRIDGE_DRAIN_SECONDS": "1",
            "BRIDGE_TICKET_KEYS": secrets.token_urlsafe(48),
            "BRIDGE_CORS_ORIGINS": f"{url} http://localhost:{place}",
            "ASSISTANT_DEMO_MODEL": "1" if demo else "",
            **os.environ,
            "ASSISTANT_DATABASE": str(database.path.absolute()),
        }
        gateway, env = stack.enter_context(_gateway(env))
        worker = stack.enter_context(_process(env, *WORKER))
        web = stack.enter_context(_process(env, *WEB, "--fd", str(listener.fileno()), hand=listener))
        print(f"assistant: {url}", flush=True)
        for name in DEMO_USERS if demo else ():
            print(f"assistant: log in as {name} with {_demo_password(database, name)}", flush=True)
        while all(process.poll() is None for process in (gateway, worker, web)):
            time.sleep(LOOK_SECONDS)
        sys.exit("assistant: one of its processes ended; so do the others.")


def _listener(port: int) -> socket.socket:
    """Where the page will be. It is known before anybody needs it, and nobody takes it meanwhile."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        sys.exit(f"assistant: port {port} can't be had ({error.strerror}); choose another with --port")


@contextmanager
def _gateway(env: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`bridge serve`, and the environment with what it says: where it is, and where its Redis is."""
    configured = bool(env.get("BRIDGE_REDIS_URL") or env.get("REDIS_URL"))
    command = GATEWAY if configured else (*GATEWAY, "--embedded")
    with _process(env, *command, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        said = gateway.stdout.readline().decode()
        ready = re.search(r"gateway at (\S+) with Redis at (\S+)", said)
        if ready is None:
            sys.exit("assistant: the gateway did not start; why stands above.")
        found = {"ASSISTANT_GATEWAY_URL": ready[1]}
        if not configured:
            found["REDIS_URL"] = ready[2]
        yield gateway, {**found, **env}


@contextmanager
def _process(
    env: Mapping[str, str], *command: str, stdout: int | None = None, hand: socket.socket | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``python -m command…`` with `hand` as its own. It doesn't hear a Ctrl-C: it is told when its time has
    come, which is after those that need it.
    """
    hands = () if hand is None else (hand.fileno(),)
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=env, stdout=stdout, pass_fds=hands, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _demo_password(database: Database, name: str) -> str:
    """A user's new password, which holds until the next start."""
    password = secrets.token_urlsafe(6)
    with database.transaction() as db:
        accounts.set_password(db, name, password)
    return password


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
