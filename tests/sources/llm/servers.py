"""Providers that nobody here wrote: aimock (npm) and fakellm (PyPI), as processes on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bridge.sources.llm import Anthropic, Azure, Gemini, Ollama, OpenAI, Provider
from tests.processes import environ
from tests.servers import free_port
from tests.tools import require_tool
from tests.waiting import eventually

HOST = "127.0.0.1"
CHUNK_CHARACTERS = 3

TEXT = "Grüße aus Köln, und bis bald! 👋🏽"
STEADY = TEXT * 200
REASONING = "They want a greeting. 🤔"
CALL = {"name": "find", "arguments": {"q": "café", "n": [1, 2]}}


class Process:
    """A server that runs until it is killed, and where it is. Needs ``/proc`` to count its connections."""

    def __init__(self, command: Sequence[str], port: int, alive: str) -> None:
        self.url = f"http://{HOST}:{port}"
        self.port = port
        self._process = subprocess.Popen(
            command, env=environ(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        eventually(lambda: self._answers(alive), timeout=60)

    def _answers(self, path: str) -> bool:
        assert self._process.poll() is None, "the server didn't start"
        try:
            return httpx.get(self.url + path).status_code == 200
        except httpx.TransportError:
            return False

    def connections(self) -> int:
        """How many are open to it."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established = "01"
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] == established for row in rows)

    def kill(self) -> None:
        """End it at once, as a crash would. Does nothing the second time."""
        self._process.kill()
        self._process.wait(10)


def aimock_command(folder: Path, fixtures: Sequence[Mapping[str, Any]], port: int) -> list[str]:
    """What starts an aimock that answers by these fixtures, in chunks of a few characters."""
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}))
    options = ["-p", str(port), "-f", str(file), "-c", str(CHUNK_CHARACTERS), "--log-level", "silent"]
    return [str(require_tool("node")), str(require_tool("aimock")), *options]


@contextmanager
def aimock(folder: Path, fixtures: Sequence[Mapping[str, Any]]) -> Iterator[Process]:
    """A running aimock."""
    port = free_port()
    process = Process(aimock_command(folder, fixtures, port), port, "/health")
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def fakellm(folder: Path, rules: Sequence[Mapping[str, Any]]) -> Iterator[Process]:
    """A running fakellm that answers by these rules."""
    file = folder / "fakellm.yaml"
    file.write_text(json.dumps({"version": 1, "rules": list(rules)}))  # JSON is YAML
    port = free_port()
    options = ["serve", "--port", str(port), "--config", str(file)]
    process = Process([sys.executable, "-m", "fakellm.cli", *options], port, "/_fakellm/stats")
    try:
        yield process
    finally:
        process.kill()


def fixture(word: str, response: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """What aimock answers to a message that holds this word."""
    return {"match": {"userMessage": word}, "response": response, **options}


FIXTURES = [
    fixture("greet", {"content": TEXT}),
    fixture("think", {"content": TEXT, "reasoning": REASONING}),
    fixture("call", {"content": "Let me see.", "toolCalls": [CALL, {**CALL, "name": "again"}]}),
    fixture("long", {"content": TEXT, "finishReason": "length"}),
    fixture("filter", {"content": "", "finishReason": "content_filter"}),
    fixture("count", {"content": TEXT, "usage": {
        "prompt_tokens": 8, "completion_tokens": 5, "input_tokens": 8, "output_tokens": 5,
        "promptTokenCount": 8, "candidatesTokenCount": 5}}),
    # Without a pause the connection would be reset before what was sent on it is read.
    fixture("truncate", {"content": TEXT}, latency=10, truncateAfterChunks=8),
    fixture("disconnect", {"content": TEXT * 20}, latency=10, disconnectAfterMs=500),
    fixture("slow start", {"content": TEXT}, streamingProfile={"ttft": 60_000, "tps": 1000}),
    fixture("slow middle", {"content": TEXT}, streamingProfile={"ttft": 1, "tps": 0.1}),
    # A test that is to leave it in its middle has some twenty seconds for that.
    fixture("steady", {"content": STEADY}, latency=10),
    fixture("limit", {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429,
                      "retryAfter": 7}),
    fixture("key", {"error": {"message": "bad key", "type": "authentication_error"}, "status": 401}),
    fixture("full", {"error": {"message": "full", "type": "overloaded_error"}, "status": 529}),
    fixture("wrong", {"error": {"message": "too long", "type": "invalid_request_error"}, "status": 400}),
    fixture("drop", {"content": TEXT}, chaos={"dropRate": 1}),
    fixture("malformed", {"content": TEXT}, chaos={"malformedRate": 1}),
    fixture("vanish", {"content": TEXT}, chaos={"disconnectRate": 1}),
]  # fmt: skip


def providers(url: str, **options: Any) -> dict[str, Provider]:
    """All formats, as one aimock speaks them."""
    return {
        "openai": OpenAI("gpt-5", base_url=f"{url}/v1", api_key="sk-x", **options),
        "azure": Azure("gpt-5", base_url=url, api_key="sk-x", **options),
        "anthropic": Anthropic("claude-sonnet-4-5", base_url=url, api_key="sk-x", **options),
        "ollama": Ollama("llama3.2", base_url=url, **options),
        "gemini": Gemini("gemini-2.5-flash", base_url=f"{url}/v1beta", api_key="sk-x", **options),
    }
