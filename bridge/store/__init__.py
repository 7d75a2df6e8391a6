"""Redis: key names, the scripts that write, reading the log, the pub/sub link, the embedded server."""
