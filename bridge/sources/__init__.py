"""What produces a task's events. A source is an async generator of events and knows nothing of Redis.

A source that is done ends with an `End`, whose state, error and result say how the work went. Closing a
source early (`contextlib.aclosing`), or cancelling the task that reads it, ends the work behind it.

`polling` is another kind: it is asked what to add to a log, since what an app says is always the whole.
"""
