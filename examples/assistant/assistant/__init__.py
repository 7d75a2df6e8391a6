"""A small chat application on the bridge: conversations in SQLite, answers by Celery workers, streamed."""
