"""The assistant on a stage: every process that it is made of, each of which a test may kill and start again.

    Redis ── gateway ── web app ── Celery worker ── two providers (aimock)

Rules
-----
1. A part keeps its port through all restarts. Whoever ends one starts it again: the stage is shared.
2. A part leads a process group of its own, so that a kill takes its children, too, as a machine's end does.
3. Nothing of the environment of who runs the tests gets in but what a program needs to run.
4. Answers are taught while the stage runs, each for one question that nobody else asks.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from assistant import accounts

from bridge.store.embedded import HOST
from tests.examples.assistant.people import Person
from tests.processes import environ
from tests.servers import RedisProcess, free_port, keys_without_ttl
from tests.sources.llm.servers import aimock_command, fixture
from tests.waiting import eventually

EXAMPLE = Path(__file__).parents[3] / "examples" / "assistant"
LEASE_SECONDS = 3.0
START_SECONDS = 30.0
PASSWORD = "correct horse"

TEXT = "Grüße aus Köln,\n\nund\u2028bis\x85bald! 👋🏽 «data: x»\r\n" * 3
"""What is easily broken on its way: half characters, and all that somebody may take for the end of a line."""
SLOW = 60
"""Milliseconds for three characters: `TEXT` then takes three seconds, and something can be seen meanwhile."""

BRIDGE = {
    "BRIDGE_AUTH": "jwt",
    "BRIDGE_TICKET_KEYS": "a-key-of-thirty-two-bytes-or-more",
    "BRIDGE_LEASE_SECONDS": str(LEASE_SECONDS),
    "BRIDGE_CANCEL_CHECK_SECONDS": "0.05",
    "BRIDGE_AUDIT_SECONDS": "0.2",
    "BRIDGE_PROBE_SECONDS": "2",
    "BRIDGE_HEARTBEAT_SECONDS": "0.5",
    "BRIDGE_DRAIN_SECONDS": "0.1",
    "BRIDGE_OUTAGE_WAIT_SECONDS": "0.5",
}

_FOREIGN = ("ASSISTANT_", "ANTHROPIC_", "AZURE_", "GEMINI_", "OLLAMA_", "OPENAI_", "BROKER_URL")


class Part:
    """One process. `alive` says whether it serves; what it prints goes to `log`. A context manager."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path, alive: Callable[[], bool]
    ) -> None:
        self.env = dict(env)
        self.log = log
        self._name = name
        self._command = command
        self._alive = alive
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self._name} isn't running"
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it."""
        assert self._process is None, f"{self._name} is running already"
        # Each life has a log of its own: `alive` may look for a line in it.
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=EXAMPLE,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it serves."""
        eventually(self._serves, timeout=START_SECONDS)

    def kill(self) -> None:
        """End it at once, with all that it started. Does nothing if it isn't running."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(START_SECONDS)

    def restart(self, **env: str) -> None:
        """End it at once and start it again, with other variables if there are any."""
        self.kill()
        self.env |= env
        self.start()

    @contextmanager
    def away(self) -> Iterator[None]:
        """It is killed, and runs again after the block."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing during the block: connections stay open, nothing is answered."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._name} didn't start:\n{self.log.read_text()}")
        return self._alive()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Stage:
    """All parts together, and the people in front of it."""

    def __init__(self, folder: Path, redis: RedisProcess) -> None:
        self.folder = folder
        self.redis = redis
        self.database = folder / "assistant.db"
        self._ports = {name: free_port() for name in ("gateway", "web", "openai", "anthropic")}
        self._people: list[Person] = []
        self._numbers = itertools.count(1)
        self._apps = itertools.count(1)
        self.gateway = self._part(
            "gateway", ["-m", "bridge", "serve", "--port", str(self._ports["gateway"])], "/readyz"
        )
        worker = ["-A", "assistant.generation", "worker", "--concurrency", "2", "-l", "info"]
        worker += ["--without-mingle", "--without-gossip"]  # it would wait for others, and there are none
        self.worker = self._part("worker", ["-m", "celery", *worker])
        self.web = self._web("web", self._ports["web"])
        self.openai = self._provider("openai")
        self.anthropic = self._provider("anthropic")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that run all the time."""
        return (self.gateway, self.openai, self.anthropic, self.worker, self.web)

    def url(self, name: str) -> str:
        """Where a part listens."""
        return f"http://{HOST}:{self._ports[name]}"

    @property
    def env(self) -> dict[str, str]:
        """What all parts are started with."""
        clean = {k: v for k, v in environ().items() if not k.startswith(_FOREIGN)}
        return {
            **clean,
            **BRIDGE,
            "REDIS_URL": self.redis.url,
            # What a broker keeps for ever is its own business.
            "BROKER_URL": self.redis.url.removesuffix("/0") + "/1",
            "BRIDGE_CORS_ORIGINS": self.url("web"),
            "ASSISTANT_DATABASE": str(self.database),
            "ASSISTANT_GATEWAY_URL": self.url("gateway"),
            "ASSISTANT_MESSAGES_PER_MINUTE": "10000",
            "ASSISTANT_SWEEP_SECONDS": "0.3",
            "OPENAI_API_KEY": "sk-x",
            "OPENAI_BASE_URL": self.url("openai") + "/v1",
            "ANTHROPIC_API_KEY": "sk-y",
            "ANTHROPIC_BASE_URL": self.url("anthropic"),
            "PATIENCE_SECONDS": "0",
        }

    @contextmanager
    def another_web(self, *without: str, **env: str) -> Iterator[str]:
        """A second web app on the same database, with other variables; the value is its URL."""
        name = f"web-{next(self._apps)}"
        self._ports[name] = free_port()
        part = self._web(name, self._ports[name])
        part.env = {k: v for k, v in {**part.env, **env}.items() if k not in without}
        with part:
            part.wait()
            yield self.url(name)

    def teach(self, text: str = TEXT, *, provider: str = "openai", **options: Any) -> str:
        """A question that this provider answers so. `options` are a fixture's: latency= in ms per chunk …"""
        question = f"question {next(self._numbers)}."
        response = options.pop("response", {"content": text})
        body = {"fixtures": [fixture(question, response, **options)]}
        httpx.post(f"{self.url(provider)}/__aimock/fixtures", json=body, verify=False).raise_for_status()
        return question

    def asked(self, question: str, *, provider: str = "openai") -> list[dict[str, Any]]:
        """The bodies of all requests in which this was the last that the user said."""
        journal = httpx.get(f"{self.url(provider)}/__aimock/journal", verify=False).json()
        bodies = [entry["body"] for entry in journal if entry["body"]]
        return [body for body in bodies if body["messages"][-1]["content"] == question]

    def streams(self) -> int:
        """How many are open at the gateway."""
        metrics = httpx.get(f"{self.url('gateway')}/metrics", verify=False).text
        (value,) = re.findall(r"^bridge_streams_open (\d+)", metrics, re.MULTILINE)
        return int(value)

    def person(self, url: str | None = None) -> Person:
        """Somebody new, who is logged in, at this web app."""
        name = f"person-{next(self._numbers)}"
        with self.connect() as database:
            if not database.execute("SELECT 1 FROM users").fetchone():
                accounts.set_password(database, "first", PASSWORD)
            # All have the same password: to hash one takes its time.
            copy = "INSERT INTO users (name, password) SELECT ?, password FROM users WHERE name = 'first'"
            database.execute(copy, [name])
        one = Person(name, url or self.url("web"))
        self._people.append(one)
        one.log_in(PASSWORD)
        return one

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """A connection of the test's own to the database; what is done on it is done at once."""
        with closing(sqlite3.connect(self.database, timeout=30, isolation_level=None)) as database:
            yield database

    def stored(self, conversation_id: object) -> list[dict[str, Any]]:
        """The answers in the database, for which nobody at the web app is asked."""
        with self.connect() as database:
            database.row_factory = sqlite3.Row
            rows = database.execute(
                "SELECT * FROM messages WHERE conversation_id = ? AND role = 'assistant' ORDER BY id",
                [conversation_id],
            )
            return [dict(row) for row in rows]

    @contextmanager
    def storing_fails(self) -> Iterator[None]:
        """No answer can be stored during the block; everything else can."""
        with self.connect() as database:
            database.execute(
                "CREATE TRIGGER refused BEFORE INSERT ON messages WHEN NEW.role = 'assistant' "
                "BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"
            )
            try:
                yield
            finally:
                database.execute("DROP TRIGGER refused")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else writes to the database during the block."""
        with self.connect() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                database.execute("ROLLBACK")

    def close(self) -> None:
        """Close what people hold open."""
        for person in self._people:
            person.http.close()

    def _web(self, name: str, port: int) -> Part:
        uvicorn = ["-m", "uvicorn", "--log-level", "warning", "--port", str(port)]
        return self._part(name, [*uvicorn, "--factory", "assistant.app:create_app"], "/me")

    def _provider(self, name: str) -> Part:
        folder = self.folder / name
        folder.mkdir()
        command = aimock_command(folder, [fixture("ping", {"content": "pong"})], self._ports[name])
        return Part(
            name, command, environ(), self.folder / f"{name}.log", lambda: answers(f"{self.url(name)}/health")
        )

    def _part(self, name: str, arguments: Sequence[str], path: str | None = None) -> Part:
        log = self.folder / f"{name}.log"

        def alive() -> bool:
            if path is None:
                return b" ready." in log.read_bytes()
            return answers(self.url(name) + path)

        return Part(name, [sys.executable, *arguments], self.env, log, alive)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Everything runs, and nothing is left of it after the block."""
    with ExitStack() as stack:
        one = Stage(folder, stack.enter_context(RedisProcess()))
        stack.callback(one.close)
        for part in one.parts:
            stack.enter_context(part)
        for part in one.parts:
            part.wait()
        yield one
        leaked = keys_without_ttl(one.redis.url)
    assert not leaked, f"keys without a TTL: {leaked}"


def answers(url: str) -> bool:
    """Whether a server is there, and well."""
    address = httpx.URL(url)
    try:
        # To ask in vain costs a hundred times as much as to knock, and takes it from who is just starting.
        socket.create_connection((address.host, address.port or 80)).close()
        return httpx.get(url, verify=False).status_code < 500
    except OSError:
        return False
    except httpx.TransportError:
        return False
