"""`bridge run` as a process, with real commands: what it shows, what the task says, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
import redis
from click.testing import CliRunner

from bridge.cli import main
from bridge.settings import Settings
from bridge.store.connect import keys_for
from bridge.store.scripts import Calls, run_pipeline
from bridge.view import View
from tests.processes import environ, program, running
from tests.servers import RedisProcess, free_port
from tests.waiting import eventually
from tests.worker.logs import read_view


def pipe(file: IO[bytes] | None) -> IO[bytes]:
    """One of a process's pipes."""
    assert file is not None
    return file


class Tasks:
    """The tasks in the test's Redis, and those who ask them to stop."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.url = url
        self.client = client
        self.calls = Calls(keys_for(Settings(), client))

    def view(self, task_id: str) -> View:
        """What the task looks like now."""
        return read_view(self.client, task_id)

    def cancel(self, task_id: str) -> None:
        """Ask it to stop, as the gateway does."""
        run_pipeline(self.client, [self.calls.cancel(task_id)])

    def create(self, task_id: str) -> None:
        """Announce it, as the app does."""
        run_pipeline(self.client, [self.calls.create(task_id, owner="", creation="by-the-test")])

    @contextmanager
    def run(self, *arguments: str, task: str = "job", **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """``bridge run --task job arguments…``"""
        env = {"BRIDGE_REDIS_URL": self.url, "BRIDGE_CANCEL_CHECK_SECONDS": "0.05"}
        with program("run", "--task", task, *arguments, env=env, **options) as process:
            yield process

    def result(self, *arguments: str, **options: Any) -> tuple[str, str, int]:
        """The same to its end: standard output, standard error, exit code."""
        with self.run(*arguments, **options) as process:
            stdout, stderr = process.communicate(timeout=30)
        assert b"Traceback" not in stderr
        return stdout.decode(), stderr.decode(), process.returncode


@pytest.fixture
def tasks(redis_url: str, redis_client: redis.Redis) -> Tasks:
    """The test's tasks."""
    return Tasks(redis_url, redis_client)


def shell(script: str) -> tuple[str, ...]:
    """A shell script as the command."""
    return ("--", "sh", "-c", script)


def test_output_is_shown_and_is_the_text(tasks: Tasks) -> None:
    """Standard output gets the command's output to the byte, the task the same as text, and it succeeds."""
    stdout, stderr, code = tasks.result(*shell("echo one; echo two >&2; printf thrée"))
    assert (stdout, code) == ("one\ntwo\nthrée", 0)
    view = tasks.view("job")
    assert (view.text, view.state, view.result) == (stdout, "succeeded", {"exit_code": 0})
    hint = "bridge: task job; watch it: curl -N http://127.0.0.1:8620/tasks/job/events\n"
    assert stderr == hint


def test_the_exit_code_is_the_commands(tasks: Tasks) -> None:
    """A command that fails is a failed task that says why, and the exit code is its own."""
    stdout, _, code = tasks.result(*shell("echo so far; exit 7"))
    assert (stdout, code) == ("so far\n", 7)
    view = tasks.view("job")
    assert (view.text, view.state) == ("so far\n", "failed")
    assert view.error == {"code": "exit_status", "message": "the command ended with exit status 7"}
    assert view.result == {"exit_code": 7}


def test_ended_by_a_signal(tasks: Tasks) -> None:
    """A command that a signal ended gives the exit code that a shell would give."""
    assert tasks.result(*shell("kill -KILL $$"))[2] == 137
    error = tasks.view("job").error
    assert error is not None
    assert error["code"] == "signal"


def test_output_is_shown_before_a_line_is_complete(tasks: Tasks) -> None:
    """Text without a line end is on our standard output and in the task while the command waits."""
    with tasks.run(*shell("printf 'name? '; read name; echo hello $name"), stdin=subprocess.PIPE) as process:
        assert pipe(process.stdout).read(6) == b"name? "
        eventually(lambda: tasks.view("job").text == "name? ")
        assert tasks.view("job").state == "running"
        stdout, _ = process.communicate(b"you\n", timeout=30)
    assert stdout == b"hello you\n"
    assert tasks.view("job").text == "name? hello you\n"


def test_a_character_cut_in_two(tasks: Tasks) -> None:
    """A character whose bytes come apart is one in the task; our output got each byte at once."""
    script = r"printf '\342\202'; read line; printf '\254 \377'"
    with tasks.run(*shell(script), stdin=subprocess.PIPE) as process:
        assert pipe(process.stdout).read(2) == b"\xe2\x82"
        stdout, _ = process.communicate(b"\n", timeout=30)
    assert stdout == b"\xac \xff"
    assert tasks.view("job").text == "€ \ufffd"


def test_options_of_the_command_are_the_commands(tasks: Tasks) -> None:
    """What stands after the command's name belongs to the command, with and without `--`."""
    assert tasks.result("echo", "--task", "x", "-n")[0] == "--task x -n\n"
    assert tasks.result("--quiet", "--", "sh", "-c", "exit 5")[::2] == ("", 5)


def test_quiet_and_json(tasks: Tasks) -> None:
    """`--json` prints one JSON line on standard output, the command's output goes to standard error."""
    stdout, stderr, code = tasks.result("--json", *shell("echo out; exit 9"))
    assert json.loads(stdout) == {"id": "job", "state": "failed", "exit_code": 9}
    assert stderr.endswith("\nout\n")
    assert code == 9
    stdout, stderr, _ = tasks.result("--json", "--quiet", *shell("echo out"))
    assert json.loads(stdout)["state"] == "succeeded"
    assert "out\n" not in stderr


def test_a_random_id(tasks: Tasks) -> None:
    """Without an id each run gets one of its own, which is printed."""
    ids = set()
    for _ in range(2):
        with program("run", "--json", "--", "echo", "hi", env={"BRIDGE_REDIS_URL": tasks.url}) as process:
            stdout, stderr = process.communicate(timeout=30)
        task_id = json.loads(stdout)["id"]
        assert task_id in stderr.decode()
        assert tasks.view(task_id).text == "hi\n"
        ids.add(task_id)
    assert len(ids) == 2


GROUP = "trap 'echo stopping; exit 5' TERM INT; sh -c 'echo pid $$; exec sleep 1000' & wait"
"""A shell that says something when it is stopped. Its child says its pid when it can be stopped, too."""


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The pid that `GROUP` says."""
    return int(pipe(process.stdout).readline().split()[1])


def test_a_cancel_reaches_the_whole_group(tasks: Tasks) -> None:
    """A cancel through the bridge stops a silent command and its children, and the task ends as cancelled."""
    with tasks.run(*shell(GROUP)) as process:
        child = child_of(process)
        # The command doesn't wait until Redis knows of the task.
        eventually(lambda: tasks.view("job").state == "running")
        tasks.cancel("job")
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, process.returncode) == (b"stopping\n", 3)
    assert stderr.endswith(b"\nbridge: task job was cancelled\n")
    assert tasks.view("job").state == "cancelled"
    assert tasks.view("job").text == f"pid {child}\nstopping\n"
    eventually(lambda: not running(child))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_cancel(tasks: Tasks, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal stop the whole group; the task ends as cancelled."""
    script = GROUP.replace("INT", "INT HUP")
    with tasks.run("--json", *shell(script), stderr=subprocess.PIPE) as process:
        assert b"task job" in pipe(process.stderr).readline()
        child = int(pipe(process.stderr).readline().split()[1])
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert json.loads(stdout) == {"id": "job", "state": "cancelled", "exit_code": 128 + number}
    assert stderr == b"stopping\n"
    view = tasks.view("job")
    assert (view.state, view.error, view.text) == ("cancelled", None, f"pid {child}\nstopping\n")
    eventually(lambda: not running(child))


def test_a_second_ctrl_c_kills(tasks: Tasks) -> None:
    """A command that doesn't care about Ctrl-C is killed by the second one."""
    script = "trap 'echo no' INT; echo $$; while :; do sleep 1000 & wait; done"
    with tasks.run(*shell(script)) as process:
        command = int(pipe(process.stdout).readline())
        process.send_signal(signal.SIGINT)
        assert pipe(process.stdout).readline() == b"no\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert not running(command)
    assert tasks.view("job").state == "cancelled"


def test_a_signal_that_is_ignored_stays_ignored(tasks: Tasks) -> None:
    """Under nohup, a closed terminal stops nothing."""
    command = [sys.executable, "-m", "bridge", "run", "--task", "job", *shell("echo on; read x; echo done")]
    with subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "BRIDGE_REDIS_URL": tasks.url},
    ) as process:
        assert pipe(process.stdout).readline() == b"on\n"
        process.send_signal(signal.SIGHUP)
        stdout, _ = process.communicate(b"\n", timeout=30)
    assert (stdout, process.returncode) == (b"done\n", 0)


def test_a_reader_that_stands_still_does_not_delay_ctrl_c(tasks: Tasks) -> None:
    """While nobody takes our output (a pager), Ctrl-C still stops the command."""
    with tasks.run("--", "yes") as process:
        assert pipe(process.stdout).read(2) == b"y\n"
        eventually(lambda: len(tasks.view("job").text) > 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert tasks.view("job").state == "cancelled"


def test_a_reader_that_left_does_not_end_the_work(tasks: Tasks) -> None:
    """When the reader of our output goes away, the command goes on, and the task gets everything."""
    with tasks.run(*shell("echo one; read x; echo two; echo three"), stdin=subprocess.PIPE) as process:
        assert pipe(process.stdout).readline() == b"one\n"
        pipe(process.stdout).close()
        pipe(process.stdin).write(b"\n")
        pipe(process.stdin).close()
        assert process.wait(30) == 0
    assert tasks.view("job").text == "one\ntwo\nthree\n"


def test_a_task_that_was_cancelled_is_not_run(tasks: Tasks, tmp_path: Path) -> None:
    """A task that was cancelled while it was queued isn't begun; `--again` begins it anew."""
    witness = tmp_path / "ran"
    tasks.create("job")
    tasks.cancel("job")
    stdout, stderr, code = tasks.result("--json", *shell(f"echo ran > {witness}"))
    assert json.loads(stdout) == {"id": "job", "state": "cancelled", "exit_code": 3}
    assert (code, witness.exists()) == (3, False)
    assert "was cancelled before it began (--again begins it anew)" in stderr
    assert tasks.result("--again", *shell("echo hi"))[2] == 0
    assert (tasks.view("job").text, tasks.view("job").state) == ("hi\n", "succeeded")


def test_a_task_may_be_run_again(tasks: Tasks) -> None:
    """A task that ended, also by Ctrl-C, is run again as its next attempt."""
    with tasks.run(*shell("echo first; read x"), stdin=subprocess.PIPE) as process:
        assert pipe(process.stdout).readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert tasks.result(*shell("echo second"))[2] == 0
    view = tasks.view("job")
    assert (view.text, view.state, view.attempt) == ("second\n", "succeeded", 2)


def test_another_worker_takes_over(tasks: Tasks) -> None:
    """A run whose task was begun by somebody else stops, and says that it isn't its task any more."""
    with tasks.run("--json", *shell("echo on >&2; read x"), stdin=subprocess.PIPE) as process:
        assert b"task job" in pipe(process.stderr).readline()
        assert pipe(process.stderr).readline() == b"on\n"
        eventually(lambda: tasks.view("job").state == "running")
        assert tasks.result("echo", "newer")[2] == 0
        # Its standard input is still open, so it is the bridge that ends it.
        process.wait(30)
        stdout, stderr = process.communicate()
    assert json.loads(stdout) == {"id": "job", "state": "superseded", "exit_code": 1}
    assert b"taken over" in stderr
    assert tasks.view("job").text == "newer\n"


@pytest.mark.parametrize(
    ("command", "said", "code"),
    [
        ("no-such-command", "command not found: no-such-command", 127),
        ("/", "can't run /: Permission denied", 126),
    ],
)
def test_a_command_that_can_not_start(tasks: Tasks, command: str, said: str, code: int) -> None:
    """A command that isn't there is one line, the shell's exit code, and a failed task for who watches."""
    stdout, stderr, exit_code = tasks.result("--json", "--", command)
    assert json.loads(stdout) == {"id": "job", "state": "failed", "exit_code": code}
    assert exit_code == code
    assert stderr.splitlines()[1:] == [f"bridge: {said}"]
    view = tasks.view("job")
    assert (view.state, view.error) == ("failed", {"code": "CommandError", "message": said})


def test_without_redis_the_command_runs_all_the_same() -> None:
    """Redis away: the output is shown, the exit code is the command's, and a warning says what is missing."""
    url = f"redis://me:secret@127.0.0.1:{free_port()}/0"
    env = {"BRIDGE_REDIS_URL": url, "BRIDGE_CLOSE_TIMEOUT_SECONDS": "0"}
    with program("run", "--task", "job", *shell("echo hi; exit 4"), env=env) as process:
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, process.returncode) == (b"hi\n", 4)
    said = stderr.decode()
    assert "secret" not in said
    assert "Traceback" not in said
    assert "bridge: the end of task job isn't confirmed" in said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("away", [False, True])
def test_standard_streams_may_be_closed(tasks: Tasks, tmp_path: Path, closed: str, away: bool) -> None:
    """What was closed is the null device, for us and for the command; nothing else changes."""
    seen = tmp_path / "seen"
    work = f"echo hi; cat; echo ho >&2; echo $? > {seen}; exit 4"
    script = f"exec {sys.executable} -m bridge run --task job -- sh -c '{work}' {closed}"
    url = f"redis://127.0.0.1:{free_port()}/0" if away else tasks.url
    env = environ(BRIDGE_REDIS_URL=url, BRIDGE_CLOSE_TIMEOUT_SECONDS="0" if away else "10")
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, check=False, timeout=30)
    assert (done.returncode, seen.read_text()) == (4, "0\n"), done.stderr
    assert b"Traceback" not in done.stderr
    if ">&-" not in closed.replace("2>&-", ""):
        assert done.stdout == b"hi\nho\n"
    if not away:
        assert tasks.view("job").text == "hi\nho\n"


def test_ctrl_c_does_not_wait_for_redis() -> None:
    """A Ctrl-C while only the end waits for an absent Redis ends the waiting; those after it do nothing."""
    env = {
        "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "BRIDGE_CLOSE_TIMEOUT_SECONDS": "1000",
    }
    with program("run", "--task", "job", *shell("echo $$"), env=env) as process:
        command = int(pipe(process.stdout).readline())
        eventually(lambda: not running(command))

        # Those that come before the waiting has begun are cancels as any other.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.003)
        said = pipe(process.stderr).read()
    assert process.returncode in (0, 130)
    # Only that: of signals that come faster than a busy loop takes them Python tells with a traceback, too.
    assert b"KeyboardInterrupt" not in said


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reader stands still, and that takes nothing any more: the two ends."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b" " * 512)
    os.set_blocking(write, True)
    try:
        yield read, write
    finally:
        os.close(read)
        os.close(write)


def ignores_ctrl_c(pid: int) -> bool:
    """Whether a process ignores SIGINT. Needs ``/proc``."""
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> signal.SIGINT - 1 & 1)


def test_ctrl_c_does_not_break_off_the_last_word(tasks: Tasks) -> None:
    """When the work has ended there is nothing more to cancel, and what is left to do is done."""
    with full_pipe() as (read, write), tasks.run("--json", "--quiet", "--", "true", stdout=write) as process:
        eventually(lambda: ignores_ctrl_c(process.pid))
        process.send_signal(signal.SIGINT)
        said = b""
        while b"}" not in said:
            said += os.read(read, 1024)
        assert (process.wait(30), json.loads(said)["state"]) == (0, "succeeded")


def test_a_last_word_that_nobody_reads_can_be_broken_off(tasks: Tasks) -> None:
    """When the work has ended, and our output's reader stands still, SIGTERM ends us."""
    with full_pipe() as (_, write), tasks.run("--json", "--quiet", "--", "true", stdout=write) as process:
        eventually(lambda: tasks.view("job").ended)

        def gone() -> bool:
            process.terminate()
            return process.poll() is not None

        eventually(gone)
        assert tasks.view("job").state == "succeeded"


PERFORMED = """
import asyncio, signal
from bridge.cli.perform import perform
from bridge.settings import Settings

class Loop(asyncio.SelectorEventLoop):
    def remove_signal_handler(self, number):
        super().remove_signal_handler(number)
        if number == pressed:
            signal.raise_signal(number)

async def source():
    if fails:
        raise ValueError("broken")
    return
    yield

async def main():
    settings = Settings(redis_url="redis://127.0.0.1:1/0", close_timeout_seconds=0)
    await perform("job", settings, source())

with asyncio.Runner(loop_factory=Loop) as runner:
    try:
        runner.run(main())
    except ValueError:
        print("raised")
    signal.raise_signal(signal.SIGINT)
print("left")
"""
"""A program that performs a task; `pressed` is a signal that comes just when asyncio lets go of it."""


def performed(**values: Any) -> tuple[int, list[str]]:
    """That program, with these values: its status, and what it has printed."""
    code = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + PERFORMED
    done = subprocess.run([sys.executable, "-c", code], env=environ(), capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode().split()


def test_ctrl_c_in_the_moment_in_which_it_begins_to_be_ignored() -> None:
    """Nor does one do that which comes while asyncio has just given it back to Python, nor the next."""
    assert performed(pressed=int(signal.SIGINT), fails=False) == (0, ["left"])


def test_after_work_that_raises_ctrl_c_is_what_it_was() -> None:
    """Whatever is wrong then, it can be broken off."""
    assert performed(pressed=0, fails=True) == (-signal.SIGINT, ["raised"])


def test_redis_comes_while_the_command_runs() -> None:
    """What was written before Redis was there is sent when it comes."""
    server = RedisProcess()
    env = {"BRIDGE_REDIS_URL": server.url}
    with program(
        "run", "--task", "job", *shell("echo early; read x; echo late"), stdin=subprocess.PIPE, env=env
    ) as process:
        assert pipe(process.stdout).readline() == b"early\n"
        with server, server.client() as client:
            process.communicate(b"\n", timeout=30)
            assert (read_view(client, "job").text, process.returncode) == ("early\nlate\n", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'COMMAND...'"),
        (["run", "--task", "a/b", "true"], "a task id is"),
        (["run", "--sideways", "true"], "No such option"),
        (["run", "--redis-url", "ftp://x", "true"], "redis_url can't be used"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    """What is wrong with the command line is said without running anything, with exit code 2."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
