"""What kustomize makes of `deploy/k8s`, and how Kubernetes would read it."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bridge.settings import Settings
from tests.tools import require_tool

DEPLOY = Path(__file__).parents[2] / "deploy"
K8S = DEPLOY / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())

Object = dict[str, Any]

USUAL_GRACE_SECONDS = 30
"""What a pod has without `terminationGracePeriodSeconds`."""


@dataclass(frozen=True, slots=True)
class Pod:
    """The template of a Deployment's pods."""

    owner: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """All that keep running, sidecars included."""
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def ports(self) -> dict[str, int]:
        return {p["name"]: p["containerPort"] for each in self.containers for p in each.get("ports", [])}

    def security(self, container: Object) -> Object:
        """A container's security context: its own members go before those of the pod."""
        return {**self.spec.get("securityContext", {}), **container.get("securityContext", {})}


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP probe: the path that it asks for, and how long it takes until its failing counts."""

    path: str
    patience_seconds: int


@dataclass(frozen=True, slots=True)
class Bridge:
    """One container that runs a gateway, in its pod, with the variables that it gets."""

    pod: Pod
    container: Object
    env: dict[str, str]

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.env)

    @property
    def sidecar(self) -> bool:
        return self.container in self.pod.spec.get("initContainers", [])

    @property
    def probes(self) -> dict[str, Probe]:
        """What the kubelet asks: `liveness`, `readiness`, `startup`."""
        found = {}
        for kind in ("startup", "liveness", "readiness"):
            if probe := self.container.get(f"{kind}Probe"):
                assert probe["httpGet"]["port"] in {port["name"] for port in self.container["ports"]}
                patience = probe["periodSeconds"] * probe["failureThreshold"]
                found[kind] = Probe(probe["httpGet"]["path"], patience)
        return found


@dataclass(frozen=True, slots=True)
class Rendered:
    """All objects of one overlay."""

    objects: tuple[Object, ...]

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The object of that name; its name may have been given a hash."""
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"].startswith(name)]
        return found

    @property
    def pods(self) -> list[Pod]:
        return [
            Pod(
                each["metadata"]["name"],
                template["metadata"]["labels"],
                template["metadata"].get("annotations", {}),
                template["spec"],
            )
            for each in self.of("Deployment")
            for template in [each["spec"]["template"]]
        ]

    def selected(self, labels: dict[str, str]) -> list[Pod]:
        """The pods that a selector means. An empty one would mean all; ours never are."""
        assert labels
        return [pod for pod in self.pods if labels.items() <= pod.labels.items()]

    @property
    def bridges(self) -> Iterator[Bridge]:
        for pod in self.pods:
            for container in pod.containers:
                if container["name"] == "bridge":
                    yield Bridge(pod, container, self._env(container))

    def _env(self, container: Object) -> dict[str, str]:
        """Later sources win over earlier ones, `env` over them all; a Secret that isn't here is empty."""
        env: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                env |= self._named("ConfigMap", source["configMapRef"]["name"])["data"]
            elif secret := self._named("Secret", source["secretRef"]["name"]):
                env |= {name: base64.b64decode(text).decode() for name, text in secret["data"].items()}
        return {**env, **{each["name"]: each["value"] for each in container.get("env", [])}}

    def _named(self, kind: str, name: str) -> Object:
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), {})


def render(folder: Path) -> Rendered:
    """Run kustomize. The same folder with the same content is rendered once."""
    text = _kustomize(folder)
    return Rendered(tuple(each for each in yaml.safe_load_all(text) if each))


@cache
def _kustomize(folder: Path) -> str:
    program = require_tool("kustomize")
    command = [str(program), "kustomize" if program.name == "kubectl" else "build", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def variables_of_service(name: str, ports: list[Object]) -> set[str]:
    """The environment variables by which Kubernetes tells every pod of the namespace about a Service.

    https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
    """
    name = _as_variable(name)
    made = {f"{name}_SERVICE_HOST", f"{name}_SERVICE_PORT", f"{name}_PORT"}
    for port in ports:
        made.add(f"{name}_SERVICE_PORT_{_as_variable(port.get('name', ''))}")
        prefix = f"{name}_PORT_{port['port']}_{port.get('protocol', 'TCP')}"
        made |= {prefix, f"{prefix}_PROTO", f"{prefix}_PORT", f"{prefix}_ADDR"}
    return made


def _as_variable(name: str) -> str:
    return name.upper().replace("-", "_")
