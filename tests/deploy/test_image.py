"""The image, as far as it shows without Docker, and the composition that uses it."""

from __future__ import annotations

import re
import signal
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import bridge as package
from bridge.gateway.server import _AFTER_DRAIN_SECONDS
from bridge.settings import Settings
from tests.deploy.dockerfile import FILE, ROOT, Step, build, stages
from tests.deploy.rendering import DEPLOY, Rendered
from tests.deploy.test_objects import VARIABLES
from tests.processes import environ
from tests.servers import free_port
from tests.tools import require_tool
from tests.waiting import DEADLINE_SECONDS, eventually

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GATEWAY = COMPOSE["services"]["gateway"]
VALKEY = COMPOSE["services"]["valkey"]


def last(name: str) -> Step:
    """The one instruction of that name in the stage that becomes the image."""
    (found,) = [step for step in stages()[-1] if step.name == name]
    return found


@pytest.mark.needs("hadolint")
def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, which also reads the shell inside, finds no fault at all."""
    said = subprocess.run([require_tool("hadolint"), FILE], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_both_stages_have_one_pinned_base() -> None:
    """What is compiled in the one runs in the other, and a build next year begins with the same Python."""
    images = {stage[0].words[0] for stage in stages()}
    assert len(images) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", images.pop())


def test_the_image_holds_only_the_environment() -> None:
    """Nothing is run or fetched in the last stage, so no tool of the build stays in it."""
    assert {"RUN", "ADD"}.isdisjoint(step.name for step in stages()[-1])
    assert last("COPY").words == ["--from=build", "/opt/bridge", "/opt/bridge"]


@pytest.mark.needs("kustomize")
def test_it_runs_as_the_user_that_kubernetes_names(standalone: Rendered, sidecar: Rendered) -> None:
    """Not root, by number, and the same everywhere."""
    for rendered in (standalone, sidecar):
        (bridge,) = rendered.bridges
        security = bridge.pod.security(bridge.container)
        assert last("USER").text == f"{security['runAsUser']}:{security['runAsGroup']}"
        assert last("EXPOSE").text == str(bridge.settings.port)
        assert bridge.container["args"] == last("CMD").words


def test_it_has_no_shell_between_signal_and_gateway() -> None:
    """SIGTERM reaches the gateway, because entry point and command are lists."""
    assert last("ENTRYPOINT").words == ["bridge"]
    assert last("CMD").words == ["serve"]


def test_docker_is_sent_what_is_copied() -> None:
    """Everything that is copied from the checkout passes the ignore file, which begins by refusing all."""
    rules = [rule for rule in ignore_file() if not rule.startswith("**")]
    copied = [step.words[:-1] for step in stages()[0] if step.name == "COPY"]
    assert rules[0] == "*"
    assert sorted(f"!{source}" for sources in copied for source in sources) == sorted(rules[1:])
    assert all((ROOT / source).exists() for sources in copied for source in sources)


@pytest.mark.timeout(600)
def test_its_environment_is_the_locks_and_serves(tmp_path: Path) -> None:
    """The first stage, carried out: each package has the lock's version, none is there for tests alone, and
    the image's command serves, is healthy by the composition's own check, and ends well at SIGTERM.
    """
    made = build(tmp_path)
    # Some are there twice, for older and newer Pythons.
    pinned = set(re.findall(r"(?m)^([a-z0-9._-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text()))
    installed = packages(made)
    assert installed.pop("bridge") == package.__version__
    assert installed.items() <= pinned
    assert {"redis", "uvicorn", "click", "httpx"} <= installed.keys()
    assert {"pytest", "pip", "hatchling"}.isdisjoint(installed)

    port = free_port()
    env = environ(PATH=f"{made}/bin", BRIDGE_HOST="127.0.0.1", BRIDGE_PORT=str(port))
    command = [str(made / "bin" / last("ENTRYPOINT").words[0]), *last("CMD").words]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
            kind, *check = [word.replace("8620", str(port)) for word in GATEWAY["healthcheck"]["test"]]
            assert kind == "CMD"
            subprocess.run([str(made / "bin" / check[0]), *check[1:]], env=env, check=True)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            process.kill()


def test_the_composition_builds_this_version() -> None:
    """Its image carries the version, and its paths lead to the checkout and to the Dockerfile."""
    assert GATEWAY["image"] == f"bridge:{package.__version__}"
    context = (DEPLOY / GATEWAY["build"]["context"]).resolve()
    assert context == ROOT
    assert context / GATEWAY["build"]["dockerfile"] == FILE


def test_the_compositions_variables_are_settings() -> None:
    """They exist, they have values that a gateway takes, and they lead to the Valkey beside it."""
    assert GATEWAY["environment"].keys() <= VARIABLES
    settings = Settings.from_env(GATEWAY["environment"])
    assert settings.redis_url == "redis://valkey:6379/0"
    grace = float(GATEWAY["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds + _AFTER_DRAIN_SECONDS


def test_the_composition_is_for_this_machine_only() -> None:
    """Both ports are open on loopback alone, and both containers have no rights."""
    for service, port in ((GATEWAY, 8620), (VALKEY, 6379)):
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert VALKEY["user"].partition(":")[0] not in ("", "0", "root")


@pytest.mark.needs("kustomize")
def test_both_evaluations_have_the_same_valkey(evaluation: Rendered) -> None:
    """The composition and the overlay run the same image with the same arguments."""
    (pod,) = [pod for pod in evaluation.pods if pod.owner == "valkey"]
    (container,) = pod.containers
    assert (VALKEY["image"], VALKEY["command"]) == (container["image"], container["args"])


def ignore_file() -> list[str]:
    """The rules of the build's own ignore file."""
    lines = FILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def packages(environment: Path) -> dict[str, str]:
    """What is installed in a virtual environment, as the lock spells it."""
    where = [str(path) for path in environment.glob("lib/python*/site-packages")]
    return {
        each.metadata["Name"].lower().replace("_", "-"): each.version for each in distributions(path=where)
    }


def answers(url: str) -> bool:
    """Whether somebody is there and content."""
    try:
        return httpx.get(url, timeout=DEADLINE_SECONDS).is_success
    except httpx.TransportError:
        return False
