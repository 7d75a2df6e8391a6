"""Who can be asked: the providers for which the environment has what they need, and a model to try."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from assistant.config import Config
from bridge.events import Chunk, End, Event
from bridge.sources.llm import Anthropic, FailoverChain, Gemini, Limits, Model, Ollama, OpenAI, Request

LIMITS: Final = Limits(first_token_seconds=30)


class Providers:
    """All that are configured, in the order in which they are asked. Made once per process, so that one that
    wants a pause gets it from all tasks.
    """

    def __init__(self, config: Config, env: Mapping[str, str] = os.environ) -> None:
        models = _configured(config.streaming_off, env)
        if config.demo_model:
            models.append(Demo())
        patience = float(env.get("PATIENCE_SECONDS", "30"))
        chains: dict[str | None, list[Model]] = {model.name: [model] for model in models}
        if models:
            chains[None] = models
        self._chains = {
            name: FailoverChain(chain, patience_seconds=patience) for name, chain in chains.items()
        }
        self.streaming = {model.name: model.name not in config.streaming_off for model in models}

    def knows(self, name: str | None) -> bool:
        """Whether that one can be asked; None stands for whoever answers first."""
        return name in self._chains

    def streams(self, name: str | None) -> bool:
        """Whether its answer may stream; of None, whether the first one's may."""
        return next(iter(self.streaming.values()), False) if name is None else self.streaming.get(name, False)

    def ask(self, name: str | None, request: Request) -> AsyncGenerator[Event, None]:
        """The answer. Raises KeyError for one that isn't known."""
        return self._chains[name].events(request)


def _configured(whole: Collection[str], env: Mapping[str, str]) -> list[Model]:
    """whole: who answers in one piece."""
    found: list[Model] = []
    if key := env.get("OPENAI_API_KEY"):
        base_url = env.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
        name = env.get("OPENAI_MODEL", "gpt-5-mini")
        found.append(
            OpenAI(name, api_key=key, base_url=base_url, limits=LIMITS, stream="openai" not in whole)
        )
    if key := env.get("ANTHROPIC_API_KEY"):
        base_url = env.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        name = env.get("ANTHROPIC_MODEL", "claude-haiku-4-5")
        found.append(
            Anthropic(name, api_key=key, base_url=base_url, limits=LIMITS, stream="anthropic" not in whole)
        )
    if key := env.get("GEMINI_API_KEY"):
        name = env.get("GEMINI_MODEL", "gemini-2.5-flash")
        found.append(Gemini(name, api_key=key, limits=LIMITS, stream="gemini" not in whole))
    # The one at home comes last, and only where somebody says that it is there.
    if base_url := env.get("OLLAMA_URL", ""):
        name = env.get("OLLAMA_MODEL", "llama3.2")
        found.append(Ollama(name, base_url=base_url, stream="ollama" not in whole))
    return found


@dataclass(frozen=True, slots=True)
class Demo:
    """A model that needs nobody: it says what it was asked, and something about itself, word by word.

    Any object with a name and such a generator can be asked; it ends with an `End`.
    """

    name: str = "demo"
    seconds: float = 0.06

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer."""
        asked = str(request.messages[-1]["content"])
        words = _DEMO.format(asked=asked, count=len(request.messages)).split(" ")
        for place, word in enumerate(words):
            await asyncio.sleep(self.seconds)
            yield Chunk(word if place == 0 else " " + word)
        usage = {"input_tokens": len(asked.split()), "output_tokens": len(words)}
        result = {"provider": self.name, "model": "demo", "finish_reason": "stop"}
        yield End("succeeded", result=result, usage=usage)


_DEMO: Final = """You said: {asked}

I am no language model, only a few lines of Python that stand for one. I was given the last {count} \
messages, and I write slowly, so that you can try what you would do with a real one: reload the page while I \
write, open it in a second window, change to polling, begin another conversation meanwhile, or stop me here. \
What I had written until then is kept. With OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or OLLAMA_URL \
set, somebody answers who knows more than I do."""
