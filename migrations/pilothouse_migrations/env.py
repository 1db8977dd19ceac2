"""Alembic's entry point: run the migrations on the connection that `runner` prepared.

The connection comes with its role, time limits and advisory lock in place, and each migration gets a transaction
of its own. Without a connection there is nothing sensible to do, so calling Alembic directly fails.
"""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
if "connection" not in attributes:
    raise RuntimeError("migrations run through pilothouse_migrations.runner, as `pilothouse migrate` does")

context.configure(
    connection=attributes["connection"],
    transaction_per_migration=True,
    on_version_apply=attributes["on_version_apply"],
)
with context.begin_transaction():
    context.run_migrations()
