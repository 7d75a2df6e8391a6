"""The gateway: one process that reads each task's log once and shows it to everybody who asks."""
