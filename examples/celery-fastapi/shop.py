"""A Celery task, the FastAPI app that schedules it and that old clients poll, and a page that streams it."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from bridge import report_progress
from bridge.gateway.app import create_app
from bridge.worker.adapters.celery import install

BROKER = os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/1")

celery = Celery("shop", broker=BROKER, backend=BROKER)
install(celery)
gateway = create_app()  # or run `bridge serve` beside the app
app = FastAPI(lifespan=lambda _: gateway.lifespan())
app.mount("/bridge", gateway)


@celery.task
def answer(question: str) -> str:
    """Stands for whatever takes its time and has something to say meanwhile."""
    words = []
    for word in f"You asked: {question} That is a good question, and this is a long answer.".split():
        time.sleep(0.1)
        words.append(word)
        if not report_progress(word + " "):
            break  # somebody cancelled
    return " ".join(words)


@app.post("/ask")
def ask(question: str) -> dict[str, str]:
    """Schedules it, as ever."""
    return {"task_id": answer.delay(question).id}


@app.get("/status/{task_id}")
def status(task_id: str) -> dict[str, Any]:
    """As it was before the bridge."""
    result = celery.AsyncResult(task_id)
    return {"task_status": result.state, "task_result": result.result if result.successful() else None}


@app.get("/")
def page() -> HTMLResponse:
    """Asks one question, and shows its answer grow."""
    return HTMLResponse("""<!doctype html><meta charset="utf-8"><title>Ask</title><p id="text"></p>
<script type="module">
    import { follow } from "/bridge/bridge.js";
    const asked = await (await fetch("/ask?question=Why%3F", { method: "POST" })).json();
    follow(asked.task_id, { onView: (view) => { document.all.text.textContent = view.text; } });
</script>""")
