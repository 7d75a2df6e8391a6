"""Streaming for background tasks: a worker reports, Redis carries, a gateway streams, polls stay true."""

__version__ = "0.1.0"
