"""Objects of `deploy/k8s` and what they name: each other, ports, labels, variables."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

import pytest

from bridge.settings import Settings, env_name
from tests.deploy.rendering import Object, Rendered, variables_of_service

pytestmark = pytest.mark.needs("kustomize")

VERSIONS = ["1.29", "1.33", "1.37"]
"""The first with native sidecars by default, the first that calls them stable, and the newest known here."""

VARIABLES = {name for one in fields(Settings) for name in (env_name(one), *one.metadata["also"])}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_object(rendered: Rendered, version: str) -> None:
    """Strictly: a member that this version doesn't know is an error, too."""
    validator: Any = importlib.import_module("kubernetes_validate")
    assert rendered.objects
    for each in rendered.objects:
        assert validator.validate(each, version, strict=True) == version


def test_the_validation_knows_sidecars() -> None:
    """A version without native sidecars refuses one, so the test above can fail."""
    validator: Any = importlib.import_module("kubernetes_validate")
    container = {"name": "x", "image": "x:1", "restartPolicy": "Always"}
    pod = {"containers": [{"name": "a", "image": "a:1"}], "initContainers": [container]}
    job = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    validator.validate(job, VERSIONS[0], strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate(job, "1.27", strict=True)


def test_every_variable_is_a_setting(rendered: Rendered) -> None:
    """What a gateway is told exists, has a value that it takes, and is not left to chance."""
    for bridge in rendered.bridges:
        assert bridge.env.keys() <= VARIABLES
        assert bridge.settings.host == "0.0.0.0"
        named = {"BRIDGE_PORT", "BRIDGE_BASE_PATH", "BRIDGE_DRAIN_SECONDS", "BRIDGE_CHANNELS_BYTES"}
        assert named <= bridge.env.keys(), "other members of these files rely on them"


def test_no_service_makes_a_variable_that_is_a_setting(rendered: Rendered) -> None:
    """No worker and no gateway beside our Services takes what Kubernetes says of them for a setting."""
    for service in rendered.of("Service"):
        assert not variables_of_service(service["metadata"]["name"], service["spec"]["ports"]) & VARIABLES
    assert "BRIDGE_PORT" in variables_of_service("bridge", []) & VARIABLES


def test_a_service_named_bridge_does_no_harm(rendered: Rendered) -> None:
    """Should somebody name one so: our pods aren't told, and a sidecar's own variables go before it."""
    for bridge in rendered.bridges:
        written_out = {each["name"] for each in bridge.container.get("env", [])}
        assert bridge.pod.spec.get("enableServiceLinks") is False or "BRIDGE_PORT" in written_out


def test_services_lead_to_ports_of_their_pods(rendered: Rendered) -> None:
    """Each Service selects the pods of exactly one Deployment, and its ports have names that these know."""
    for service in rendered.of("Service"):
        (pod,) = rendered.selected(service["spec"]["selector"])
        names = [port["name"] for port in service["spec"]["ports"]]
        assert len(set(names)) == len(names)
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in pod.ports


def test_the_gateway_listens_where_its_port_says(rendered: Rendered) -> None:
    """The port of the container is the port of the settings, and commands run inside of it find it there."""
    for bridge in rendered.bridges:
        settings = bridge.settings
        assert [port["containerPort"] for port in bridge.container["ports"]] == [settings.port]
        assert settings.gateway_url == f"http://127.0.0.1:{settings.port}{settings.base_path}"


def test_ingresses_lead_to_services(rendered: Rendered) -> None:
    """Each path leads to a Service and a port that exist, and the bridge's to a gateway below that path."""
    for ingress in rendered.of("Ingress"):
        for path in paths(ingress):
            wanted = path["backend"]["service"]
            service = rendered.one("Service", wanted["name"])
            (port,) = [p for p in service["spec"]["ports"] if p["name"] == wanted["port"]["name"]]
            (pod,) = rendered.selected(service["spec"]["selector"])
            leads_to_bridge = [
                bridge.settings.base_path
                for bridge in rendered.bridges
                if bridge.pod.owner == pod.owner and pod.ports[port["targetPort"]] == bridge.settings.port
            ]
            assert leads_to_bridge == ([path["path"]] if ingress["metadata"]["name"] == "bridge" else [])


@pytest.mark.parametrize("overlay", ["standalone", "sidecar"])
def test_the_ingress_lets_streams_through(overlay: str, request: pytest.FixtureRequest) -> None:
    """It holds nothing back, rewrites nothing, and waits longer than any silence that the gateway keeps."""
    rendered: Rendered = request.getfixturevalue(overlay)
    (bridge,) = rendered.bridges
    annotations = rendered.one("Ingress", "bridge")["metadata"]["annotations"]
    silence = max(bridge.settings.heartbeat_seconds, bridge.settings.longest_wait_seconds)
    for family, off in (("nginx.ingress.kubernetes.io", "off"), ("nginx.org", "false")):
        assert annotations.pop(f"{family}/proxy-buffering") == off
        for timeout in ("read", "send"):
            assert int(annotations.pop(f"{family}/proxy-{timeout}-timeout").rstrip("s")) > 10 * silence
    # Reports are read while they are produced, however long they are.
    assert annotations.pop("nginx.ingress.kubernetes.io/proxy-request-buffering") == "off"
    assert annotations.pop("nginx.ingress.kubernetes.io/proxy-body-size") == "0"
    assert annotations.pop("nginx.org/client-max-body-size") == "0"
    assert annotations == {}


def test_app_and_bridge_share_a_host(sidecar: Rendered) -> None:
    """Cookies of the app reach the bridge, and no CORS is needed."""
    hosts = [rule["host"] for ingress in sidecar.of("Ingress") for rule in ingress["spec"]["rules"]]
    assert len(hosts) == 2
    assert len(set(hosts)) == 1


def test_budget_and_scaling_mean_the_gateways(standalone: Rendered) -> None:
    """Both speak about the gateways' Deployment, and nobody else counts its replicas."""
    budget = standalone.one("PodDisruptionBudget", "bridge")["spec"]
    assert [pod.owner for pod in standalone.selected(budget["selector"]["matchLabels"])] == ["bridge-gateway"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    scaler = standalone.one("HorizontalPodAutoscaler", "bridge")["spec"]
    target = standalone.one(scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"])
    assert "replicas" not in target["spec"]
    assert scaler["minReplicas"] > budget["maxUnavailable"]
    requests = target["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    busy = (
        millicores(requests["cpu"]) * scaler["metrics"][0]["resource"]["target"]["averageUtilization"] / 100
    )
    assert busy < 1000, "a gateway is one process: it would never get there"


def test_policies_mean_the_right_pods(rendered: Rendered) -> None:
    """Each policy is about one Deployment's pods, and opens only ports that these have."""
    for policy in rendered.of("NetworkPolicy"):
        (pod,) = rendered.selected(policy["spec"]["podSelector"]["matchLabels"])
        assert pod.owner == policy["metadata"]["name"]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "an empty list would let in everybody"
            assert {port["port"] for port in rule["ports"]} == set(pod.ports)


def test_the_gateway_may_reach_redis_and_names(standalone: Rendered) -> None:
    """Of all ports outside those of Redis, of Sentinel and of DNS are open."""
    rules = standalone.one("NetworkPolicy", "bridge-gateway")["spec"]["egress"]
    ports = {(port["port"], port.get("protocol", "TCP")) for rule in rules for port in rule["ports"]}
    assert ports == {(6379, "TCP"), (26379, "TCP"), (53, "TCP"), (53, "UDP")}


def test_nothing_secret_is_in_the_files(standalone: Rendered, sidecar: Rendered) -> None:
    """The Secret is the operator's; a sidecar starts without it, because the app has to start."""
    for rendered in (standalone, sidecar):
        assert rendered.of("Secret") == []
        (bridge,) = rendered.bridges
        (secret,) = [each["secretRef"] for each in bridge.container["envFrom"] if "secretRef" in each]
        assert secret["name"] == "bridge"
        assert secret.get("optional", False) is bridge.sidecar
        assert "BRIDGE_REDIS_URL" not in bridge.env


def paths(ingress: Object) -> list[Object]:
    """The paths of all its hosts."""
    return [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]


def millicores(text: str) -> int:
    """A quantity such as 500m or 2."""
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000
