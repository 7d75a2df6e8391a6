"""The sidecar component on an app that has nothing to do with us."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rendering import K8S, Object, render

pytestmark = pytest.mark.needs("kustomize")

APP: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "billing",
        "namespace": "money",
        "labels": {"bridge-sidecar": "true", "team": "blue"},
    },
    "spec": {
        "selector": {"matchLabels": {"app": "billing"}},
        "template": {
            "metadata": {"labels": {"app": "billing"}, "annotations": {"note": "ours"}},
            "spec": {
                "terminationGracePeriodSeconds": 600,
                "securityContext": {"runAsUser": 4711, "fsGroup": 4711},
                "initContainers": [{"name": "migrate", "image": "billing:7", "command": ["migrate"]}],
                "containers": [
                    {"name": "web", "image": "billing:7", "env": [{"name": "BRIDGE_PORT", "value": "1"}]},
                    {"name": "proxy", "image": "proxy:3"},
                ],
                "volumes": [{"name": "cache", "emptyDir": {}}],
            },
        },
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "billing", "namespace": "money", "labels": {"bridge-sidecar": "true"}},
    "spec": {"selector": {"app": "billing"}, "ports": [{"name": "web", "port": 80, "targetPort": 9000}]},
}


def with_component(folder: Path, *objects: Object) -> list[Object]:
    """Those objects, with the component applied, in their order."""
    component = os.path.relpath(K8S / "components" / "sidecar", folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["app.yaml"],
        "components": [component],
        "sortOptions": {"order": "fifo"},
    }
    (folder / "app.yaml").write_text(yaml.safe_dump_all(objects))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return list(render(folder).objects)


def test_it_adds_one_container_and_changes_nothing(tmp_path: Path) -> None:
    """Without the sidecar the app is what it was: its end, its rights, its own init container, all."""
    (patched,) = with_component(tmp_path, APP)
    containers = patched["spec"]["template"]["spec"]["initContainers"]
    (sidecar,) = [each for each in containers if each["name"] == "bridge"]
    containers.remove(sidecar)
    assert patched == APP
    assert sidecar["securityContext"]["runAsUser"] != 4711


def test_it_gives_the_service_a_port(tmp_path: Path) -> None:
    """The Service leads to the sidecar, too, and for the rest to where it led."""
    app, service = with_component(tmp_path, APP, SERVICE)
    first, second = service["spec"]["ports"]
    assert [first] == SERVICE["spec"]["ports"]
    (sidecar,) = [
        each for each in app["spec"]["template"]["spec"]["initContainers"] if each["name"] == "bridge"
    ]
    assert second["targetPort"] in {port["name"] for port in sidecar["ports"]}


def test_it_touches_only_what_asks_for_it(tmp_path: Path) -> None:
    """A worker and a database of the same app stay as they are; so does all without the label."""
    others = []
    for number, labels in enumerate([{}, {"bridge-sidecar": "false"}, {"team": "a"}]):
        for kind in (APP, SERVICE):
            other = copy.deepcopy(kind)
            other["metadata"] |= {"name": f"other-{number}", "labels": labels}
            others.append(other)
    _, *rest = with_component(tmp_path, APP, *others)
    assert [strip(each) for each in rest] == [strip(each) for each in others]


def strip(each: Object) -> Object:
    """Without `labels: {}`, which means the same as none."""
    metadata = {name: value for name, value in each["metadata"].items() if value != {}}
    return {**each, "metadata": metadata}
