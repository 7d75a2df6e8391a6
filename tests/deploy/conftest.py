"""Each overlay of `deploy/k8s`, rendered."""

from __future__ import annotations

import pytest

from tests.deploy.rendering import K8S, OVERLAYS, Rendered, render


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """One overlay after the other."""
    return render(K8S / "overlays" / request.param)


@pytest.fixture
def standalone() -> Rendered:
    """Gateways of their own."""
    return render(K8S / "overlays" / "standalone")


@pytest.fixture
def sidecar() -> Rendered:
    """The example app with its sidecar."""
    return render(K8S / "overlays" / "sidecar")


@pytest.fixture
def evaluation() -> Rendered:
    """Gateways and a Valkey."""
    return render(K8S / "overlays" / "evaluation")
