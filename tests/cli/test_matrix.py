"""`bridge matrix` as processes, with a real homeserver: killed, restarted, several at once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

import bridge
from bridge.cli import main
from bridge.client import Client
from bridge.sinks.matrix.asked import Asked
from bridge.sinks.matrix.message import LIVE
from bridge.worker import process
from tests.cli.test_serve import first_line, pipe
from tests.gateway.running import running
from tests.processes import program
from tests.proxy import Proxy
from tests.sinks.matrix.synapse import Synapse, User, Watcher

pytestmark = pytest.mark.needs("synapse")

SHORT = "1.5"
"""Seconds of a lease, where it is to run out. Where it isn't, a machine may be busy for longer than that."""

ECHO = """
import os, sys, time, pathlib
folder, question = pathlib.Path(sys.argv[1]), sys.stdin.read()
with (folder / "runs").open("a") as file:
    file.write(question + "\\n")
secrets = "BRIDGE_MATRIX_TOKEN", "BRIDGE_REDIS"
assert not any(name.startswith(secrets) for name in os.environ), "a secret of the bot's"
assert os.environ["MATRIX_EVENT"] and os.environ["BRIDGE_TASK_ID"].startswith("matrix-")
print(f"{question}: one", end="", flush=True)
while (folder / "wait").exists():
    time.sleep(0.02)
print(", two", end="", flush=True)
"""


@dataclass
class Place:
    """A room, and what `bridge matrix` must know to write into it."""

    bot: User
    ann: User
    room: str
    watcher: Watcher
    env: dict[str, str]
    gateway: str
    folder: Path

    def asked(self, event_id: str) -> str:
        """The task of a question."""
        return Asked(self.room, event_id, self.ann.id, "").task_id

    def hold(self) -> None:
        """From now on, commands stop in the middle."""
        (self.folder / "wait").touch()

    def release(self) -> None:
        (self.folder / "wait").unlink()

    @property
    def runs(self) -> list[str]:
        """The questions for which a command was run."""
        return (self.folder / "runs").read_text().splitlines()


@pytest.fixture(scope="module")
def people(synapse: Synapse) -> tuple[User, User]:
    """A bot, and somebody who asks."""
    return synapse.register("bot"), synapse.register("ann")


@pytest.fixture
def place(synapse: Synapse, redis_url: str, people: tuple[User, User], tmp_path: Path) -> Iterator[Place]:
    """A room with both in it, a gateway, and this process as a worker."""
    bot, ann = people
    room = ann.new_room(bot)
    (tmp_path / "token").write_text(bot.token + "\n")
    (tmp_path / "echo.py").write_text(ECHO)
    with running(redis_url, lease_seconds=float(SHORT)) as gateway:
        env = {
            "BRIDGE_REDIS_URL": redis_url,
            "BRIDGE_GATEWAY_URL": gateway.url,
            "BRIDGE_MATRIX_HOMESERVER": synapse.url,
            "BRIDGE_MATRIX_TOKEN_FILE": str(tmp_path / "token"),
        }
        bridge.configure(bridge.Settings(redis_url=redis_url))
        yield Place(bot, ann, room, Watcher(ann, room), env, gateway.url, tmp_path)
        process.reset()


@pytest.fixture
def show(place: Place) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `bridge matrix --room … --task job-1`."""
    with ExitStack() as stack:

        def start(*arguments: str, **env: str) -> subprocess.Popen[bytes]:
            room = ("--room", place.room, "--task", "job-1")
            return stack.enter_context(program("matrix", *room, *arguments, env={**place.env, **env}))

        yield start


@pytest.fixture
def listen(place: Place) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `bridge matrix --listen -- a command` and waits until it listens."""
    with ExitStack() as stack:

        def start(*arguments: str, **env: str) -> subprocess.Popen[bytes]:
            command = ["--", "python3", str(place.folder / "echo.py"), str(place.folder)]
            room = ("--listen", "--room", place.room)
            listening = stack.enter_context(
                program("matrix", *room, *arguments, *command, env={**place.env, **env})
            )
            assert first_line(listening) == f"bridge: listening as {place.bot.id}"
            return listening

        yield start


def test_a_task_is_shown(place: Place, show: Callable[..., subprocess.Popen[bytes]]) -> None:
    """From a worker's report to another user's screen; the command ends with the task."""
    with bridge.task("job-1") as task:
        showing = show()
        task.report_progress("Hello")
        place.watcher.wait_for("Hello")
        task.report_progress(", world")
    assert showing.wait(60) == 0
    place.watcher.wait_for("Hello, world")
    assert pipe(showing.stderr).read() == b""


def test_a_sink_that_was_killed(place: Place, show: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Another one, started meanwhile, takes over when the first one's lease is over, in the same message."""
    with bridge.task("job-1") as task:
        first = show(BRIDGE_LEASE_SECONDS=SHORT)
        task.report_progress("before")
        place.watcher.wait_for("before")
        second = show(BRIDGE_LEASE_SECONDS=SHORT)
        first.kill()
        task.report_progress(", after")
        place.watcher.wait_for("before, after")
    assert second.wait(60) == 0
    place.watcher.look()
    assert len(place.watcher.shown) == 1
    assert LIVE not in next(iter(place.watcher.shown.values()))


def test_a_sink_that_was_killed_before_it_knew_what_it_had_sent(
    place: Place, show: Callable[..., subprocess.Popen[bytes]], synapse: Synapse
) -> None:
    """The message is in the room, and its id was never heard of: the next process repeats the request, and
    goes on in that message.
    """
    relay = Proxy(("127.0.0.1", synapse.port))
    try:
        with bridge.task("job-1") as task:
            first = show("--thinking", "", BRIDGE_MATRIX_HOMESERVER=relay.http, BRIDGE_LEASE_SECONDS=SHORT)
            task.report_progress(message="begun")
            place.watcher.until(lambda seen: seen.typing)
            relay.silence(links=False, way="down")
            task.report_progress("before")
            place.watcher.wait_for("before")
            first.kill()
            task.report_progress(", after")
            second = show(BRIDGE_LEASE_SECONDS=SHORT)
        assert second.wait(60) == 0
        place.watcher.wait_for("before, after")
        assert len(place.watcher.shown) == 1
    finally:
        relay.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_showing_in_order(
    place: Place, show: Callable[..., subprocess.Popen[bytes]], number: signal.Signals
) -> None:
    """The bot stops typing, the task goes on, and another sink can go on at once."""
    with bridge.task("job-1") as task:
        showing = show()
        task.report_progress("a")
        place.watcher.wait_for("a")
        showing.send_signal(number)
        assert showing.wait(60) == 128 + number
        place.watcher.until(lambda seen: seen.typing[-1:] == [[]])
        assert task.report_progress("b")
        again = show()
    assert again.wait(60) == 0
    place.watcher.wait_for("ab")


def test_what_can_not_be_shown(place: Place, show: Callable[..., subprocess.Popen[bytes]]) -> None:
    """One line that says why, and an exit code of its kind; never the token."""
    wrong = show(BRIDGE_MATRIX_TOKEN_FILE="", BRIDGE_MATRIX_TOKEN="not-a-token")
    assert wrong.wait(60) == 1
    said = pipe(wrong.stderr).read()
    assert b"log in anew" in said
    assert b"not-a-token" not in said
    with bridge.task("job-1"):
        pass
    away = show(BRIDGE_GATEWAY_URL="http://127.0.0.1:1")
    assert away.wait(60) == 4
    assert b"no gateway at" in pipe(away.stderr).read()


def test_a_question_is_answered_in_a_thread(
    place: Place, listen: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """The command reads it, its output is the answer; one in a thread is answered there."""
    listen()
    question = place.ann.say(place.room, "$(ls) `ls` ; how?")
    place.watcher.wait_for("$(ls) `ls` ; how?: one, two")
    root = {"m.relates_to": {"rel_type": "m.thread", "event_id": question}}
    further = place.ann.say(place.room, "and then?", **root)
    place.watcher.wait_for("$(ls) `ls` ; how?: one, two", "and then?: one, two")
    one, two = (event for event in place.watcher.messages if event["event_id"] in place.watcher.shown)
    for event, asked in (one, question), (two, further):
        relation = event["content"]["m.relates_to"]
        assert (relation["rel_type"], relation["event_id"]) == ("m.thread", question)
        assert relation["m.in_reply_to"] == {"event_id": asked}
        assert event["content"]["m.mentions"] == {"user_ids": [place.ann.id]}
    assert place.watcher.highlights == 2


def test_only_mentions(place: Place, listen: Callable[..., subprocess.Popen[bytes]]) -> None:
    """With --mentions-only the rest of the room's talk is left alone."""
    listen("--mentions-only")
    place.ann.say(place.room, "not for you")
    place.ann.say(place.room, "for you", **{"m.mentions": {"user_ids": [place.bot.id]}})
    place.watcher.wait_for("for you: one, two")
    assert place.runs == ["for you"]


def test_of_two_bots_one_answers(place: Place, listen: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Each question is answered once, in one message; what was asked while nobody listened, too."""
    first, second = listen(), listen()
    for number in range(4):
        place.ann.say(place.room, f"question {number}")
    wanted = {f"question {number}: one, two" for number in range(4)}
    place.watcher.until(lambda seen: set(seen.bodies) == wanted)
    for bot in first, second:
        bot.send_signal(signal.SIGTERM)
    assert [first.wait(60), second.wait(60)] == [0, 0]
    place.ann.say(place.room, "is anybody there?")
    listen()
    wanted.add("is anybody there?: one, two")
    place.watcher.until(lambda seen: set(seen.bodies) == wanted)
    assert len(place.watcher.shown) == 5
    assert sorted(place.runs) == sorted(body.partition(":")[0] for body in wanted)


def test_a_bot_that_dies_is_followed_by_another(
    place: Place, listen: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """The one that answered is killed in the middle: the other runs the command again, as the next attempt,
    and its answer comes into the message that is there.
    """
    place.hold()
    bots = [listen(BRIDGE_LEASE_SECONDS=SHORT)]
    question = place.ann.say(place.room, "who?")
    place.watcher.wait_for("who?: one")
    bots += [listen(BRIDGE_LEASE_SECONDS=SHORT)]
    bots[0].kill()
    place.release()
    place.watcher.wait_for("who?: one, two")
    assert len(place.watcher.shown) == 1
    assert place.runs == ["who?"] * 2
    with Client(place.gateway) as client:
        assert client.status(place.asked(question))["attempt"] == 2


def test_a_cancelled_answer_says_so(place: Place, listen: Callable[..., subprocess.Popen[bytes]]) -> None:
    """A cancel through the gateway reaches the command, although that is silent."""
    place.hold()
    listen()
    question = place.ann.say(place.room, "how long?")
    place.watcher.wait_for("how long?: one")
    with Client(place.gateway) as client:
        client.cancel(place.asked(question))
    place.watcher.wait_for("how long?: one\n\n⏹️ Stopped.")


def test_a_bot_that_leaves_says_so_in_its_answers(
    place: Place, listen: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Answers that don't end in time are stopped, with what there is."""
    place.hold()
    bot = listen("--leave-seconds", "0")
    place.ann.say(place.room, "how long?")
    place.watcher.wait_for("how long?: one")
    bot.send_signal(signal.SIGTERM)
    place.watcher.wait_for("how long?: one\n\n⚠️ Failed: The bot was stopped before the answer was complete.")
    assert bot.wait(60) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--task", "job-1"],
        ["--task", "job-1", "--room", "!a:b", "--room", "!c:d"],
        ["--task", "job-1", "--room", "!a:b", "--", "ls"],
        ["--listen"],
        ["--listen", "--task", "job-1", "--", "ls"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    """What doesn't fit together is said, before anything is asked."""
    result = CliRunner().invoke(main, ["matrix", *arguments])
    assert result.exit_code == 2
    assert "--listen" in result.stderr


def test_settings_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable to set is named."""
    monkeypatch.delenv("BRIDGE_MATRIX_TOKEN", raising=False)
    arguments = ["matrix", "--task", "job-1", "--room", "!a:b", "--matrix-homeserver", "http://127.0.0.1:1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "BRIDGE_MATRIX_TOKEN" in result.stderr


def test_a_function_can_answer(place: Place) -> None:
    """Any source that Python can make, such as a relay's, of a module beside which the bot was started."""
    (place.folder / "mybot.py").write_text(
        "from bridge.events import Chunk, End\n"
        "async def answer(asked):\n"
        "    yield Chunk(asked.text.upper())\n"
        "    yield End('succeeded', usage={'output_tokens': 2})\n"
    )
    arguments = ("--listen", "--source", "mybot:answer", "--usage", "--room", place.room)
    with program("matrix", *arguments, env=place.env, cwd=place.folder) as listening:
        first_line(listening)
        place.ann.say(place.room, "loud")
        place.watcher.wait_for("LOUD\n\n2 output tokens")


def test_a_source_that_is_not_there() -> None:
    """It is said before anybody listens."""
    for name in ("nowhere:answer", "json:nothing", "json", ":x"):
        result = CliRunner().invoke(main, ["matrix", "--listen", "--source", name])
        assert result.exit_code == 2
        assert "--source must name a function" in result.stderr
