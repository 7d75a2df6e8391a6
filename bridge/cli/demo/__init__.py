"""`bridge demo`: all parts on one machine, with tasks to start, to stop, to disconnect from and to kill.

- `command` is the command itself: it starts everything and prints what to try.
- `kinds` are the tasks that a page may start, `worker` is the process that works on one, `works` the work.
- `workers` starts those processes, sees them end, and retries what was lost: the part of a task queue.
- `routes` is what the page asks for, below ``demo/``.
- `measure` is a program that knows nothing of the bridge, for `bridge run` and its like to run.
"""
