"""Each test of the client runs with the one for threads and with the one for asyncio."""

from __future__ import annotations

import pytest

from tests.client.both import Both


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    """Either client."""
    return Both(request.param)
