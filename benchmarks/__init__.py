"""Measurements: one table of ratios, from one command (`make bench`, or `python -m benchmarks --help`).

A figure by itself measures the machine. So every figure here is a ratio of the product to a baseline that runs in the
same run, on the same machine, in alternation with it (`measure`). The baselines (`baselines/`) do the same work with
the bare libraries; they use nothing of the product but the message classes.

    rows/        one module for each row of the table: the measurement, and its baseline
    baselines/   processes that take the place of the product
    loads/       processes that generate the load; the same for the product and for its baseline
    world        the run's own PostgreSQL server, databases with rows in them, the product's processes

The server, the load and the database are separate processes, each on its own cores if there are enough (`machine`).
Rows that are measured on few cores report it.
"""
