"""providers: who can be asked in which environment, and the model that needs nobody."""

from __future__ import annotations

import pytest
from assistant.config import Config
from assistant.providers import Demo, Providers

from bridge.events import Chunk, End
from bridge.sources.llm import Request

KEYS = {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b", "GEMINI_API_KEY": "c", "OLLAMA_URL": "http://here"}


def test_nobody() -> None:
    """Without a key nobody can be asked: the demonstration is only for who wants it."""
    providers = Providers(Config(), {})
    assert providers.streaming == {}
    assert not providers.knows(None)
    assert not providers.knows("demo")
    assert not providers.streams(None)


def test_those_with_what_they_need() -> None:
    """They are in the order in which they are asked, and each streams unless it is switched off."""
    config = Config(streaming_off=frozenset(("gemini",)), demo_model=True)
    providers = Providers(config, KEYS)
    assert list(providers.streaming) == ["openai", "anthropic", "gemini", "ollama", "demo"]
    assert [name for name, streaming in providers.streaming.items() if not streaming] == ["gemini"]
    assert providers.knows(None)
    assert providers.knows("ollama")
    assert not providers.knows("azure")
    assert providers.streams(None)
    assert not providers.streams("gemini")


@pytest.mark.parametrize("name", [*KEYS])
def test_each_by_itself(name: str) -> None:
    """One variable is enough for its provider, and for no other."""
    providers = Providers(Config(), {name: KEYS[name]})
    assert list(providers.streaming) == [name.partition("_")[0].lower()]


async def test_the_demonstration() -> None:
    """It says what it was asked, in many pieces, and how it ended."""
    request = Request([{"role": "user", "content": "Why {?"}])
    *pieces, end = [event async for event in Demo(seconds=0).events(request)]
    assert len(pieces) > 50
    assert all(isinstance(piece, Chunk) for piece in pieces)
    text = "".join(piece.text for piece in pieces if isinstance(piece, Chunk))
    assert text.startswith("You said: Why {?\n")
    assert isinstance(end, End)
    assert end.state == "succeeded"
    assert end.usage == {"input_tokens": 2, "output_tokens": len(pieces)}
