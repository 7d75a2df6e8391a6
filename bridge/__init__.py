"""Streaming for background tasks: a worker reports, Redis carries, a gateway streams, polls stay true."""

from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.tickets import ticket
from bridge.worker.create import create_task, create_task_async
from bridge.worker.hook import report_progress
from bridge.worker.process import configure
from bridge.worker.task import Task, current_task, task

__all__ = [
    "BridgeError",
    "Settings",
    "Task",
    "__version__",
    "configure",
    "create_task",
    "create_task_async",
    "current_task",
    "report_progress",
    "task",
    "ticket",
]

__version__ = "0.1.0"
