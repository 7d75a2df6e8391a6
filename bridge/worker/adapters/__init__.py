"""Task queues: one file each, which imports the library that it is for. Their users read `docs/queues.md`."""
