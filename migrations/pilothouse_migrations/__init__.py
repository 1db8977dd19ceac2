"""The database schema of Pilothouse as reversible Alembic migrations.

`baseline/` has the tables by noun, and `functions/` has one SQL function per file; later changes are modules in
`versions/`. They contain PostgreSQL's own language rather than SQLAlchemy operations: row-level security, partitions,
SECURITY DEFINER functions and NULLS NOT DISTINCT have no other spelling, and readers and linters see the same text as
the database. `runner` applies the migrations, `roles` creates the four database roles that they grant rights to, and
`versions_gate` refuses servers that cannot isolate tenants.
"""
