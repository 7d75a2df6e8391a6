"""The tests mirror `bridge/`; `tests/story/` is the tutorial and is read first."""
