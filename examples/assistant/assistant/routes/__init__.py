"""The HTTP surface, a file per noun."""
