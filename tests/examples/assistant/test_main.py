"""The one command: everything runs with it, and nothing is left when it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from assistant import accounts
from assistant.database import Database

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import EXAMPLE
from tests.processes import descendants, environ, running
from tests.waiting import eventually

START_SECONDS = 30.0


@dataclass
class Command:
    """The command as it runs, and what it has said."""

    process: subprocess.Popen[str]
    url: str
    passwords: dict[str, str]

    def ended(self) -> int:
        """Its status, once it and all that it started have ended."""
        children = descendants(self.process.pid)
        status = self.process.wait(START_SECONDS)
        eventually(lambda: not [pid for pid in children if running(pid)])
        return status


def environment(folder: Path) -> dict[str, str]:
    """One in which nothing is set but the database."""
    foreign = ("ASSISTANT_", "ANTHROPIC_", "GEMINI_", "OLLAMA_", "OPENAI_", "BROKER_URL", "PYTHONUNBUFFERED")
    clean = {name: value for name, value in environ().items() if not name.startswith(foreign)}
    return {**clean, "ASSISTANT_DATABASE": str(folder / "assistant.db")}


def assistant(*arguments: str) -> list[str]:
    """``python -m assistant arguments…``"""
    return [sys.executable, "-m", "assistant", *arguments]


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[Command]:
    """It runs, and has said where."""
    with (folder / "log").open("w") as log:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": log, "text": True}
        process = subprocess.Popen(
            assistant("--port", "0", *arguments), cwd=EXAMPLE, env=environment(folder), **pipes
        )
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            url = re.fullmatch(r"assistant: (http://\S+)\n", said)
            assert url, said + (folder / "log").read_text()
            users = [process.stdout.readline() for _ in range(2)] if arguments else []
            found = (re.fullmatch(r"assistant: log in as (\w+) with (\S+)\n", line) for line in users)
            yield Command(process, url[1], {user[1]: user[2] for user in found if user})
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(START_SECONDS)


def test_nothing_but_the_command(tmp_path: Path) -> None:
    """Both of its users can talk to the demonstration, and at its end every process has ended."""
    with command(tmp_path, "--demo-model") as one:
        assert list(one.passwords) == ["alice", "bob"]
        for name, password in one.passwords.items():
            person = Person(name, one.url)
            person.log_in(password)
            gateway = person.http.get("/me").json()["gateway"]
            for origin in (one.url, one.url.replace("127.0.0.1", "localhost")):
                answer = httpx.get(f"{gateway}/bridge.js", headers={"Origin": origin})
                assert answer.headers["access-control-allow-origin"] == origin
            # The demonstration repeats it, a word at a time: it doesn't end before it is stopped.
            with person.stream("Hello? " * 200) as stream:
                assert "You said: Hello?".startswith(stream.until_text(3)[:16])
                person.cancel(stream.seen[0][1]["task_id"])
                assert stream.until("done")["state"] == "cancelled"
            person.http.close()
        one.process.send_signal(signal.SIGINT)
        assert one.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ways_to_end_it(tmp_path: Path, number: signal.Signals) -> None:
    """A service manager's, and that of a terminal that is closed."""
    with command(tmp_path) as one:
        one.process.send_signal(number)
        assert one.ended() == 128 + number


def test_who_dies_takes_the_others_along(tmp_path: Path) -> None:
    """Nobody talks for hours to an assistant that can't answer."""
    with command(tmp_path) as one:
        assert not one.passwords
        children = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(one.process.pid)}
        (gateway,) = [pid for pid, line in children.items() if b"bridge\0serve" in line]
        subprocess.run(["kill", "-KILL", str(gateway)], check=True)
        assert one.ended() == 1
    assert "one of its processes ended" in (tmp_path / "log").read_text()


def test_the_port_is_taken(tmp_path: Path) -> None:
    """It says so in a line, and starts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run(tmp_path, "--port", str(taken.getsockname()[1]))
    assert said.returncode == 1
    assert re.fullmatch(r"assistant: port \d+ can't be had \(.+\); choose another with --port\n", said.stderr)


def test_a_setting_that_does_not_fit(tmp_path: Path) -> None:
    """It is named in a line, and nothing is started."""
    said = run(tmp_path, ASSISTANT_MESSAGES_PER_MINUTE="many")
    assert said.returncode == 1
    assert said.stderr.startswith("assistant: ASSISTANT_MESSAGES_PER_MINUTE must be")
    assert said.stderr.count("\n") == 1


def test_the_gateway_does_not_start(tmp_path: Path) -> None:
    """Its own words say why, and nothing else is started."""
    said = run(tmp_path, "--port", "0", BRIDGE_HEARTBEAT_SECONDS="often")
    assert said.returncode == 1
    assert "BRIDGE_HEARTBEAT_SECONDS" in said.stderr
    assert said.stderr.endswith("assistant: the gateway did not start; why stands above.\n")


@pytest.mark.parametrize("again", [False, True])
def test_adding_a_user(tmp_path: Path, again: bool) -> None:
    """The name gets this password, whether it had one or not."""
    for password in ("an older one", "a good password")[not again :]:
        assert run(tmp_path, "user", "ann", stdin=password + "\n").returncode == 0
    with Database(tmp_path / "assistant.db").connection() as db:
        assert accounts.log_in(db, "ann", "a good password")
        assert not accounts.log_in(db, "ann", "an older one")


def test_a_short_password(tmp_path: Path) -> None:
    """It is refused, and nobody is added."""
    said = run(tmp_path, "user", "ann", stdin="short\n")
    assert (said.returncode, said.stderr) == (1, "A password has at least 8 characters.\n")
    with Database(tmp_path / "assistant.db").connection() as db:
        assert not db.execute("SELECT 1 FROM users").fetchone()


def run(folder: Path, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    here: dict[str, Any] = {"cwd": EXAMPLE, "env": {**environment(folder), **env}}
    return subprocess.run(
        assistant(*arguments), input=stdin, capture_output=True, text=True, timeout=START_SECONDS, **here
    )
