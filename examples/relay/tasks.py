"""The same inside a Celery task, whose id is the task's id on the bridge."""

from __future__ import annotations

import os

from celery import Celery
from models import models

import bridge
from bridge.sources.llm import Request
from bridge.sources.relay import relay_sync
from bridge.worker.adapters.celery import install

BROKER = os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1")

app = Celery("relay", broker=BROKER, backend=BROKER)
install(app)
MODELS = models()


class ModelFailed(Exception):
    """No model gave a whole answer. Its text is a sentence that may be shown."""


@app.task
def answer(messages: list[dict[str, str]]) -> str:
    """What Celery keeps is what old clients poll; whoever watches the bridge sees it grow."""
    outcome = relay_sync(bridge.current_task(), MODELS.events(Request(messages)))
    if outcome.error:
        raise ModelFailed(outcome.error["message"])
    return outcome.text
