"""An app as it was before the bridge: it runs jobs in the background, and its clients poll. Nothing in it is
new.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import Any

from flask import Flask, Response, jsonify

app = Flask(__name__)
jobs: dict[str, dict[str, Any]] = {}
ANSWER = "Nobody changed a line of this app, and yet its answers can be watched as they grow."
PAUSE = float(os.environ.get("PAUSE_SECONDS", "0.3"))


def work(job: dict[str, Any]) -> None:
    """What takes so long that it is done in the background."""
    job["status"] = "running"
    words = ANSWER.split()
    for number in range(1, len(words) + 1):
        time.sleep(PAUSE)
        if job["status"] == "cancelled":
            return
        job["text"] = " ".join(words[:number])
        job["progress"] = number / len(words)
    job["status"] = "done"


@app.post("/api/jobs")
def create() -> tuple[Response, int]:
    """Start a job."""
    name = uuid.uuid4().hex
    jobs[name] = {"id": name, "status": "pending", "progress": 0.0, "text": ""}
    threading.Thread(target=work, args=(jobs[name],), daemon=True).start()
    return jsonify(jobs[name]), 202


@app.get("/api/jobs/<name>")
def status(name: str) -> tuple[Response, int]:
    """What the clients poll every two seconds."""
    return (jsonify(jobs[name]), 200) if name in jobs else (jsonify(error="There is no such job."), 404)


@app.post("/api/jobs/<name>/stop")
def stop(name: str) -> tuple[Response, int]:
    """Stop a job."""
    if name not in jobs:
        return jsonify(error="There is no such job."), 404
    jobs[name]["status"] = "cancelled"
    return jsonify(jobs[name]), 202


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
