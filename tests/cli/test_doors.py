"""Who may read, from end to end: processes as people start them, with keys from their environment."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

import bridge
from bridge.cli import main
from bridge.worker import process
from tests.cli.test_serve import first_line
from tests.credentials import OTHER, TICKET_KEY
from tests.gateway.viewer import Viewer
from tests.processes import program
from tests.waiting import eventually


class Where:
    """The gateway of a process."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)
        assert self.url.port is not None
        self.address = (self.url.host, self.url.port)


def ticket_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What `bridge ticket` prints."""
    monkeypatch.setenv("BRIDGE_TICKET_KEYS", TICKET_KEY)
    result = CliRunner().invoke(main, ["ticket", *arguments])
    assert result.exit_code == 0
    return result.stdout.strip()


def test_a_ticket_opens_one_task_of_a_real_gateway(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bridge serve` reads the keys from a file, old and new; a worker writes, an app makes the ticket, and
    an EventSource's request with it brings the text. Another's finds nothing, and without any it is 401.
    """
    (tmp_path / "keys").write_text(f"{OTHER} {TICKET_KEY}\n")
    env = {
        "BRIDGE_REDIS_URL": redis_url,
        "BRIDGE_AUTH": "jwt",
        "BRIDGE_TICKET_KEYS_FILE": str(tmp_path / "keys"),
        "BRIDGE_HOST": "0.0.0.0",
    }
    mine, others = ticket_of(monkeypatch, "job-1", "--cancel"), ticket_of(monkeypatch, "job-2", "--cancel")
    try:
        bridge.configure(redis_url=redis_url, ticket_keys=TICKET_KEY, cancel_check_seconds=0.05)
        with program("serve", "--port", "0", "--drain-seconds", "0", env=env) as serving:
            where = Where(first_line(serving).split()[3])
            eventually(lambda: httpx.get(where.url.join("/readyz")).status_code == 200)
            assert bridge.create_task("job-1", owner="ann")
            with bridge.task("job-1") as task:
                task.report_progress("for ann")
                with Viewer(where, f"/tasks/job-1/events?ticket={mine}") as viewer:
                    viewer.text_is("for ann")
                    for_ann = {"Authorization": f"Bearer {bridge.ticket('job-1', owner='ann')}"}
                    for_bob = {"Authorization": f"Bearer {bridge.ticket('job-1', owner='bob')}"}
                    status = str(where.url.join("/tasks/job-1/status"))
                    cancel = str(where.url.join("/tasks/job-1/cancel"))
                    assert httpx.get(status).status_code == 401
                    assert httpx.get(status, headers=for_ann).json()["text"] == "for ann"
                    assert httpx.get(status, headers=for_bob).status_code == 404
                    assert httpx.post(cancel, headers=for_ann).status_code == 404
                    assert httpx.post(cancel, params={"ticket": others}).status_code == 404
                    assert httpx.post(cancel, params={"ticket": mine}).status_code == 200
                    eventually(lambda: not task.report_progress())
                    viewer.until(lambda v: v.view.cancel_requested)
            serving.terminate()
            stdout, stderr = serving.communicate(timeout=30)
        assert serving.returncode == 0
        for text in (mine, others, TICKET_KEY, OTHER):
            assert text not in (stdout + stderr).decode()
    finally:
        process.reset()


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_an_open_door_to_the_network_is_refused(command: str) -> None:
    """Before anything listens; the line says what to do."""
    with program(command, "--port", "0", "--host", "0.0.0.0") as started:
        stdout, stderr = started.communicate(timeout=60)
    assert (started.returncode, stdout) == (2, b"")
    said = stderr.decode()
    assert said.startswith("bridge: on 0.0.0.0 others could see and cancel every task: choose who may with")
    assert "--insecure" in said
    assert said.count("\n") == 1


def test_an_open_door_can_be_meant(redis_url: str) -> None:
    """With --insecure it is as on one's own machine."""
    arguments = ["--port", "0", "--host", "0.0.0.0", "--insecure", "--drain-seconds", "0"]
    with program("serve", *arguments, env={"BRIDGE_REDIS_URL": redis_url}) as serving:
        url = first_line(serving).split()[3]
        assert httpx.get(f"{url}/tasks/nobody/status").status_code in (404, 503)
        serving.terminate()
        serving.communicate(timeout=30)
    assert serving.returncode == 0


def test_a_gateway_that_could_let_nobody_in_says_what_is_missing() -> None:
    """One line, exit code 2."""
    with program("serve", "--port", "0", "--auth", "jwt") as started:
        stdout, stderr = started.communicate(timeout=60)
    assert (started.returncode, stdout) == (2, b"")
    assert stderr.decode().splitlines()[-1].startswith("bridge: auth jwt needs a key: BRIDGE_TICKET_KEYS")
