"""The examples of plain workers and task queues as their READMEs run them, with all their processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.running import running
from tests.processes import environ
from tests.servers import free_port
from tests.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWER = "You asked: Why? That is a good question, and this is a long answer."
START_SECONDS = 30.0


@contextmanager
def started(folder: str, *arguments: str, env: dict[str, str]) -> Iterator[None]:
    """``python -m …`` or ``python file …`` in the example's folder; it is killed with the block."""
    command = [sys.executable, *arguments]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=EXAMPLES / folder, env=environ(**env), **quiet) as process:  # type: ignore[call-overload]  # options as a mapping
        try:
            yield
        finally:
            process.kill()


@dataclass
class Reader:
    """Whoever reads a stream: the text so far, in how many pieces it came, and the end."""

    lines: Iterator[str]
    text: str = ""
    pieces: int = 0

    def to_end(self) -> dict[str, Any]:
        """Read until the task has ended; the end."""
        kind = ""
        for line in self.lines:
            field, _, value = line.partition(": ")
            kind = value if field == "event" else kind
            if field == "data" and kind == "chunk":
                self.text, self.pieces = self.text + json.loads(value)["text"], self.pieces + 1
            elif field == "data" and kind == "reset":
                self.text = ""
            elif field == "data" and kind == "end":
                end: dict[str, Any] = json.loads(value)
                return end
        raise AssertionError("the stream stopped without an end")


@contextmanager
def reading(gateway: str, task_id: str) -> Iterator[Reader]:
    """A stream that is open: what is written from now on comes while it is written."""
    with httpx.stream("GET", f"{gateway}/tasks/{task_id}/events", timeout=30, verify=False) as response:
        yield Reader(response.iter_lines())


def get(url: str) -> httpx.Response:
    """A poll; the server may not be up yet."""
    try:
        return httpx.get(url, timeout=30, verify=False)
    except httpx.ConnectError:
        return httpx.Response(503)


def post(url: str) -> dict[str, Any]:
    """What the app answers to it."""
    answer: dict[str, Any] = httpx.post(url, timeout=30, verify=False).json()
    return answer


def test_a_plain_worker(redis_url: str) -> None:
    """It takes a question from its list, streams the answer, and stops when it is told to."""
    env = {"REDIS_URL": redis_url, "BRIDGE_CANCEL_CHECK_SECONDS": "0.05"}

    def ask(question: str) -> str:
        command = [sys.executable, "worker.py", question]
        cwd = EXAMPLES / "plain-worker"
        said = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=cwd, env=environ(**env)
        )
        return said.stdout.strip()

    with ExitStack() as stack:
        gateway = stack.enter_context(running(redis_url))
        # Who reads is there before anybody answers.
        with reading(gateway.url, ask("Why?")) as reader:
            stack.enter_context(started("plain-worker", "worker.py", env=env))
            end = reader.to_end()
        assert (reader.text.strip(), end["state"]) == (ANSWER, "succeeded")
        assert reader.pieces > 3
        # The answer says it again, which takes the worker longer than anybody takes to stop it.
        task_id = ask("Why? " * 200)
        eventually(lambda: gateway.get(f"/tasks/{task_id}/status").json()["text"])
        gateway.post(f"/tasks/{task_id}/cancel")
        with reading(gateway.url, task_id) as reader:
            assert reader.to_end()["state"] == "cancelled"
        assert ("You asked: " + "Why? " * 200).startswith(reader.text)


def test_celery_and_fastapi(redis_url: str) -> None:
    """The app schedules, the mounted gateway streams, and `/status` says what it always said."""
    port = free_port()
    site = f"http://127.0.0.1:{port}"
    # What a broker keeps for ever is its own business.
    env = {"REDIS_URL": redis_url, "BROKER_URL": redis_url.removesuffix("/0") + "/1"}
    worker = ["-m", "celery", "-A", "shop.celery", "worker", "--concurrency", "2", "-l", "critical"]
    with ExitStack() as stack:
        stack.enter_context(
            started("celery-fastapi", "-m", "uvicorn", "shop:app", "--port", str(port), env=env)
        )
        eventually(lambda: get(f"{site}/bridge/readyz").status_code == 200, timeout=START_SECONDS)
        task_id = post(f"{site}/ask?question=Why%3F")["task_id"]
        assert get(f"{site}/status/{task_id}").json() == {"task_status": "PENDING", "task_result": None}
        # Who reads is there before anybody answers.
        with reading(f"{site}/bridge", task_id) as reader:
            stack.enter_context(started("celery-fastapi", *worker, env=env))
            end = reader.to_end()
        assert (reader.text.strip(), end["state"], end["result"]) == (ANSWER, "succeeded", ANSWER)
        assert reader.pieces > 3
        assert get(f"{site}/status/{task_id}").json() == {"task_status": "SUCCESS", "task_result": ANSWER}
        assert '"/bridge/bridge.js"' in get(f"{site}/").text
        assert get(f"{site}/bridge/bridge.js").status_code == 200


def test_rq_and_flask(redis_url: str) -> None:
    """The app enqueues, the gateway beside it streams, and `/status` says what it always said."""
    port = free_port()
    site = f"http://127.0.0.1:{port}"
    queue = redis_url.removesuffix("/0") + "/1"
    worker = ["-m", "rq.cli", "worker", "-u", queue, "-w", "bridge.worker.adapters.rq.Worker", "-q"]
    with ExitStack() as stack:
        gateway = stack.enter_context(running(redis_url, cors_origins=site))
        env = {"REDIS_URL": redis_url, "RQ_REDIS_URL": queue, "BRIDGE_GATEWAY_URL": gateway.url}
        stack.enter_context(
            started("rq-flask", "-m", "flask", "--app", "shop", "run", "-p", str(port), env=env)
        )
        eventually(lambda: get(f"{site}/").status_code == 200, timeout=START_SECONDS)
        job_id = post(f"{site}/ask?question=Why%3F")["job_id"]
        # Who reads is there before anybody answers.
        with reading(gateway.url, job_id) as reader:
            stack.enter_context(started("rq-flask", *worker, env=env))
            end = reader.to_end()
        assert (reader.text.strip(), end["state"], end["result"]) == (ANSWER, "succeeded", ANSWER)
        assert reader.pieces > 3
        assert get(f"{site}/status/{job_id}").json() == {"status": "finished", "result": ANSWER}
        assert f'"{gateway.url}/bridge.js"' in get(f"{site}/").text


@pytest.mark.parametrize("folder", ["plain-worker", "celery-fastapi", "rq-flask"])
def test_an_example_is_one_short_file(folder: str) -> None:
    """It is read in one go, and its README names it."""
    readme = (EXAMPLES / folder / "README.md").read_text()
    (file,) = (EXAMPLES / folder).glob("*.py")
    assert f"[{file.name}]({file.name})" in readme
    assert len(file.read_text().splitlines()) <= 60
