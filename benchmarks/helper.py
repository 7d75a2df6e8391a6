"""Processes that are told what to do by lines of JSON on their standard input, and answer by such lines.

A command is an object with its name under `do`, the rest are its arguments. There is one answer to each, in
order; one with the member `error` is raised as `HelperFailed` by who asked.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.processes import python, running


class HelperFailed(Exception):
    """A helper said what went wrong, ended, or didn't answer in time."""


class Helper:
    """The asking side. What is told goes on while others are told; `hear` waits for the answer."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._name = name
        self._process = process

    def tell(self, command: str, **arguments: Any) -> None:
        """Let it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, patience: float = 60.0) -> dict[str, Any]:
        """The next answer. Raises `HelperFailed`."""
        # One answer per command, so nothing is left in the buffer that `select` doesn't see.
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], patience)[0]:
            raise HelperFailed(f"the {self._name} didn't answer within {patience:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise HelperFailed(f"the {self._name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise HelperFailed(f"the {self._name}: {answer['error']}")
        return answer

    def ask(self, command: str, patience: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """Tell, and wait for the answer."""
        self.tell(command, **arguments)
        return self.hear(patience)


@contextmanager
def helping(name: str, cores: frozenset[int]) -> Iterator[Helper]:
    """A helper for the length of the block: the module ``benchmarks.name``."""
    with running(python(f"benchmarks.{name}"), cores) as process:
        yield Helper(name, process)


def obey(commands: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """The helping side: do what is said until the input ends."""
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = commands[arguments.pop("do")](**arguments)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
