"""A command as a source: real processes, their output, their ends, and what is left of them (nothing)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import CommandError
from bridge.events import MAX_CHUNK_BYTES, Chunk, End, Event
from bridge.sources.command import Command
from tests.processes import running
from tests.waiting import eventually_async

SOON = 0.05
"""Seconds of grace for commands that would use up any."""


def shell(script: str, **options: Any) -> Command:
    """A command that is a shell script."""
    return Command(["sh", "-c", script], **options)


def python(code: str, **options: Any) -> Command:
    """A command that is a Python script."""
    return Command([sys.executable, "-c", code], **options)


class Output:
    """What a running command has said so far."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self.text = ""

    async def until(self, part: str) -> str:
        """Read on until `part` was said."""
        while part not in self.text:
            event = await anext(self._events)
            assert isinstance(event, Chunk), f"ended ({event}) after {self.text!r}"
            self.text += event.text
        return self.text

    async def rest(self) -> End:
        """Read to the end, which comes once and last."""
        async for event in self._events:
            if isinstance(event, End):
                assert [late async for late in self._events] == []
                return event
            assert isinstance(event, Chunk)
            self.text += event.text
        raise AssertionError("there was no end")


@contextmanager
def nothing_left() -> Iterator[None]:
    """Inside an event loop: afterwards there is no file descriptor more than before, and no timer."""
    loop = asyncio.get_running_loop()
    before = set(Path("/dev/fd").iterdir())
    yield
    # Not equal: the garbage of an earlier test may have been collected meanwhile.
    assert set(Path("/dev/fd").iterdir()) <= before
    assert [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()] == []


async def test_output_and_success() -> None:
    """A command that exits with 0 has succeeded, and its output is the text."""
    output = Output(shell("echo one; echo two").events())
    end = await output.rest()
    assert output.text == "one\ntwo\n"
    assert end == End("succeeded", result={"exit_code": 0})


async def test_both_outputs_are_one_text_in_order() -> None:
    """Standard output and standard error are one text, in the order in which they were written."""
    output = Output(shell("echo 1; echo 2 >&2; echo 3; echo 4 >&2").events())
    await output.rest()
    assert output.text == "1\n2\n3\n4\n"


async def test_exit_status() -> None:
    """Any other exit status is a failure that names it, with what was written so far."""
    output = Output(shell("echo so far; exit 7").events())
    end = await output.rest()
    assert output.text == "so far\n"
    said = {"code": "exit_status", "message": "the command ended with exit status 7"}
    assert end == End("failed", error=said, result={"exit_code": 7})


async def test_ended_by_a_signal() -> None:
    """A command that a signal ended has failed, with the exit code that a shell would give."""
    end = await Output(shell("kill -9 $$").events()).rest()
    said = {"code": "signal", "message": "the command was ended by signal 9 (SIGKILL)"}
    assert end == End("failed", error=said, result={"exit_code": 137})


async def test_output_comes_before_a_line_is_complete(tmp_path: Path) -> None:
    """What is written is passed on at once, without a line end, while the command runs on."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    output = Output(shell(f"printf 'a prompt> '; read line < {gate}; printf done").events())
    assert await output.until("a prompt> ") == "a prompt> "
    gate.write_text("\n")
    assert (await output.rest()).state == "succeeded"
    assert output.text == "a prompt> done"


async def test_a_python_command_does_not_hold_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python child that prints without flushing is heard at once."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    output = Output(python(f"print('now'); open({str(gate)!r}).read(); print('then')").events())
    assert await output.until("now\n") == "now\n"
    gate.write_text("")
    await output.rest()
    assert output.text == "now\nthen\n"


async def test_a_character_cut_in_two_is_whole(tmp_path: Path) -> None:
    """A character whose bytes arrive apart is one character, and none of it is shown before."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = rf"printf 'a\342\202'; read line < {gate}; printf '\254b'"
    events = shell(script).events()
    assert await anext(events) == Chunk("a")
    gate.write_text("\n")
    output = Output(events)
    await output.rest()
    assert output.text == "€b"


async def test_bytes_that_are_no_text() -> None:
    """What isn't UTF-8 becomes U+FFFD, also at the very end, and no chunk is too large for the log."""
    code = "import os; data = b'\\xff' * 200_000 + b'\\xe2\\x82'\nwhile data: data = data[os.write(1, data):]"
    events = [event async for event in python(code).events()]
    texts = [event.text for event in events if isinstance(event, Chunk)]
    assert "".join(texts) == "\ufffd" * 200_001
    assert max(len(text.encode()) for text in texts) <= MAX_CHUNK_BYTES


async def test_tee_gets_every_byte() -> None:
    """`tee` is given the output as it was, also where it is no text."""
    said = bytearray()

    async def tee(data: bytes) -> None:
        said.extend(data)

    output = Output(shell(r"printf 'a\377\303'; printf '\244' >&2", tee=tee).events())
    await output.rest()
    assert output.text == "a\ufffdä"
    assert bytes(said) == b"a\xff\xc3\xa4"


async def test_much_output_is_complete() -> None:
    """All that was written before the exit arrives, however far the reader is behind."""
    pid = 0

    async def tee(data: bytes) -> None:
        nonlocal pid
        pid = pid or int(data.split()[0])
        await eventually_async(lambda: not running(pid))

    # It fits into the pipe, so the command is gone long before most of it is read.
    output = Output(shell("echo $$; yes 1234567 | head -c 60000", tee=tee, linger_seconds=0).events())
    assert (await output.rest()).state == "succeeded"
    assert output.text == f"{pid}\n" + "1234567\n" * 7500


async def test_environment() -> None:
    """The command's environment is ours, or the one given."""
    output = Output(shell("echo $NAME", environ={"PATH": os.environ["PATH"], "NAME": "value"}).events())
    await output.rest()
    assert output.text == "value\n"


async def test_a_grandchild_that_keeps_the_pipe() -> None:
    """When the command has exited, a grandchild that holds its output open delays the end only shortly."""
    output = Output(shell("sleep 1000 & echo $!", linger_seconds=SOON).events())
    end = await output.rest()
    assert end.state == "succeeded"
    grandchild = int(output.text)
    assert running(grandchild)
    os.kill(grandchild, signal.SIGKILL)


async def test_a_grandchild_that_never_stops_writing() -> None:
    """Nor can one that writes on and on keep the task from ending."""
    output = Output(shell("yes & echo pid $!", linger_seconds=SOON).events())
    assert (await output.rest()).state == "succeeded"
    grandchild = int(output.text.partition("pid ")[2].partition("\n")[0])
    # The pipe has no reader any more, so it ends as it would in a shell.
    await eventually_async(lambda: not running(grandchild))


async def test_a_command_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    """The end of the output is not the end: the exit status is."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    ending = asyncio.create_task(Output(shell(f"exec >&- 2>&-; read x < {gate}; exit 3").events()).rest())
    # Opening a FIFO for writing waits for its reader.
    await asyncio.to_thread(gate.write_text, "\n")
    assert (await ending).result == {"exit_code": 3}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stop_reaches_the_whole_group(number: signal.Signals) -> None:
    """Stopping signals the command and what it has started; last words are kept, the end is `cancelled`."""
    child = "sh -c 'echo pid $$; exec sleep 1000'"
    script = f"trap 'echo last words; exit 5' {number.name[3:]}; {child} & wait"
    command = shell(script)
    with nothing_left():
        output = Output(command.events())
        text = await output.until("\n")
        grandchild = int(text.split()[1])
        command.stop(number)
        end = await output.rest()
    assert output.text.endswith("last words\n")
    assert end == End("cancelled", result={"exit_code": 5})
    await eventually_async(lambda: not running(grandchild))


async def test_stop_kills_what_will_not_stop() -> None:
    """After the grace time everything in the group is killed."""
    code = (
        "import signal, os\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(os.getpid(), child)\n"
        "signal.pause()"
    )
    command = python(code, grace_seconds=SOON)
    output = Output(command.events())
    pids = [int(pid) for pid in (await output.until("\n")).split()]
    command.stop()
    end = await output.rest()
    assert end == End("cancelled", result={"exit_code": 137})
    await eventually_async(lambda: not any(running(pid) for pid in pids))


async def test_stop_twice_kills_at_once() -> None:
    """Asked again, there is no more grace."""
    command = shell("trap '' TERM; echo ready; sleep 1000", grace_seconds=1000)
    output = Output(command.events())
    await output.until("ready")
    command.stop()
    command.stop()
    assert (await output.rest()).result == {"exit_code": 137}


async def test_a_survivor_of_a_stopped_command_is_killed() -> None:
    """What ignores the signal and has let go of the output doesn't outlive the task."""
    script = "(trap '' TERM; exec sleep 1000 >/dev/null 2>&1) & echo $!; wait"
    command = shell(script)
    output = Output(command.events())
    survivor = int(await output.until("\n"))
    command.stop()
    assert (await output.rest()).state == "cancelled"
    await eventually_async(lambda: not running(survivor))


async def test_an_escaped_holder_of_the_pipe_does_not_hang_a_stop() -> None:
    """A process that left the group and keeps the pipe is not waited for after the kill."""
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); print(os.getpid()); signal.pause()\n"
        "signal.pause()"
    )
    command = python(code, grace_seconds=SOON, linger_seconds=SOON)
    output = Output(command.events())
    escaped = int(await output.until("\n"))
    command.stop()
    assert (await output.rest()).state == "cancelled"
    assert running(escaped)
    os.kill(escaped, signal.SIGKILL)


async def test_stop_before_and_after_is_nothing() -> None:
    """A command that hasn't started or has ended can't be stopped, and keeps its own end."""
    command = shell("exit 4")
    command.stop()
    end = await Output(command.events()).rest()
    command.stop()
    assert end.state == "failed"


async def test_closing_the_source_ends_the_command() -> None:
    """Who stops reading early, having closed the generator, leaves no process behind."""
    with nothing_left():
        async with aclosing(shell("echo $$; sleep 1000").events()) as events:
            pid = int(await Output(events).until("\n"))
        assert not running(pid)


async def test_cancelling_the_reader_ends_the_command() -> None:
    """Cancelling the task that reads ends the command with SIGTERM and its grace."""
    with nothing_left():
        output = Output(shell("trap 'exit 0' TERM; echo $$; sleep 1000 & wait").events())
        pid = int(await output.until("\n"))
        reading = asyncio.create_task(output.rest())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not running(pid)


async def test_nothing_is_left_of_many_runs() -> None:
    """Twenty commands leave neither file descriptors nor zombies."""
    with nothing_left():
        ends = await asyncio.gather(*(Output(shell("echo x").events()).rest() for _ in range(20)))
    assert {end.state for end in ends} == {"succeeded"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command-anywhere"], "command not found: no-such-command-anywhere"),
        (["/etc/passwd"], "can't run /etc/passwd: Permission denied"),
        (["/"], "can't run /: Permission denied"),
        (["a\0b"], "can't run a\0b: embedded null byte"),
    ],
    ids=["missing", "not-executable", "directory", "nul"],
)
async def test_a_command_that_can_not_start(arguments: list[str], said: str) -> None:
    """What can't be started is a `CommandError` that says why, and leaves nothing behind."""
    with nothing_left(), pytest.raises(CommandError) as caught:
        await anext(Command(arguments).events())
    assert str(caught.value) == said


async def test_what_a_command_reads() -> None:
    """It can be given, of any size, and no shell sees it; a command that reads nothing isn't waited for."""
    question = "$(ls) é\n" * 50_000
    source = Command(["cat"], stdin=question.encode())
    text = "".join([event.text async for event in source.events() if isinstance(event, Chunk)])
    assert text == question
    ignoring = Command(["true"], stdin=question.encode())
    assert [event async for event in ignoring.events()] == [End("succeeded", result={"exit_code": 0})]
