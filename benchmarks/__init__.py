"""Measurements: one table of ratios, by one command (`make bench`, or `python -m benchmarks --help`).

A figure by itself says how fast the machine is. So every figure here is a ratio of the product to a baseline that runs
in the same run, on the same machine, in turns with it (`measure`). The baselines (`baselines/`) are what the same work
costs with the bare libraries; nothing of the product is in them but the message classes.

    rows/        one module a row of the table: what is measured, and against what
    baselines/   processes that stand where the product stands
    loads/       processes that put the load on; the same ones for the product and for its baseline
    world        a PostgreSQL server of the run's own, databases with rows in them, the product's processes

Whoever serves, whoever asks and the database are processes of their own, each on cores of its own where there are
enough (`machine`). Rows that are measured on few cores say so.
"""
