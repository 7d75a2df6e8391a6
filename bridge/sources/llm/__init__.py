"""Answers of language models as sources: text, reasoning, calls of tools, usage, and how it ended.

    chain = FailoverChain([OpenAI("gpt-5", api_key=…), Anthropic("claude-sonnet-4-5", api_key=…)])

    async with bridge.task(job_id) as task:
        await relay(task, chain.events(Request(messages)))

`request` says what is asked, `openai`, `anthropic`, `ollama` and `gemini` know the formats and do no I/O,
`answer` is what these share, `errors` what can go wrong, `http` sends, `providers` puts it together, `chain`
asks several.
"""

from bridge.sources.llm.chain import FailoverChain, Model, Whole
from bridge.sources.llm.http import Limits
from bridge.sources.llm.providers import Anthropic, Azure, Gemini, Ollama, OpenAI, Provider
from bridge.sources.llm.request import Request

__all__ = [
    "Anthropic",
    "Azure",
    "FailoverChain",
    "Gemini",
    "Limits",
    "Model",
    "Ollama",
    "OpenAI",
    "Provider",
    "Request",
    "Whole",
]
