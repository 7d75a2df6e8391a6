"""`bridge tail`, `status` and `cancel` with a scripted gateway: what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result

from bridge import sse
from bridge.cli import main
from bridge.events import Chunk, Data, End, Progress, Reset, State
from tests.client.scripted import Answer, Gateway, gateway, plain, wire
from tests.servers import free_port

SOON = sse.retry(0)
VIEW = {
    "id": "job",
    "state": "running",
    "attempt": 2,
    "position": "7-3",
    "text": "Hällo",
    "fields": {"reasoning": "hm"},
    "progress": 0.4,
    "message": "reading",
    "data": {"sources": []},
    "cancel_requested": True,
    "error": None,
}


def end(state: str = "succeeded", code: str = "") -> bytes:
    """The `end` of a scripted task."""
    return wire(
        "7-9", End(state, {"code": code, "message": "it broke\x1b[2J\n badly"} if code else None, length={})
    )


def call(server: Gateway | str, *arguments: str) -> Result:
    """A command, run in this process."""
    url = server if isinstance(server, str) else server.url
    return CliRunner().invoke(main, [*arguments, "--gateway", url], prog_name="bridge")


@contextmanager
def program(server: Gateway, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command, run as a process of its own, whose gateway comes from the environment."""
    environment = {**os.environ, "BRIDGE_GATEWAY_URL": server.url}
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    ("state", "code"),
    [("succeeded", 0), ("failed", 1), ("cancelled", 3)],
    ids=["succeeded", "failed", "cancelled"],
)
def test_tail_prints_the_text_and_the_exit_code_is_the_end(state: str, code: int) -> None:
    """Stdout gets the text to the byte and nothing else; how the task ended is the exit code."""
    body = wire("7-1", State("running", 1)) + wire("7-2", Progress(0.5, "half")) + wire("7-3", Chunk("Hä"))
    with gateway(
        Answer([body, wire("7-4", Chunk("no", "reasoning")), wire("7-5", Chunk("llo")), end(state)])
    ) as server:
        result = call(server, "tail", "job")
    assert result.stdout == "Hällo"
    assert result.stderr == ""
    assert result.exit_code == code


def test_tail_says_why_a_task_failed() -> None:
    """The error of a failed task is one clean line on stderr, and the partial text stays printed."""
    with gateway(Answer([wire("7-1", Chunk("part")), end("failed", "worker_lost")])) as server:
        result = call(server, "tail", "job")
    assert (result.stdout, result.exit_code) == ("part", 1)
    assert result.stderr == "bridge: the task failed: worker_lost: it broke [2J badly\n"


def test_tail_of_another_field() -> None:
    """`--field` chooses the text."""
    body = wire("7-1", Chunk("no")) + wire("7-2", Chunk("hm", "reasoning"))
    with gateway(Answer([body, end()])) as server:
        assert call(server, "tail", "job", "--field", "reasoning").stdout == "hm"


def test_tail_survives_drops() -> None:
    """A dropped stream is taken up behind what was printed, and nobody is told in a log file."""
    first = Answer([SOON, wire("7-1", Chunk("Hel"))])
    with gateway(first, Answer([wire("7-2", Chunk("lo")), end()])) as server:
        result = call(server, "tail", "job", "--after", "7-0")
    assert (result.stdout, result.stderr, result.exit_code) == ("Hello", "", 0)
    assert [request.headers["last-event-id"] for request in server.requests] == ["7-0", "7-1"]


def test_tail_parts_the_new_text_from_the_old() -> None:
    """After a reset a separator line stands before the new text, and stderr says why."""
    body = wire("7-1", Chunk("old")) + wire("7-2", Reset("retry", 2)) + wire("7-3", Chunk("new"))
    with gateway(Answer([body, end()])) as server:
        result = call(server, "tail", "job")
    assert result.stdout == "old\n--- reset: retry ---\nnew"
    assert result.stderr == "[the text starts again (retry)]\n"


def test_tail_needs_no_separator_before_the_first_text() -> None:
    """A reset with nothing printed yet is no news."""
    body = wire("8-0", Reset("other_log", 1)) + wire("8-1", Chunk("text"))
    with gateway(Answer([body, wire("8-2", End("succeeded"))])) as server:
        result = call(server, "tail", "job", "--after", "7-3")
    assert (result.stdout, result.stderr) == ("text", "")


def test_tail_json() -> None:
    """`--json` prints every event with its position, one object per line, and keeps the exit code."""
    body = wire("7-1", State("running", 1)) + wire("7-2", Chunk("a\nä")) + wire("7-3", Data("n", {"x": [1]}))
    with gateway(Answer([body, end("failed", "boom")])) as server:
        result = call(server, "tail", "job", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["position"], line["kind"]) for line in lines] == [
        ("7-1", "state"),
        ("7-2", "chunk"),
        ("7-3", "data"),
        ("7-9", "end"),
    ]
    assert lines[1]["data"] == {"text": "a\nä"}
    assert lines[3]["data"]["error"]["code"] == "boom"
    assert (result.stderr, result.exit_code) == ("", 1)


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_tail_after_the_end_asks_for_the_state(state: str, code: int) -> None:
    """When there is nothing after the position, the exit code still tells how the task ended."""
    with gateway(Answer(status=204), plain(json.dumps({"state": state}))) as server:
        result = call(server, "tail", "job", "--after", "7-9")
    assert (result.stdout, result.exit_code) == ("", code)


def test_tail_of_a_task_that_never_came() -> None:
    """The gateway's `unknown_task` end is exit code 4, not a failed task."""
    never = wire("0-1", End("failed", {"code": "unknown_task", "message": "no such task"}))
    with gateway(Answer([never])) as server:
        result = call(server, "tail", "job")
    assert result.exit_code == 4
    assert "nobody has created a task job" in result.stderr


@pytest.mark.parametrize("command", ["tail", "status", "cancel"])
def test_no_gateway(command: str) -> None:
    """Without a gateway: one line that says what to do, exit code 4, no traceback."""
    url = f"http://127.0.0.1:{free_port()}"
    result = call(url, command, "job")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr == f"bridge: no gateway at {url} (start one with: bridge serve)\n"


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_unknown_task(command: str) -> None:
    """An unknown task is one line with the gateway's words, exit code 4."""
    with gateway(plain('{"error":{"code":"unknown_task","message":"no task job"}}', 404)) as server:
        result = call(server, command, "job")
    assert (result.stderr, result.exit_code) == ("bridge: no task job (404)\n", 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tail", "a/b"], "a task id is"),
        (["status", "a b"], "a task id is"),
        (["cancel", "x" * 201], "a task id is"),
        (["tail", "job", "--after", "seven"], "a position looks like"),
        (["status"], "Missing argument 'ID'"),
        (["tail", "job", "--sideways"], "No such option"),
        (["sprinkle", "job"], "No such"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    """What is wrong with the command line is said without asking a gateway, with exit code 2."""
    with gateway() as server:
        result = call(server, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert server.requests == []


def test_a_wrong_address_is_wrong_usage() -> None:
    """An address without http:// is refused by its look."""
    result = call("localhost:8620", "status", "job")
    assert result.exit_code == 2
    assert result.stderr.startswith("bridge: a gateway's address begins with http://")


def test_status_for_people() -> None:
    """`status` prints the known facts and the texts."""
    with gateway(plain(json.dumps(VIEW))) as server:
        result = call(server, "status", "job")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "state     running" in lines
    assert "progress  40%" in lines
    assert "data      sources" in lines
    assert lines[lines.index("text:") + 1] == "Hällo"
    assert lines[lines.index("reasoning:") + 1] == "hm"
    assert not any(line.startswith("error") for line in lines)


def test_status_shows_what_a_task_ended_with() -> None:
    """A result is shown as its JSON, also one that is false or 0, and what the task used."""
    ended = {**VIEW, "state": "succeeded", "result": 0, "usage": {"output_tokens": 7}}
    with gateway(plain(json.dumps(ended))) as server:
        lines = call(server, "status", "job").stdout.splitlines()
    assert "result    0" in lines
    assert 'usage     {"output_tokens":7}' in lines


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_json_is_the_answer_itself(command: str) -> None:
    """`--json` prints the gateway's object on one line."""
    with gateway(plain(json.dumps(VIEW))) as server:
        result = call(server, command, "job", "--json")
    assert json.loads(result.stdout) == VIEW
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("view", "said"),
    [(VIEW, "job is asked to stop\n"), ({"state": "failed"}, "job has ended: failed\n")],
    ids=["running", "ended"],
)
def test_cancel_says_what_happened(view: dict[str, object], said: str) -> None:
    """`cancel` succeeds whether the task still runs or has ended, and says which."""
    with gateway(plain(json.dumps(view))) as server:
        result = call(server, "cancel", "job")
    assert (result.stdout, result.exit_code) == (said, 0)
    assert server.requests[0].method == "POST"


@pytest.mark.parametrize("place", ["--ticket", "BRIDGE_TICKET", "BRIDGE_TICKET_FILE"])
def test_a_ticket_lets_in(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, from a file that it names, or from the command line, to all three commands."""
    (tmp_path / "ticket").write_text("s3cret\n")
    flags = ["--ticket", "s3cret"] if place == "--ticket" else []
    if not flags:
        monkeypatch.setenv(place, "s3cret" if place == "BRIDGE_TICKET" else str(tmp_path / "ticket"))
    with gateway(Answer([end()]), plain(json.dumps(VIEW)), plain(json.dumps(VIEW))) as server:
        results = [call(server, command, "job", *flags) for command in ("tail", "status", "cancel")]
    assert [result.exit_code for result in results] == [0, 0, 0]
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer s3cret"] * 3
    assert "s3cret" not in "".join(result.output for result in results)


def test_what_is_no_ticket_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where it stands."""
    monkeypatch.setenv("BRIDGE_TICKET", "s3cret s3cret")
    for arguments, said in ([], "BRIDGE_TICKET must be"), (["--ticket", "s3cret\n"], "--ticket must be"):
        result = call("http://127.0.0.1:1", "status", "job", *arguments)
        assert (result.exit_code, said in result.stderr) == (2, True)
        assert "s3cret" not in result.output


def test_text_comes_out_of_the_process_as_it_grows() -> None:
    """`python -m bridge tail` writes each piece at once, without waiting for a line or the end."""
    more = threading.Event()
    answer = Answer([wire("7-1", Chunk("Hel")), more, wire("7-2", Chunk("lo")), end()])
    with gateway(answer) as server, program(server, "tail", "job") as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"Hel"
        more.set()
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, stderr, process.returncode) == (b"lo", b"", 0)


def test_a_terminal_gets_notes_on_lines_of_their_own() -> None:
    """At a terminal, state, progress and drops are told between the text, each on its own line and once."""
    running, half = wire("7-1", State("running", 1)), wire("7-2", Progress(0.5, "half"))
    first = Answer([SOON, running, half, wire("7-3", Chunk("Hel"))])
    second = Answer([wire("7-4", Chunk("lo")), wire("7-5", Progress(0.5, "half")), end()])
    ours, theirs = os.openpty()
    with gateway(first, second) as server:
        command = [sys.executable, "-m", "bridge", "tail", "job", "--gateway", server.url]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            with os.fdopen(ours, "rb", buffering=0) as terminal:
                shown = b"".join(iter(lambda: read_terminal(terminal), b"")).decode()
            assert process.wait(30) == 0
    assert shown.splitlines() == [
        f"[watching job at {server.url}]",
        "[running, attempt 1]",
        "[50% half]",
        "Hel",
        f"[{server.url} closed the stream before the task's end]",
        "lo",
        "[50% half]",
        "[succeeded]",
    ]


def read_terminal(terminal: IO[bytes]) -> bytes:
    """What a program wrote; empty when it has gone, which Linux says as an error."""
    try:
        return terminal.read(4096)
    except OSError:
        return b""


def test_ctrl_c_is_quiet() -> None:
    """Ctrl-C stops the watching with exit code 130 and no traceback."""
    with (
        gateway(Answer([wire("7-1", Chunk("Hel"))], then="hold")) as server,
        program(server, "tail", "job") as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read(3) == b"Hel"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (stderr, process.returncode) == (b"", 130)


def test_a_closed_pipe_is_quiet() -> None:
    """When the reader of the output leaves, `tail` stops without a word, with the code of SIGPIPE."""
    gone = threading.Event()
    answer = Answer([wire("7-1", Chunk("Hel")), gone, wire("7-2", Chunk("lo"))], then="hold")
    with gateway(answer) as server, program(server, "tail", "job") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == b"Hel"
        process.stdout.close()
        gone.set()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141
