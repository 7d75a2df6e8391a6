"""A command as a source: its output as chunks, its exit status as the end.

Rules
-----
1. **As it arrives.** Standard output and standard error share one pipe, so that their order is kept; what is
   read is passed on at once. Python children are told not to hold their output back (`PYTHONUNBUFFERED`).
2. **All of it.** Everything that was written before the command exited is read. A grandchild may hold the
   pipe open after that: it gets `LINGER_SECONDS`, then the task ends without it. It is left running, as a
   shell would leave it.
3. **Stopping is for the whole group.** The command runs in a session of its own. `stop` signals all of its
   process group; after `grace_seconds`, or when asked again, SIGKILL follows. What is left of the group when
   a stopped command's output ends is killed, too.
4. **Only our own group.** The command is reaped last: until then no other process can be given its number.

A session and not just a process group: a background group that reads the terminal would be stopped.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import tempfile
import termios
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Final

from bridge.errors import CommandError
from bridge.events import Chunk, End, Event
from bridge.sources.pipe import READ_BYTES, utf8_decoder

GRACE_SECONDS: Final = 5.0
"""From the first signal to SIGKILL."""

LINGER_SECONDS: Final = 0.5
"""How long the output is read after the command itself has exited, if somebody still holds the pipe."""


class Command:
    """One run of one command. `events` runs it, `stop` ends it early. For use in one event loop."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        tee: Callable[[bytes], Awaitable[None]] | None = None,
        grace_seconds: float = GRACE_SECONDS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        """`stdin` is what the command reads; None: what this process would read. `tee` is given all output,
        byte for byte, and slows the command down while it waits.
        """
        self._arguments = list(arguments)
        self._environ = {**(os.environ if environ is None else environ), "PYTHONUNBUFFERED": "1"}
        self._stdin = stdin
        self._tee = tee
        self._grace = grace_seconds
        self._linger = linger_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._exited = asyncio.Event()
        self._wake = asyncio.Event()
        self._owed = 0
        """Bytes that stood in the pipe when the command exited, and are still to be read."""
        self._given_up = False
        """Whoever still holds the pipe is not waited for any longer."""
        self._stopped = False
        self._number = 0
        """The signal that `stop` sent first."""

    async def events(self) -> AsyncGenerator[Event, None]:
        """Start the command; yield its output and, last, an `End`. Can be called once.

        The end is `succeeded` for exit status 0; else `failed` with the code `exit_status` or `signal`; after
        a `stop` it is `cancelled`. Its result is ``{"exit_code": n}``, where a shell's 128 + n stands for
        signal n. Raises `CommandError` when the command can't be started.
        """
        self._process = process = self._start()
        decoder = utf8_decoder()
        try:
            while data := await self._read():
                if text := decoder.decode(data):
                    yield Chunk(text)
                if self._tee is not None:
                    await self._tee(data)
            if text := decoder.decode(b"", final=True):
                yield Chunk(text)
            await self._exited.wait()
        finally:
            try:
                if not self._exited.is_set():
                    self.stop()
                    await self._exited.wait()
            finally:
                status = self._clean_up(process)
        yield _end(status, self._stopped)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the command's process group, SIGKILL after the grace time or when asked again.

        Does nothing before the command was started and after it has ended.
        """
        if self._process is None or self._process.returncode is not None:
            return
        if self._stopped:
            self._kill()
        elif not self._exited.is_set():
            self._stopped, self._number = True, number
            self._signal(number)
            self._later(self._grace, self._kill)

    def _start(self) -> subprocess.Popen[bytes]:
        name = self._arguments[0]
        try:
            # A file, and no pipe: nobody has to stand by and fill it while the command runs.
            with tempfile.TemporaryFile() if self._stdin is not None else nullcontext() as stdin:
                if stdin is not None and self._stdin is not None:
                    stdin.write(self._stdin)
                    stdin.seek(0)
                process = subprocess.Popen(
                    self._arguments,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    bufsize=0,
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            raise CommandError(f"command not found: {name}") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CommandError(f"can't run {name}: {reason}") from error
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        loop = asyncio.get_running_loop()
        # A thread that waits costs nothing, and works on every system. It must not keep us from exiting.
        threading.Thread(target=self._watch, args=(process, loop), daemon=True).start()
        return process

    def _watch(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            # macOS before Python 3.13 can't look without reaping (rule 4).
            process.wait()
        try:
            loop.call_soon_threadsafe(self._on_exit)
        except RuntimeError:
            pass  # the loop was closed: nobody is interested any more

    def _on_exit(self) -> None:
        self._exited.set()
        self._wake.set()
        if not self._stopped:
            self._owed = self._waiting_bytes()
            self._later(self._linger, self._give_up)
        elif self._number != signal.SIGTERM:
            # A shell starts its background jobs so that they ignore SIGINT.
            self._signal(signal.SIGTERM)

    async def _read(self) -> bytes:
        """The next output, or nothing when nobody can write any more or it is too late."""
        # A command that never pauses must not keep others from their turn.
        await asyncio.sleep(0)
        descriptor = self._descriptor
        while self._owed > 0 or not self._given_up:
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                self._owed = 0
                await self._something(descriptor)
            else:
                self._owed -= len(data)
                return data
        return b""

    async def _something(self, descriptor: int) -> None:
        """Wait until there is output to read, or time has come to give it up."""
        if self._given_up:
            return
        loop = asyncio.get_running_loop()
        self._wake.clear()
        loop.add_reader(descriptor, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            loop.remove_reader(descriptor)

    @property
    def _descriptor(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _waiting_bytes(self) -> int:
        answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(struct.calcsize("i")))
        return int(struct.unpack("i", answer)[0])

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        # Who left the group may still hold the pipe.
        self._later(self._linger, self._give_up)

    def _give_up(self) -> None:
        self._given_up = True
        self._wake.set()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            # Nobody is left; macOS says the latter of a group that holds only the exited command.
            pass

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _clean_up(self, process: subprocess.Popen[bytes]) -> int:
        """Leave nothing behind: timers, the pipe, what is left of a stopped group, the zombie."""
        for timer in self._timers:
            timer.cancel()
        if self._stopped:
            self._signal(signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        # Exited, or killed this moment: either way this is no wait worth the name.
        return process.wait()


def _end(status: int, stopped: bool) -> End:
    """The end that an exit status means; negative ones are signals, as `subprocess` has them."""
    result = {"exit_code": status if status >= 0 else 128 - status}
    if stopped:
        return End("cancelled", result=result)
    if status == 0:
        return End("succeeded", result=result)
    if status > 0:
        said = {"code": "exit_status", "message": f"the command ended with exit status {status}"}
    else:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "a real-time signal"
        said = {"code": "signal", "message": f"the command was ended by signal {-status} ({name})"}
    return End("failed", error=said, result=result)
