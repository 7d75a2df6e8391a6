"""Keeps one server process alive for exactly as long as the process that asked for it.

This file is run as a script by `embedded.py`, never imported, and uses the standard library only:

    python -I -S supervisor.py PARENT_PID SCRATCH_DIRECTORY COMMAND…

What it promises:

- The server ends when the parent ends, however that happens: standard input is a pipe whose other
  end only the parent holds, and the system closes it even after SIGKILL. A child that the parent
  forked may hold a copy of that end, so the parent's pid is compared once a second, too.
- The server ends when this process gets SIGTERM, and gets `GRACE_SECONDS` to do so by itself.
- This process ends when the server does.

Why a process of its own: Linux could do it with `PR_SET_PDEATHSIG`, but that signal comes when the
*thread* that forked ends, it needs a `preexec_fn`, which is not safe in a program with threads,
and macOS has nothing like it.

The server's output goes to our standard error; our standard output says the server's pid, once.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from types import FrameType

GRACE_SECONDS = 5.0


class _Stop:
    """Whether SIGTERM came, and a file descriptor that becomes readable with any signal."""

    def __init__(self) -> None:
        self.requested = False
        self.wakeup, writer = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(writer, False)
        # Without this a signal between the check of a flag and the wait below would go unnoticed.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._request)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True

    def drain(self) -> None:
        """Forget the signals seen so far."""
        try:
            os.read(self.wakeup, 4096)
        except BlockingIOError:
            pass


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, then make it."""
    server.terminate()
    try:
        server.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main(parent: int, scratch: str, command: list[str]) -> int:
    """Run `command` until it ends or the process `parent` does; return the exit status."""
    stop = _Stop()
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.close()
    stdin = sys.stdin.fileno()
    while server.poll() is None:
        readable, _, _ = select.select([stdin, stop.wakeup], [], [], 1.0)
        stop.drain()
        orphaned = stdin in readable or os.getppid() != parent
        if orphaned or stop.requested:
            _end(server)
            if orphaned:
                # Nobody else is left to clean up.
                shutil.rmtree(scratch, ignore_errors=True)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


if __name__ == "__main__":
    # `os._exit` because standard output is closed already, which the usual exit would stumble over.
    os._exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
