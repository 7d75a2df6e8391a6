"""The same inside a Celery task, whose id is the task's id on the bridge."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from models import models

import bridge
from bridge.sources.llm import Request
from bridge.sources.relay import relay_sync

BROKER = os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1")

app = Celery("relay", broker=BROKER, backend=BROKER)
MODELS = models()


@app.task(bind=True)
def answer(self: Any, messages: list[dict[str, str]]) -> dict[str, Any]:
    """What Celery keeps is what old clients poll; whoever watches the bridge sees it grow."""
    with bridge.task(self.request.id) as task:
        outcome = relay_sync(task, MODELS.events(Request(messages)))
    return {"state": outcome.state, "text": outcome.text, "error": outcome.error}
