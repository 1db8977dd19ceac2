"""The database schema of Pilothouse as reversible Alembic migrations.

Every change of the schema is one module in `versions/`. The modules hold PostgreSQL's own language rather
than SQLAlchemy operations, because most of what they say (row-level security, partitions, SECURITY DEFINER
functions, NULLS NOT DISTINCT) has no other spelling, and because a reader and a linter then see exactly what
the database sees. `runner` applies them, `roles` makes the four database roles they grant to, `versions_gate`
refuses servers that lack what isolation rests on.
"""
