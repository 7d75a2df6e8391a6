"""What the environment says about this application. The bridge's own settings are `BRIDGE_*`, as ever."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class ConfigError(Exception):
    """A variable has a value that doesn't fit; the message names it."""


@dataclass(frozen=True, slots=True)
class Config:
    """The application's settings, each with the variable that it comes from."""

    database: Path = Path("assistant.db")
    """ASSISTANT_DATABASE: the SQLite file, the same for the web application and its workers."""
    gateway_url: str = "http://127.0.0.1:8620"
    """ASSISTANT_GATEWAY_URL: the gateway, as browsers see it."""
    internal_gateway_url: str = "http://127.0.0.1:8620"
    """ASSISTANT_INTERNAL_GATEWAY_URL: the gateway, as this application sees it; by default the same."""
    broker_url: str = "redis://127.0.0.1:6379/0"
    """BROKER_URL: where Celery's messages are; by default in the bridge's Redis."""
    messages_per_minute: int = 20
    """ASSISTANT_MESSAGES_PER_MINUTE: so many may one user send."""
    streaming_off: frozenset[str] = frozenset()
    """ASSISTANT_STREAMING_OFF: names of providers whose answers come in one piece."""
    sweep_seconds: float = 10.0
    """ASSISTANT_SWEEP_SECONDS: how often answers are looked for that ended and weren't stored."""
    demo_model: bool = False
    """ASSISTANT_DEMO_MODEL=1: the built-in model that needs no provider may be asked."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the environment. Raises `ConfigError`."""
        usual = cls()
        gateway = env.get("ASSISTANT_GATEWAY_URL", usual.gateway_url).rstrip("/")
        return cls(
            database=Path(env.get("ASSISTANT_DATABASE", usual.database)),
            gateway_url=gateway,
            internal_gateway_url=env.get("ASSISTANT_INTERNAL_GATEWAY_URL", gateway).rstrip("/"),
            broker_url=env.get("BROKER_URL") or _redis(env) or usual.broker_url,
            messages_per_minute=_whole(env, "ASSISTANT_MESSAGES_PER_MINUTE", usual.messages_per_minute),
            streaming_off=frozenset(env.get("ASSISTANT_STREAMING_OFF", "").replace(",", " ").split()),
            sweep_seconds=_number(env, "ASSISTANT_SWEEP_SECONDS", usual.sweep_seconds),
            demo_model=env.get("ASSISTANT_DEMO_MODEL", "") == "1",
        )


def _redis(env: Mapping[str, str]) -> str | None:
    return env.get("BRIDGE_REDIS_URL") or env.get("REDIS_URL")


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    value = _number(env, name, default)
    if value != int(value):
        raise ConfigError(f"{name} must be a whole number (got {env[name]!r})")
    return int(value)


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(env.get(name, default))
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        raise ConfigError(f"{name} must be a number greater than 0 (got {env[name]!r})")
    return value
