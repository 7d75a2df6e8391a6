"""Pods of `deploy/k8s`: probes, ends, rights, images."""

from __future__ import annotations

import re

import httpx
import pytest

import bridge as package
from bridge.gateway.app import Gateway
from bridge.gateway.auth import refuse_open_door
from bridge.gateway.server import _AFTER_DRAIN_SECONDS
from bridge.settings import Settings
from tests.deploy.rendering import USUAL_GRACE_SECONDS, Rendered
from tests.gateway.running import Running, running
from tests.servers import RedisProcess, free_port
from tests.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.needs("kustomize")

PROGRAM_BYTES = 100 * 1024 * 1024
"""More than a gateway takes before it serves anybody, with some thousand streams on top."""


def test_every_overlay_runs_one_kind_of_gateway(rendered: Rendered) -> None:
    """The tests below, which look at all gateways of an overlay, look at something."""
    assert len(list(rendered.bridges)) == 1


def test_probes_ask_what_exists(rendered: Rendered, redis_url: str) -> None:
    """A gateway with these settings answers every probe with 200, and an invented path with 404."""
    for bridge in rendered.bridges:
        with running(redis_url, base_path=bridge.settings.base_path) as gateway:
            for probe in bridge.probes.values():
                # Ready is only who has heard of Redis lately, which on a busy machine may take a moment.
                eventually(lambda path=probe.path: status(gateway, path) == 200)  # type: ignore[misc]  # mypy can't see the types of defaults
            assert status(gateway, f"{bridge.settings.base_path}/nothing") == 404


def test_prometheus_finds_every_gateway(rendered: Rendered) -> None:
    """The annotations name the gateway's port, and a path where it tells of itself."""
    for bridge in rendered.bridges:
        said = bridge.pod.annotations
        assert said["prometheus.io/scrape"] == "true"
        assert said["prometheus.io/port"] == str(bridge.settings.port)
        nowhere = f"redis://127.0.0.1:{free_port()}"
        with running(nowhere, ready=False, base_path=bridge.settings.base_path) as gateway:
            url = httpx.URL(gateway.url).copy_with(path=said["prometheus.io/path"])
            assert "bridge_build_info" in httpx.get(url, timeout=DEADLINE_SECONDS).text


def test_an_absent_redis_restarts_nobody(rendered: Rendered) -> None:
    """Without Redis a gateway still passes its livenessProbe, and a sidecar all of its probes."""
    for bridge in rendered.bridges:
        nowhere = f"redis://127.0.0.1:{free_port()}"
        with running(nowhere, ready=False, base_path=bridge.settings.base_path) as gateway:
            passed = {kind for kind, probe in bridge.probes.items() if status(gateway, probe.path) == 200}
        assert passed == ({"liveness", "readiness"} if bridge.sidecar else {"liveness"})


def test_standalone_gateways_are_ready_with_redis_only(standalone: Rendered) -> None:
    """Alive is /healthz, ready is /readyz, and a failover shorter than 30 s empties no Service."""
    (bridge,) = standalone.bridges
    assert not bridge.sidecar
    paths = {kind: probe.path for kind, probe in bridge.probes.items()}
    assert paths == {"liveness": "/bridge/healthz", "readiness": "/bridge/readyz"}
    assert bridge.probes["readiness"].patience_seconds >= 30


def test_every_gateway_starts(rendered: Rendered) -> None:
    """With what the Secret must hold there is a door for each; a sidecar's even without, or it would take its
    app down. Only for a look nobody is asked, and that is said.
    """
    for bridge in rendered.bridges:
        secret = {} if bridge.sidecar else {"BRIDGE_TICKET_KEYS": "k" * 32}
        settings = Settings.from_env(secret | bridge.env)
        refuse_open_door(settings)
        assert Gateway(settings).settings.auth != "none" or settings.insecure


def test_only_an_evaluation_asks_nobody(standalone: Rendered, sidecar: Rendered) -> None:
    """What is copied for production asks who may read."""
    assert [one.settings.auth for one in (*standalone.bridges, *sidecar.bridges)] == ["jwt", "forward"]


def test_a_sidecar_is_native_and_holds_nobody_up(sidecar: Rendered) -> None:
    """It goes on beside the app, the app doesn't wait for it, and one that hangs is restarted before its pod
    would be taken out of the Service.
    """
    (bridge,) = sidecar.bridges
    assert bridge.sidecar
    assert bridge.container["restartPolicy"] == "Always"
    assert bridge.probes.keys() == {"liveness", "readiness"}, "for a startupProbe the app would wait"
    assert {probe.path for probe in bridge.probes.values()} == {"/bridge/healthz"}
    assert bridge.probes["readiness"].patience_seconds > bridge.probes["liveness"].patience_seconds


def test_there_is_time_to_drain(rendered: Rendered) -> None:
    """Waiting for the proxies, draining and cutting off the last ones fit into the grace period."""
    for bridge in rendered.bridges:
        command, seconds = bridge.container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        needed = int(seconds) + bridge.settings.drain_seconds + _AFTER_DRAIN_SECONDS
        assert bridge.pod.spec.get("terminationGracePeriodSeconds", USUAL_GRACE_SECONDS) > needed


def test_memory_is_enough_for_the_channels(rendered: Rendered) -> None:
    """A gateway whose channels are full isn't killed for it."""
    for bridge in rendered.bridges:
        limits = bridge.container["resources"]["limits"]
        assert in_bytes(limits["memory"]) > bridge.settings.channels_bytes + PROGRAM_BYTES
        assert "cpu" not in limits, "throttling makes everybody's text late"


def test_containers_have_no_rights(rendered: Rendered) -> None:
    """What we start passes the Pod Security Standard `restricted`, and can't write to its own disk."""
    for pod in rendered.pods:
        for container in pod.containers:
            if container["name"] not in ("bridge", "valkey"):
                continue
            security = pod.security(container)
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] >= 100
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_pods_of_ours_know_nothing_of_kubernetes(standalone: Rendered, evaluation: Rendered) -> None:
    """They get no token of a service account."""
    for pod in (*standalone.pods, *evaluation.pods):
        assert pod.spec["automountServiceAccountToken"] is False


def test_images_are_pinned(rendered: Rendered) -> None:
    """Every image has a whole version as its tag, and ours this version."""
    for pod in rendered.pods:
        for container in pod.containers:
            name, _, tag = container["image"].rpartition(":")
            assert re.match(r"v?\d+\.\d+\.\d+", tag), container["image"]
            if container["name"] == "bridge":
                assert (name.rpartition("/")[2], tag) == ("bridge", package.__version__)


def test_the_evaluation_finds_its_valkey(evaluation: Rendered) -> None:
    """The gateway's URL is the Service of a Valkey that both policies let it reach."""
    (bridge,) = evaluation.bridges
    service = evaluation.one("Service", "valkey")
    (port,) = service["spec"]["ports"]
    assert bridge.settings.redis_url == f"redis://valkey:{port['port']}/0"
    (rule,) = evaluation.one("NetworkPolicy", "valkey")["spec"]["ingress"]
    admitted = [source["podSelector"]["matchLabels"] for source in rule["from"]]
    assert any(labels.items() <= bridge.pod.labels.items() for labels in admitted)


def test_the_evaluations_valkey_runs(evaluation: Rendered) -> None:
    """A real server takes those arguments, keeps nothing on disk and evicts nothing."""
    (pod,) = [pod for pod in evaluation.pods if pod.owner == "valkey"]
    program, *options = pod.containers[0]["args"]
    assert program == "valkey-server"
    with RedisProcess(options=options) as server:
        client = server.client()
        eventually(client.ping)
        said = client.config_get("maxmemory*", "save", "appendonly")
        client.close()
    assert (said["maxmemory-policy"], said["maxmemory"]) == ("noeviction", str(256 * 1024 * 1024))
    assert (said["save"], said["appendonly"]) == ("", "no")


def test_the_evaluations_namespace_enforces_that(evaluation: Rendered) -> None:
    """Kubernetes itself holds the evaluation to having no rights, and everything is in that namespace."""
    namespace = evaluation.one("Namespace", "bridge-evaluation")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    places = {each["metadata"].get("namespace") for each in evaluation.objects if each is not namespace}
    assert places == {"bridge-evaluation"}


def status(gateway: Running, path: str) -> int:
    """What the gateway answers to a path from the root of its host."""
    return httpx.get(httpx.URL(gateway.url).copy_with(path=path), timeout=DEADLINE_SECONDS).status_code


def in_bytes(text: str) -> int:
    """A quantity such as 256Mi, in bytes."""
    assert text.endswith("Mi")
    return int(text[:-2]) * 1024 * 1024
