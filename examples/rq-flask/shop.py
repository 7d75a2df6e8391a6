"""An RQ job, the Flask app that enqueues it and that old clients poll, and a page that streams it."""

from __future__ import annotations

import os
import time

import flask
import redis

from bridge import report_progress
from bridge.worker.adapters.rq import Job, Queue

connection = redis.Redis.from_url(os.environ.get("RQ_REDIS_URL", "redis://127.0.0.1:6379/1"))
queue = Queue(connection=connection)  # rq's, but that it announces what it enqueues
app = flask.Flask(__name__)
BRIDGE = os.environ.get("BRIDGE_GATEWAY_URL", "http://127.0.0.1:8620")


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
def ask() -> dict[str, str]:
    """Enqueues it, as ever."""
    return {"job_id": queue.enqueue("shop.answer", flask.request.values["question"]).id}


@app.get("/status/<job_id>")
def status(job_id: str) -> dict[str, str | None]:
    """As it was before the bridge."""
    job = Job.fetch(job_id, connection=connection)
    return {"status": job.get_status(), "result": job.return_value()}


@app.get("/")
def page() -> str:
    """Asks one question, and shows its answer grow."""
    return """<!doctype html><meta charset="utf-8"><title>Ask</title><p id="text"></p>
<script type="module">
    import { follow } from "BRIDGE/bridge.js";
    const asked = await (await fetch("/ask?question=Why%3F", { method: "POST" })).json();
    follow(asked.job_id, { onView: (view) => { document.all.text.textContent = view.text; } });
</script>""".replace("BRIDGE", BRIDGE)
