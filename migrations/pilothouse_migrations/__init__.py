"""The database schema of Pilothouse as reversible Alembic migrations.

`baseline/` has the tables by noun and `functions/` one SQL function a file; later changes are modules in `versions/`.
They hold PostgreSQL's own language rather than SQLAlchemy operations, because row-level security, partitions, SECURITY
DEFINER functions and NULLS NOT DISTINCT have no other spelling, and because a reader and a linter then see the same
text as the database. `runner` applies them, `roles` makes the four database roles they grant to, `versions_gate`
refuses servers that cannot isolate tenants.
"""
