"""Everything with one command, for trying it: python -m assistant --demo-model

It starts a gateway (with a Redis of its own where none is configured), a Celery worker and the web
application, and stops them all at Ctrl-C. And `python -m assistant user NAME` adds a user, or gives one a
new password.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NoReturn

import uvicorn

from assistant import accounts
from assistant.config import Config
from assistant.database import Database

HOST: Final = "127.0.0.1"
DEMO_USERS: Final = ("alice", "bob")
STOP_SECONDS: Final = 15.0


def main() -> None:
    """Read the command line, and do it."""
    parser = argparse.ArgumentParser(
        prog="python -m assistant", description="A chat application on the bridge."
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="of the web application (8000; 0: any free one)"
    )
    parser.add_argument(
        "--demo-model", action="store_true", help="offer a built-in model, and two users to try it with"
    )
    commands = parser.add_subparsers(dest="command")
    user = commands.add_parser("user", help="add a user, or give one a new password")
    user.add_argument("name")
    arguments = parser.parse_args()
    if arguments.command == "user":
        add_user(arguments.name)
    else:
        signal.signal(signal.SIGTERM, _end)
        run(arguments.port, demo=arguments.demo_model)


def add_user(name: str) -> None:
    """Ask for a password, at a terminal or on stdin, and store it."""
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < 8:
        sys.exit("A password has at least 8 characters.")
    database = Database(Config.from_env().database)
    database.create()
    with database.transaction() as db:
        accounts.set_password(db, name, password)


def run(port: int, *, demo: bool) -> None:
    """Run all of it until Ctrl-C or SIGTERM."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, port)))
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        os.environ |= _environment(url, demo=demo)
        os.environ |= stack.enter_context(_gateway())
        stack.enter_context(_worker())
        # Imported now: the environment that it reads is complete.
        from assistant.app import create_app

        app = create_app()
        print(f"assistant: {url}", flush=True)
        for name, password in _demo_users() if demo else ():
            print(f"assistant: log in as {name} with {password}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
        server.run([listener])


def _environment(url: str, *, demo: bool) -> dict[str, str]:
    """What the processes need to know of each other, where nobody has said it."""
    made_up = {
        "BRIDGE_AUTH": "jwt",
        "BRIDGE_TICKET_KEYS": secrets.token_urlsafe(48),
        "BRIDGE_CORS_ORIGINS": url,
        "ASSISTANT_DATABASE": str(Config.from_env().database.absolute()),
    }
    if demo:
        made_up["ASSISTANT_DEMO_MODEL"] = "1"
    return {**made_up, **{name: os.environ[name] for name in made_up if name in os.environ}}


@contextmanager
def _gateway() -> Iterator[dict[str, str]]:
    """`bridge serve`, which says where it is, and where its Redis is."""
    configured = os.environ.get("BRIDGE_REDIS_URL") or os.environ.get("REDIS_URL")
    command = ["-m", "bridge", "serve", "--log-level", "warning", *([] if configured else ["--embedded"])]
    with _process(*command, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        said = gateway.stdout.readline().decode()
        ready = re.search(r"gateway at (\S+) with Redis at (\S+)", said)
        if ready is None:
            sys.exit("The gateway did not start; what it said stands above.")
        found = {"ASSISTANT_GATEWAY_URL": ready[1]}
        if configured is None:
            found["REDIS_URL"] = ready[2]
            found["BROKER_URL"] = ready[2].removesuffix("/0") + "/1"
        yield {**found, **{name: os.environ[name] for name in found if name in os.environ}}


@contextmanager
def _worker() -> Iterator[None]:
    """A Celery worker, of two processes: so many answers are written at once."""
    with _process(
        "-m", "celery", "--quiet", "-A", "assistant.generation", "worker", "-c", "2", "-l", "warning"
    ):
        yield


@contextmanager
def _process(*arguments: str, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Python of ours. A Ctrl-C isn't for it: it is told when its time has come."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=stdout, start_new_session=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _demo_users() -> Iterator[tuple[str, str]]:
    """Users with passwords that hold until the next start."""
    database = Database(Config.from_env().database)
    for name in DEMO_USERS:
        password = secrets.token_urlsafe(6)
        with database.transaction() as db:
            accounts.set_password(db, name, password)
        yield name, password


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
