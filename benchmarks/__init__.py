"""Measures what users feel, side by side with others, in one run: ``python -m benchmarks`` or ``make bench``.

    machine, cores, processes   where it runs: processors, versions, pinned processes, their CPU and memory
    tokens, wire, streams       what is sent, what arrives, and whether it is the same. Pure
    crowd, polls                the load generators: many streams, many polls. Each is a process of its own
    writer                      the worker: another process, which reports tokens at a pace
    senders, apps               who is measured: the bridge, and its peers
    stage, measuring            how they are put together
    shapes/                     what is measured, one file per row of the table
    report, plot                what is written down

Every byte goes the public way: in by the worker's hook, out by SSE or `/status`. The crowd compares the text
of every viewer with what was reported, because a fast wrong answer is a failure.
"""
