"""What is measured: one file per row of the table in docs/performance.md, in its order."""
