"""Settings, fork, and the end of the interpreter."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

import bridge
from bridge import report_progress
from bridge.errors import SettingsError
from bridge.settings import Settings
from bridge.worker import process
from tests.servers import RedisProcess
from tests.waiting import eventually
from tests.worker.logs import end_of, events, read_view

# Forking with threads is what these tests are about; newer Pythons warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


HUNG_SECONDS = 30
"""A child that takes longer is ended: it hangs."""


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a forked child, which ends without any clean-up, and return its JSON result."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        result = json.loads(answer.read())
    os.waitpid(pid, 0)
    return result


def run_python(code: str, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BRIDGE_REDIS_URL": url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * HUNG_SECONDS,
    )


# Settings.


def test_settings_come_from_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `configure`, the environment at the time of the first task counts."""
    monkeypatch.setenv("BRIDGE_REDIS_URL", "redis://first:1/0")
    assert process.current_settings().redis_url == "redis://first:1/0"
    monkeypatch.setenv("BRIDGE_REDIS_URL", "redis://second:1/0")
    assert process.current_settings().redis_url == "redis://first:1/0"


def test_configure_changes_single_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named settings win over the environment, the others come from it."""
    monkeypatch.setenv("BRIDGE_PREFIX", "mine:")
    chosen = bridge.configure(redis_url="redis://x:1/0")
    assert (chosen.redis_url, chosen.prefix) == ("redis://x:1/0", "mine:")
    assert process.current_settings() is chosen
    assert bridge.configure(Settings(prefix="b:"), lease_seconds=5) == Settings(prefix="b:", lease_seconds=5)


def test_a_wrong_setting_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad environment variable is an error of the first task, by its name."""
    monkeypatch.setenv("BRIDGE_LEASE_SECONDS", "soon")
    with pytest.raises(SettingsError, match="BRIDGE_LEASE_SECONDS"):
        bridge.task("t").start()


# Fork.


def test_a_forked_child_drops_what_it_inherited(settings: Settings, redis_client: redis.Redis) -> None:
    """In the child the parent's task takes nothing and is not ended; the parent goes on undisturbed."""
    with bridge.task("t") as task:
        report_progress("parent ")

        def work() -> list[Any]:
            answers = [report_progress("child "), task.report_progress("child "), report_progress(0.5)]
            return [*answers, task.finish(), task.cancel_requested, threading.active_count()]

        assert in_child(work) == [True, True, True, False, False, 1]
        report_progress("again")
        task.succeed("parent's")
    assert end_of(redis_client, "t").result == "parent's"
    view = read_view(redis_client, "t")
    assert (view.text, view.progress) == ("parent again", None)


def test_a_forked_child_has_its_own_tasks(settings: Settings, redis_client: redis.Redis) -> None:
    """The child starts a pump of its own, with the same settings; the block waits until its end is known."""
    with bridge.task("t"):
        report_progress("parent ")

        def work() -> list[Any]:
            with bridge.task("u") as task:
                report_progress("child")
            return [task.finish(), bridge.create_task("v"), report_progress("unbound")]

        assert in_child(work) == [False, True, True]
        assert read_view(redis_client, "u").text == "child"
        assert end_of(redis_client, "u").state == "succeeded"
        report_progress("again")
    assert read_view(redis_client, "t").text == "parent again"
    assert read_view(redis_client, "v").state == "queued"


def test_leaving_an_inherited_block_in_a_child_ends_nothing(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """A child that runs into the end of the parent's block doesn't end the parent's task."""
    reader, writer = os.pipe()
    with bridge.task("t"):
        report_progress("x")
        pid = os.fork()
    if pid == 0:
        os.write(writer, b"left")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "left"
    os.waitpid(pid, 0)
    assert end_of(redis_client, "t").state == "succeeded"


def test_a_fork_while_a_thread_makes_a_task(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is in the middle of its first report leaves no lock behind that the child needs."""
    inside, go_on = threading.Event(), threading.Event()
    real = process.current_settings

    def slow() -> Settings:
        if threading.current_thread() is other:
            inside.set()
            go_on.wait()
        return real()

    other = threading.Thread(target=lambda: bridge.task("other").report_progress("x"))
    monkeypatch.setattr(process, "current_settings", slow)
    other.start()
    inside.wait()

    def work() -> bool:
        signal.alarm(HUNG_SECONDS)
        return bridge.task("child").report_progress("x")

    try:
        assert in_child(work) is True
    finally:
        go_on.set()
        other.join()


def test_a_fork_in_the_midst_of_the_first_import(redis_url: str) -> None:
    """A thread that begins the process's first task imports redis-py: a fork waits for that, and a child for
    nothing; so does a child that forks again.
    """
    code = f"""
import os, signal, sys, threading
import bridge

inside, forking = threading.Event(), threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "redis":
            inside.set()
            forking.wait()

sys.meta_path.insert(0, Slow())
os.register_at_fork(before=forking.set)
other = threading.Thread(target=lambda: bridge.task("other").start().finish())
other.start()
inside.wait()

def child(generations):
    pid = os.fork()
    if pid == 0:
        signal.alarm({HUNG_SECONDS})
        bridge.task(f"child-{{generations}}").start().finish()
        if generations > 1:
            forker = threading.Thread(target=child, args=(generations - 1,))
            forker.start()
            forker.join()
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)

child(2)
other.join()
"""
    ended = run_python(code, redis_url)
    assert (ended.returncode, ended.stdout.split()) == (0, ["0", "0"]), ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_a_fork_in_the_middle_of_a_storm(settings: Settings, redis_client: redis.Redis) -> None:
    """Threads report while the process forks: the locks they hold don't stop the child."""
    with bridge.task("t") as task:
        stop = threading.Event()
        written = [0, 0]

        def storm(number: int) -> None:
            while not stop.is_set():
                task.report_progress("x", field=f"f{number}")
                written[number] += 1

        threads = [threading.Thread(target=storm, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert in_child(lambda: [task.report_progress("y"), bridge.task("u").start().finish()]) == [
                True,
                True,
            ]
        stop.set()
        for thread in threads:
            thread.join()
    view = read_view(redis_client, "t")
    assert {f: len(text) for f, text in view.fields.items()} == {"f0": written[0], "f1": written[1]}


def _work_elsewhere(url: str, task_id: str) -> None:
    bridge.configure(redis_url=url)
    with bridge.task(task_id):
        report_progress("from a process")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_children_are_whole(
    settings: Settings, redis_client: redis.Redis, method: str
) -> None:
    """They skip exit handlers; the block's own wait is enough."""
    with bridge.task("parent"):
        report_progress("x")
        context: Any = multiprocessing.get_context(method)
        child = context.Process(target=_work_elsewhere, args=(settings.redis_url, "t"))
        child.start()
        child.join()
    assert child.exitcode == 0
    assert read_view(redis_client, "t").text == "from a process"
    assert end_of(redis_client, "t").state == "succeeded"
    assert end_of(redis_client, "parent").state == "succeeded"


# The end of the interpreter.


def test_what_waits_is_sent_at_exit(redis_url: str, redis_client: redis.Redis) -> None:
    """A process that ends with an open task leaves all its text, and no end."""
    code = """
import bridge
task = bridge.task("t").start()
bridge.report_progress("first")
while task.buffer.level: pass
bridge.report_progress(" last words")
bridge.create_task("u")
"""
    done = run_python(code, redis_url, BRIDGE_FLUSH_MILLISECONDS="3600000", BRIDGE_CREATE_TIMEOUT_SECONDS="0")
    assert done.returncode == 0, done.stderr
    view = read_view(redis_client, "t")
    assert (view.text, view.state) == ("first last words", "running")
    assert read_view(redis_client, "u").state == "queued"


def test_who_closes_says_all_there_is_and_then_nothing(settings: Settings, redis_client: redis.Redis) -> None:
    """What was merged still is sent, and no pump is left that would give signs of life. The process has its
    settings still.
    """
    chosen = bridge.configure(settings, flush_milliseconds=1_000_000)
    task = bridge.task("job").start()
    report_progress("sent, ")
    eventually(lambda: not task.buffer.level)
    report_progress("and what waited")
    process.close()
    view = read_view(redis_client, "job")
    assert (view.text, view.state) == ("sent, and what waited", "running")
    assert "bridge-pump" not in [thread.name for thread in threading.enumerate()]
    assert process.current_settings() is chosen
    task.finish(wait=False)


def test_an_exit_inside_a_block_is_an_end(redis_url: str, redis_client: redis.Redis) -> None:
    """`sys.exit` inside a block leaves it like anything that is raised."""
    code = """
import sys, bridge
with bridge.task("t"):
    bridge.report_progress("x")
    sys.exit(3)
"""
    assert run_python(code, redis_url).returncode == 3
    end = end_of(redis_client, "t")
    assert end.error == {"code": "SystemExit", "message": "The work exited with status 3."}


def test_the_exit_does_not_hang_without_redis() -> None:
    """With Redis away the interpreter waits no longer than the close timeout, and says so."""
    server = RedisProcess()
    code = """
import logging, bridge
logging.basicConfig()
bridge.task("t").start()
bridge.report_progress("x")
"""
    done = run_python(code, server.url, BRIDGE_CLOSE_TIMEOUT_SECONDS="0.1")
    assert done.returncode == 0
    assert "ends before all reports are sent" in done.stderr


def test_the_exit_does_not_wait_again() -> None:
    """What a block has waited for in vain isn't waited for a second time, but the exit says it's not sent."""
    code = """
import logging, bridge
from bridge.worker import process
logging.basicConfig()
patient = bridge.configure()
process._pump_for(patient)  # so the exit may take long
with bridge.task("t", settings=patient.with_(close_timeout_seconds=0)):
    bridge.report_progress("x")
"""
    server = RedisProcess()
    done = run_python(code, server.url, BRIDGE_CLOSE_TIMEOUT_SECONDS="1000")
    assert done.returncode == 0
    assert "ends before all reports are sent" in done.stderr


def test_no_thread_is_started_at_exit(redis_url: str, redis_client: redis.Redis) -> None:
    """A task that begins when the interpreter already ends does nothing, quietly for the work."""
    code = """
import atexit, logging, bridge, threading
logging.basicConfig()
def late():
    with bridge.task("t") as task:
        print(task.report_progress("x"), bridge.create_task("u"), threading.active_count())
atexit.register(late)
"""
    done = run_python(code, redis_url)
    assert (done.returncode, done.stdout.strip()) == (0, "True False 1"), done.stderr
    assert "shutting down" in done.stderr
    assert "Traceback" not in done.stderr
    assert events(redis_client, "t") == []


def test_importing_the_hook_is_cheap() -> None:
    """Library code that only calls the hook doesn't load redis-py."""
    done = run_python(
        "import sys, bridge; bridge.report_progress('x'); print('redis' in sys.modules)", "redis://x"
    )
    assert done.stdout.strip() == "False", done.stderr
