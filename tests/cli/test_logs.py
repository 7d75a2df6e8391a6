"""What a service's log looks like, and that nobody can write lines into it."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime
from subprocess import run
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.checks import LOG_FORMATS
from bridge.cli.logs import _FORMATS, Console, Json
from tests.cli.test_serve import first_line, pipe
from tests.processes import program
from tests.servers import free_port

ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    """A record as a logger makes it."""
    made = logging.getLogger("bridge.test").makeRecord(
        "bridge.test", logging.INFO, "file", 1, message, args, None, extra=extra
    )
    made.created, made.msecs = 1_767_312_000.25, 250.0
    return made


def failed(message: str) -> logging.LogRecord:
    """A record with an exception that says this."""
    try:
        raise ValueError(message)
    except ValueError:
        made = record("it broke")
        made.exc_info = sys.exc_info()
        return made


def parsed(text: str) -> dict[str, Any]:
    """The object of one line, all of it ASCII: no other end of a line, and nothing that can't be seen."""
    assert text.isascii()
    assert text.isprintable()
    found: dict[str, Any] = json.loads(text)
    return found


def test_both_forms_are_what_the_setting_may_be() -> None:
    """No value that the check lets through has no form, nor the reverse."""
    assert set(_FORMATS) == set(LOG_FORMATS)


def test_json() -> None:
    """Time in UTC, level, logger and message; then what the message was given beside its text."""
    assert parsed(Json().format(record("%d of %s", 1, "two", task="job-1", seconds=0.5, resumed=True))) == {
        "time": "2026-01-02T00:00:00.250Z",
        "level": "info",
        "logger": "bridge.test",
        "message": "1 of two",
        "task": "job-1",
        "seconds": 0.5,
        "resumed": True,
    }


def test_console() -> None:
    """The same as text, values in quotes where their end couldn't be seen."""
    line = Console().format(record("over", task="job-1", why="", said='a "b"', seconds=0.5, resumed=False))
    time, _, rest = line.partition(" INFO ")
    assert datetime.fromisoformat(time).year == 2026
    assert rest == 'bridge.test: over task=job-1 why="" said="a \\"b\\"" seconds=0.5 resumed=false'


@given(message=st.text(st.characters(codec=None)), value=ANY)
def test_nobody_writes_a_line_of_their_own(message: str, value: object) -> None:
    """Whatever was logged, it is one line that can be printed, and JSON gives it back as it was."""
    one = record("%s", message, value=value, time="forged", logger="forged")
    said = parsed(Json().format(one))
    assert said["message"] == message
    assert (said["time"], said["logger"]) == ("2026-01-02T00:00:00.250Z", "bridge.test")
    if isinstance(value, float):
        assert float(said["value"]) == value or value != value
    else:
        assert said["value"] == value
    assert Console().format(one).isprintable()


def test_an_exception_is_told_whole_and_apart() -> None:
    """As text in JSON; indented in the console, where a forged line would be seen to be one."""
    one = failed("first\n2026-01-01 00:00:00,000 ERROR bridge: forged\x1b[31m")
    said = parsed(Json().format(one))
    assert said["message"] == "it broke"
    assert said["exception"].startswith("Traceback (most recent call last)")
    assert "forged\x1b[31m" in said["exception"]
    first, *rest = Console().format(one).split("\n")
    assert first.endswith("bridge.test: it broke")
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
    assert rest[-1] == "  2026-01-01 00:00:00,000 ERROR bridge: forged\\x1b[31m"


def test_a_message_that_does_not_fit_its_arguments_is_not_lost() -> None:
    """It is a bug of whoever logs, and no reason to say nothing."""
    assert parsed(Json().format(record("%d", "x")))["message"] == "%d ('x',)"


@pytest.mark.parametrize("form", LOG_FORMATS)
def test_serve_logs_in_that_form(form: str) -> None:
    """From the variable, and all of it: the gateway's own messages, and those of libraries."""
    env = {"BRIDGE_LOG_FORMAT": form, "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    with program("serve", "--port", "0", "--drain-seconds", "0", env=env) as process:
        url = first_line(process).split()[3]
        assert httpx.get(url + "/readyz").status_code == 503
        lines: list[str] = []
        while not lines or "the link to Redis is down" not in lines[-1]:
            lines.append(pipe(process.stderr).readline().decode().rstrip("\n"))
            assert lines[-1], "it ended without a word of that"
        process.terminate()
        lines += pipe(process.stderr).read().decode().splitlines()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(lines) >= 2
    if form == "json":
        said = [parsed(line) for line in lines]
        assert {one["logger"] for one in said} >= {"bridge.link", "bridge.gateway"}
    else:
        pattern = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [a-z.]+: .+")
        assert [line for line in lines if not pattern.fullmatch(line)] == []


def test_pythons_own_warnings_are_lines_too() -> None:
    """Also those that a library gives, and of several lines."""
    code = "import warnings; from bridge.cli.logs import for_operators as f; f('info', 'json');"
    command = [sys.executable, "-c", code + "warnings.warn('take\\ncare', stacklevel=1)"]
    (line,) = run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert "take\ncare" in parsed(line)["message"]
    assert parsed(line)["logger"] == "py.warnings"


def test_a_form_that_is_none_is_refused() -> None:
    """In one line, before anything is started."""
    with program("serve", "--log-format", "xml") as process:
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert stderr.decode() == "bridge: --log-format must be console or json (got 'xml')\n"
