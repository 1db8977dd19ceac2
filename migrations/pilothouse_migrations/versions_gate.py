"""The PostgreSQL servers that are accepted, and why others are not.

Isolation of tenants depends on the database: on `security_invoker` views (PostgreSQL 15) and on two fixes. Without
them, planner statistics show rows that row-level security hides (CVE-2025-8713), and a policy may be evaluated for
another role than the one that runs the statement (CVE-2024-10976). A server without them is refused at start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

# Sends a statement without parameters and returns its rows.
Asks = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]

OLDEST_MAJOR = 15
NEWEST_MAJOR = 18
# Oldest accepted minor release of each major; a major that is not listed shipped with the fixes.
OLDEST_MINOR = {15: 14, 16: 10, 17: 6}


class UnsupportedServerError(Exception):
    """The database server is unsupported; the message gives the reason and the next step."""


def refusal(server_version_number: int) -> str | None:
    """Returns why a server is refused, or None if it is accepted.

    `server_version_number` is PostgreSQL's `server_version_num`: 150014 is 15.14, 90624 is 9.6.24.
    """
    if server_version_number < 100000:
        major, minor = server_version_number // 10000, server_version_number // 100 % 100
    else:
        major, minor = divmod(server_version_number, 10000)
    found = f"PostgreSQL {major}.{minor}"
    if major < OLDEST_MAJOR:
        return (
            f"{found} is refused: isolation of tenants needs security_invoker views, which came with PostgreSQL "
            f"{OLDEST_MAJOR}; versions up to 14 have reached their end of life. Upgrade to PostgreSQL {NEWEST_MAJOR}."
        )
    if major > NEWEST_MAJOR:
        return f"{found} is refused: this release is tested with PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR} only."
    oldest = OLDEST_MINOR.get(major)
    if oldest is not None and minor < oldest:
        return (
            f"{found} is refused: it can show rows that row-level security hides (CVE-2025-8713, CVE-2024-10976). "
            f"Upgrade to PostgreSQL {major}.{oldest} or newer."
        )
    return None


async def check_server_version(database: Asks) -> None:
    """Raises UnsupportedServerError unless `database` uses UTF-8 and its server is accepted."""
    (row,) = await database(
        "SELECT current_setting('server_version_num')::integer AS version,"
        " current_setting('server_encoding') AS encoding"
    )
    reason = refusal(row["version"])
    if reason is None and row["encoding"] != "UTF8":
        reason = f"the database's encoding is {row['encoding']}; create it with ENCODING 'UTF8'."
    if reason is not None:
        raise UnsupportedServerError(reason)
