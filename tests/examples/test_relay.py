"""examples/relay as its README runs it, against a provider that nobody here wrote."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.settings import Settings
from tests.processes import environ
from tests.servers import free_port
from tests.sources.llm.servers import FIXTURES, TEXT, Process, aimock
from tests.waiting import eventually
from tests.worker.logs import call, end_of, read_view

EXAMPLE = Path(__file__).parents[2] / "examples" / "relay"
NOBODY = f"http://127.0.0.1:{free_port()}"

pytestmark = pytest.mark.needs("node", "aimock")


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The only provider that is there."""
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as server:
        yield server


def env(redis_url: str, **more: str) -> dict[str, str]:
    """An environment in which the first provider is down, and what `more` says is up."""
    away = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": NOBODY, "OLLAMA_URL": NOBODY}
    return environ(
        **{**away, "REDIS_URL": redis_url, "PATIENCE_SECONDS": "0", "BRIDGE_CANCEL_CHECK_SECONDS": "0.05"},
        **more,
    )


def anthropic(mock: Process) -> dict[str, str]:
    """The second of the example's models, up."""
    return {"ANTHROPIC_API_KEY": "sk-y", "ANTHROPIC_BASE_URL": mock.url}


@contextmanager
def plain(env: dict[str, str], question: str) -> Iterator[subprocess.Popen[str]]:
    """``python plain.py job-42 question``"""
    command = [sys.executable, "plain.py", "job-42", question]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=EXAMPLE, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_question_in_plain_asyncio(mock: Process, redis_url: str, redis_client: redis.Redis) -> None:
    """The second provider answers, because the first is down, and the task shows both."""
    with plain(env(redis_url, **anthropic(mock)), "greet") as process:
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, process.returncode) == (f"succeeded: {TEXT}\n", 0), stderr
    view = read_view(redis_client, "job-42")
    assert (view.text, view.state, view.result["provider"]) == (TEXT, "succeeded", "anthropic")
    assert view.data == {"failover": [{"provider": "openai", "code": "unavailable"}]}


def test_no_provider_is_there(redis_url: str, redis_client: redis.Redis) -> None:
    """The task has failed with a sentence that anybody may read, and the program says it."""
    with plain(env(redis_url), "greet") as process:
        stdout, stderr = process.communicate(timeout=30)
    assert stdout == "failed: \n"
    end = end_of(redis_client, "job-42")
    assert end.error is not None
    assert end.error["code"] == "unavailable"
    assert end.error["message"] in stderr


def test_a_cancel_stops_the_model(mock: Process, redis_url: str, redis_client: redis.Redis) -> None:
    """What had come is the text, and the provider's connection is closed."""
    with plain(env(redis_url, **anthropic(mock)), "steady") as process:
        eventually(lambda: read_view(redis_client, "job-42").text, timeout=30)
        assert mock.connections() == 1
        call(Settings(redis_url=redis_url), "cancel", "job-42")
        stdout, _ = process.communicate(timeout=30)
    assert stdout.startswith("cancelled: Grüße")
    assert end_of(redis_client, "job-42").state == "cancelled"
    eventually(lambda: mock.connections() == 0)


@contextmanager
def celery(redis_url: str, **more: str) -> Iterator[Callable[[str], tuple[str, str, str]]]:
    """A worker of the example's; the value asks it, and gives the task's id, Celery's state and result."""
    # What a broker keeps for ever is its own business.
    broker = redis_url.removesuffix("/0") + "/1"
    here: dict[str, Any] = {"cwd": EXAMPLE, "env": env(redis_url, BROKER_URL=broker, **more)}

    def ask(question: str) -> tuple[str, str, str]:
        code = f"""if True:
            from tasks import answer
            asked = answer.delay([{{"role": "user", "content": {question!r}}}])
            text = asked.get(30, propagate=False)
            print(asked.id, asked.state, text)
        """
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, capture_output=True, text=True, check=True, **here).stdout.strip()
        task_id, state, text = said.split(" ", 2)
        return task_id, state, text

    options = ["--pool=threads", "-c", "1", "-l", "critical"]
    with subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", *options], **here
    ) as worker:
        try:
            yield ask
        finally:
            worker.terminate()
            worker.wait(20)


def test_a_question_in_celery(mock: Process, redis_url: str, redis_client: redis.Redis) -> None:
    """The task on the bridge has Celery's id, and both say the same at the end."""
    with celery(redis_url, **anthropic(mock)) as ask:
        task_id, state, text = ask("greet")
        assert (state, text) == ("SUCCESS", TEXT)
        assert (read_view(redis_client, task_id).text, end_of(redis_client, task_id).state) == (
            TEXT, "succeeded"
        )  # fmt: skip
        task_id, state, text = ask("disconnect")
    view = read_view(redis_client, task_id)
    assert (state, view.state) == ("FAILURE", "failed")
    assert view.error is not None
    assert (view.error["code"], view.error["message"]) == ("interrupted", text)
    assert view.text
    assert (TEXT * 20).startswith(view.text)


def test_the_files_are_short() -> None:
    """An example is read in one go."""
    for file in EXAMPLE.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, file
