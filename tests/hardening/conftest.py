"""A gateway to attack, and a worker whose task somebody is after. What leaves an error in the log fails."""

from __future__ import annotations

from tests.gateway.conftest import expected_errors, gateway, no_bugs, writer

__all__ = ["expected_errors", "gateway", "no_bugs", "writer"]
