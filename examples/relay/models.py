"""The models that are asked, in order: those for which the environment has what they need."""

from __future__ import annotations

import os

from bridge.sources.llm import Anthropic, FailoverChain, Gemini, Limits, Model, Ollama, OpenAI

LIMITS = Limits(first_token_seconds=30)


def models() -> FailoverChain:
    """Made once per process, so that a provider that wants a pause gets it from all tasks."""
    env = os.environ
    found: list[Model] = []
    if key := env.get("OPENAI_API_KEY"):
        base_url = env.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
        model = env.get("OPENAI_MODEL", "gpt-5-mini")
        found.append(OpenAI(model, api_key=key, base_url=base_url, limits=LIMITS))
    if key := env.get("ANTHROPIC_API_KEY"):
        base_url = env.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        model = env.get("ANTHROPIC_MODEL", "claude-haiku-4-5")
        found.append(Anthropic(model, api_key=key, base_url=base_url, limits=LIMITS))
    if key := env.get("GEMINI_API_KEY"):
        found.append(Gemini(env.get("GEMINI_MODEL", "gemini-2.5-flash"), api_key=key, limits=LIMITS))
    # The one at home comes last; it needs no key, but time to load a model.
    base_url = env.get("OLLAMA_URL", "http://127.0.0.1:11434")
    found.append(Ollama(env.get("OLLAMA_MODEL", "llama3.2"), base_url=base_url))
    return FailoverChain(found, patience_seconds=float(env.get("PATIENCE_SECONDS", "30")))
