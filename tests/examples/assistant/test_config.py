"""config: the environment as settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from assistant.config import Config, ConfigError


def test_nothing_is_needed() -> None:
    """An empty environment means the defaults."""
    assert Config.from_env({}) == Config()


def test_all_of_it() -> None:
    """Each variable is its setting."""
    env = {
        "ASSISTANT_DATABASE": "/data/a.db",
        "ASSISTANT_GATEWAY_URL": "https://bridge.example/",
        "ASSISTANT_INTERNAL_GATEWAY_URL": "http://gateway:8620",
        "BROKER_URL": "redis://broker/1",
        "ASSISTANT_MESSAGES_PER_MINUTE": "5",
        "ASSISTANT_STREAMING_OFF": "openai, demo",
        "ASSISTANT_SWEEP_SECONDS": "0.5",
        "ASSISTANT_DEMO_MODEL": "1",
    }
    assert Config.from_env(env) == Config(
        database=Path("/data/a.db"),
        gateway_url="https://bridge.example",
        internal_gateway_url="http://gateway:8620",
        broker_url="redis://broker/1",
        messages_per_minute=5,
        streaming_off=frozenset(("openai", "demo")),
        sweep_seconds=0.5,
        demo_model=True,
    )


def test_what_follows_from_another() -> None:
    """The gateway is where browsers see it, and Celery's messages are in the bridge's Redis."""
    config = Config.from_env({"ASSISTANT_GATEWAY_URL": "http://g:1", "REDIS_URL": "redis://r/0"})
    assert (config.internal_gateway_url, config.broker_url) == ("http://g:1", "redis://r/0")


@pytest.mark.parametrize("value", ["", "many", "0", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", ["ASSISTANT_MESSAGES_PER_MINUTE", "ASSISTANT_SWEEP_SECONDS"])
def test_what_is_no_number(name: str, value: str) -> None:
    """The variable is named, and what it holds."""
    with pytest.raises(ConfigError, match=rf"{name} .*{value!r}"):
        Config.from_env({name: value})


def test_half_a_message() -> None:
    """Messages are counted in whole ones."""
    with pytest.raises(ConfigError, match="whole"):
        Config.from_env({"ASSISTANT_MESSAGES_PER_MINUTE": "0.5"})
