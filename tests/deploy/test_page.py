"""docs/deploy.md names what there is."""

from __future__ import annotations

import re
import shlex

import bridge
from tests.deploy.rendering import DEPLOY, K8S
from tests.deploy.test_objects import VARIABLES, VERSIONS

ROOT = DEPLOY.parent
PAGE = ROOT / "docs" / "deploy.md"
TEXT = PAGE.read_text()


def test_every_link_leads_somewhere() -> None:
    """Files and folders that the page names are there."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert len(links) > 10
    for link in links:
        assert (PAGE.parent / link).exists(), link


def test_every_folder_of_the_manifests_is_explained() -> None:
    """Nobody finds a kustomization that the page doesn't know."""
    for file in K8S.rglob("kustomization.yaml"):
        assert f"../deploy/k8s/{file.parent.relative_to(K8S)}/)" in TEXT, file


def test_every_setting_exists() -> None:
    """What looks like a setting of ours is one."""
    assert set(re.findall(r"\bBRIDGE_[A-Z_]+", TEXT)) <= VARIABLES


def test_its_commands_name_files_and_this_version() -> None:
    """What it tells to type in can be typed in, from the root of the checkout."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    words = [word for block in blocks for word in shlex.split(block)]
    files = [word for word in words if word.startswith("deploy/") and not word.startswith("deploy/bridge-")]
    assert files
    for file in files:
        assert (ROOT / file).exists(), file
    assert {word for word in words if word.startswith("bridge:")} == {f"bridge:{bridge.__version__}"}


def test_it_says_what_is_validated() -> None:
    """The versions of Kubernetes are those of the tests."""
    assert f"{', '.join(VERSIONS[:-1])} and {VERSIONS[-1]}" in TEXT
