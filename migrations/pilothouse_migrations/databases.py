"""Creates the product's database, as an administrator, if it does not exist."""

from __future__ import annotations

import re

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError as DatabaseRefusedError

from pilothouse_migrations.roles import make_engine

__all__ = ["DatabaseRefusedError", "ensure_database"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


async def ensure_database(admin_dsn: str, name: str) -> bool:
    """Creates the database `name`, in UTF-8, unless it exists; returns whether it was created.

    `admin_dsn` connects to another database as a role with CREATEDB. Raises ValueError if the name contains anything
    other than lower-case letters, digits and underscores, because it is written into SQL unquoted.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"database name must match {_NAME.pattern}, got {name!r}")
    engine = make_engine(admin_dsn, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            found = await connection.execute(
                text("SELECT datname FROM pg_database WHERE datname = :name"), {"name": name}
            )
            if found.first() is not None:
                return False
            await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"))
            return True
    finally:
        await engine.dispose()
