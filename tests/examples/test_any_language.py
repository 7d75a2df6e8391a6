"""examples/any-language as its README runs it: real programs in other languages against a real gateway."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.gateway.reports.reporter import KEY
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.processes import command_line, descendants, environ
from tests.proxy import proxy
from tests.waiting import eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "any-language"
SH = pytest.param(["./worker.sh", "job-1", "cat"], id="sh", marks=pytest.mark.needs("curl"))
NODE = pytest.param(["node", "worker.mjs", "job-1"], id="node", marks=pytest.mark.needs("node"))
PHP = pytest.param(["php", "worker.php", "job-1"], id="php", marks=pytest.mark.needs("php"))
WORDS = ["Zwölf ", "Boxkämpfer ", "jagen ", "😀"]


@pytest.fixture
def gateway(redis_url: str) -> Iterator[Running]:
    """A gateway that takes reports, and looks for cancels often."""
    with running(redis_url, report_keys=KEY, cancel_check_seconds=0.05) as one:
        yield one


class Worker:
    """One of the examples; `say` is what comes on its standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str) -> None:
        self._input.write(line + "\n")
        self._input.flush()

    def finish(self) -> tuple[int, str, str]:
        """There is no more to say; how it went."""
        stdout, stderr = self._process.communicate(timeout=20)
        return self._process.returncode, stdout, stderr

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


@contextmanager
def worker(command: list[str], url: str) -> Iterator[Worker]:
    """Run one of the examples in its folder."""
    env = environ(BRIDGE_URL=url, BRIDGE_REPORT_KEY=KEY, AGAIN_SECONDS="0.05")
    pipe: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=EXAMPLE, env=env, text=True, **pipe) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


@pytest.mark.parametrize("command", [SH, NODE, PHP])
def test_text_is_watched_while_it_is_written(gateway: Running, command: list[str]) -> None:
    """Each line is on the stream before the next is said; then the task ends well."""
    with watch(gateway) as viewer, worker(command, gateway.url) as one:
        text = ""
        for word in WORDS:
            one.say(word)
            text += word + "\n"
            viewer.text_is(text)
        code, stdout, stderr = one.finish()
        assert (code, "succeeded" in stdout) == (0, True), stderr
        assert viewer.to_end().view.state == "succeeded"


@pytest.mark.parametrize("command", [SH, NODE, PHP])
def test_a_cancel_stops_the_worker(gateway: Running, command: list[str]) -> None:
    """It ends although its input goes on, and its task as cancelled, with the text that it had."""
    with watch(gateway) as viewer, worker(command, gateway.url) as one:
        one.say("so far")
        viewer.text_is("so far\n")
        gateway.post("/tasks/job-1/cancel")
        if command[0] != "node":
            # It finds out with the next thing it says; a broken pipe is noticed with the one after that.
            eventually(lambda: _say_more(one) or viewer_state(gateway) == "cancelled")
        code, stdout, stderr = one.finish()
        assert (code, "cancelled" in stdout) == (0, True), stderr
        assert viewer.to_end().view.state == "cancelled"
        assert viewer.view.text.startswith("so far\n")


def _say_more(one: Worker) -> bool:
    try:
        one.say("more")
    except OSError:
        return True  # it listens no more
    return False


def viewer_state(gateway: Running) -> str:
    """The task's state as polls see it."""
    return str(gateway.get("/tasks/job-1/status").json()["state"])


@pytest.mark.parametrize("command", [NODE, PHP])
def test_broken_connections_cost_nothing(gateway: Running, command: list[str]) -> None:
    """Before the gateway is there, and each time that the network breaks, it is tried again: no line is lost,
    and none is there twice.
    """
    text = ""
    with proxy(gateway.url) as relay, watch(gateway) as viewer:
        relay.refuse()
        with worker(command, relay.http) as one:
            for number, word in enumerate(WORDS * 5):
                if number % 3 == 2:
                    relay.cut()
                one.say(word)
                text += word + "\n"
                relay.refuse(False)
                viewer.text_is(text)
            code, _, stderr = one.finish()
            assert code == 0, stderr
            viewer.to_end()
    assert (viewer.view.text, viewer.view.state) == (text, "succeeded")


@pytest.mark.needs("curl")
def test_a_command_that_fails_fails_its_task(gateway: Running) -> None:
    """The task says with which status, keeps the text, and so does the program."""
    with worker(["./worker.sh", "job-1", "sh", "-c", "echo before; exit 3"], gateway.url) as one:
        code, _, stderr = one.finish()
    assert (code, stderr) == (3, "")
    seen = gateway.get("/tasks/job-1/status").json()
    assert (seen["text"], seen["state"]) == ("before\n", "failed")
    assert seen["error"] == {"code": "exit", "message": "The command exited with status 3."}


@pytest.mark.parametrize("command", [SH, NODE, PHP])
def test_a_worker_that_comes_too_late_says_why(gateway: Running, command: list[str]) -> None:
    """A task that was cancelled in the queue isn't begun, and the worker ends."""
    headers = {"Authorization": f"Bearer {KEY}"}
    gateway.post("/tasks/job-1", headers=headers)
    gateway.post("/tasks/job-1/cancel")
    with worker(command, gateway.url) as one:
        _, stdout, stderr = one.finish()
    assert "ended" in stdout + stderr
    assert viewer_state(gateway) == "cancelled"


@pytest.mark.needs("curl")
def test_the_commands_of_the_main_page_work(gateway: Running) -> None:
    """Line by line, with a model that says one word."""
    page = (EXAMPLE.parents[1] / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(export BRIDGE_REPORT_KEYS=.*?)```", page, re.DOTALL)
    commands = re.sub(r"export .*", f"BRIDGE_REPORT_KEYS={KEY}", block, count=1)
    commands = commands.replace("http://127.0.0.1:8620", gateway.url).replace("./model", "printf world")
    subprocess.run(["sh", "-eu", "-c", commands], check=True, env=environ(), capture_output=True, timeout=20)
    seen = gateway.get("/tasks/job-42/status").json()
    assert (seen["text"], seen["progress"], seen["state"]) == ("Hello world", 0.9, "succeeded")


@pytest.mark.needs("curl")
def test_the_key_is_on_no_command_line(gateway: Running) -> None:
    """Everybody on the machine can read those."""
    with worker(["./worker.sh", "job-1", "cat"], gateway.url) as one:
        one.say("hello")
        eventually(lambda: gateway.get("/tasks/job-1/status").json().get("text"))
        lines = [command_line(pid) for pid in {one.pid, *descendants(one.pid)}]
        assert any(b"/tasks/job-1/events" in line for line in lines)
        assert not any(KEY.encode() in line for line in lines)
        one.finish()


def test_the_files_are_short() -> None:
    """An example is read in one go."""
    for file in EXAMPLE.glob("worker.*"):
        assert len(file.read_text().splitlines()) <= 60, file
