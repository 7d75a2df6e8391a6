"""What a gateway says at its start of an app that it can't ask."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import SettingsError
from bridge.gateway.app import Gateway
from bridge.settings import Settings


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "upstream needs BRIDGE_UPSTREAM_STATUS"),
        ({"upstream_status": "api/{task_id}"}, "--upstream-status must be a path"),
        ({"upstream_status": "/api/jobs"}, "--upstream-status must hold {task_id}"),
        ({"upstream_mapping": "mine.toml"}, "the mapping 'mine.toml' can't be read"),
    ],
)
def test_a_gateway_does_not_start(settings: dict[str, Any], complaint: str) -> None:
    """And says which setting is wrong, and what it should be."""
    with pytest.raises(SettingsError) as caught:
        Gateway(Settings(upstream="http://app:5000", **settings))
    assert complaint in str(caught.value)


def test_without_an_app_nothing_of_this_is_looked_at() -> None:
    """A mapping that isn't there is no mistake, where nobody is asked."""
    assert Gateway(Settings(upstream_mapping="mine.toml")).upstream is None


@pytest.mark.parametrize("mapping", ["nextcloud", "replicate"])
def test_a_mapping_may_name_the_endpoint(mapping: str) -> None:
    """Then nothing but the app's address is needed."""
    assert Gateway(Settings(upstream="http://app:5000", upstream_mapping=mapping)).upstream is not None
