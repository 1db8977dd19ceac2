"""Lower costs for the servers of the tests: cheaper hashes, and fewer partitions made ahead.

The tests start a thousand servers, in their own process (`tests.conftest`) and forked (`tests.main_job.loaded`). A
server that is started as users start it has the production values.

**Hashes of passwords** have the lowest possible cost. **Partitions** are made for one month and one day ahead, as
many as the template has: those of a year and a fortnight are half of all relations of a database, and each copy and
each new session pays for them. A forked server on such a copy took half a second of CPU time to make them.
"""

from __future__ import annotations

from collections.abc import Callable

from pilothouse_server.identity.credentials import passwords
from pilothouse_server.store import partitions

PROMISED_HASHES = {name: getattr(passwords, name) for name in ("MEMORY_KIBIBYTES", "PASSES")}
PROMISED_AHEAD = partitions.AHEAD


def reduce(assign: Callable[[object, str, object], None] = setattr) -> None:
    """Lowers the costs of the servers that this process starts from now on."""
    assign(passwords, "MEMORY_KIBIBYTES", 8)
    assign(passwords, "PASSES", 1)
    assign(partitions, "AHEAD", {**PROMISED_AHEAD, "month": 1, "day": 1})
