"""The rows that an UpdateContainer writes, with bare asyncpg in one transaction; otherwise like `baselines.inserts`.

A transaction takes four round trips: BEGIN; container, operation, history, work, message and idempotency row in one
statement; record and event in one statement, numbered by this process; COMMIT. Each client changes containers of its
own namespace.
"""

from __future__ import annotations

import hashlib
from itertools import count, cycle
from uuid import uuid4

import asyncpg

from benchmarks.baselines.inserts import APPEND_UNLOCKED, BODY, MESSAGE, Inserts
from benchmarks.child import answering

_ROWS = """
WITH operation AS (
    INSERT INTO operations (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
    VALUES ($1, $2, '/pilothouse.container.v1.ContainerService/UpdateContainer', 'container', $4, $3, $5)
), changed AS (
    UPDATE containers SET labels = $6::jsonb, generation = generation + 1, resource_version = resource_version + 1,
        row_version = row_version + 1, updated_at = now(), updated_by = $2
    WHERE id = $4
), history AS (
    INSERT INTO container_status_history (container_id, namespace_id, previous_status, current_status, triggered_by,
        user_id, operation_id)
    VALUES ($4, $3, 'running', 'running', 'user', $2, $1)
), work AS (
    INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, namespace_id)
    VALUES ('container', $4, 'measured', $3)
    ON CONFLICT (resource_type, resource_id) DO UPDATE SET attempts = 0, updated_at = now()
), rendered AS (
    UPDATE rendered_messages SET row_version = row_version + 1, message = $8
    WHERE resource_type = 'container' AND resource_id = $4
)
INSERT INTO idempotency_keys (user_id, request_id, method, request_hmac, response, operation_id)
VALUES ($2, $5, '/pilothouse.container.v1.ContainerService/UpdateContainer', $7, $8, $1)
"""


class Updates(Inserts):
    """The updates of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._changes = count()
        self._containers: dict[int, cycle[int]] = {}

    async def own(self, each: int) -> None:
        """Finds `each` containers of each namespace; the connections must be open."""
        for namespace in self._namespaces:
            rows = await self._connections[0].fetch(
                "SELECT id FROM containers WHERE namespace_id = $1 ORDER BY id LIMIT $2", namespace, each
            )
            self._containers[namespace] = cycle([row["id"] for row in rows])

    async def _insert(self, namespace: int, connection: asyncpg.Connection) -> None:
        container, number = next(self._containers[namespace]), next(self._changes)
        operation, digest = uuid4(), hashlib.sha256(f"{number}".encode()).digest()
        labels = f'{{"app": "web", "number": "{number}"}}'
        async with connection.transaction():
            await connection.execute(
                _ROWS, operation, self._user, namespace, container, uuid4(), labels, digest, MESSAGE
            )
            await connection.execute(
                APPEND_UNLOCKED,
                operation,
                self._user,
                container,
                f"web-{container}",
                namespace,
                BODY,
                next(self._sequences),
                digest,
                next(self._revisions),
                MESSAGE,
            )


def main() -> None:
    """Runs the process."""
    updates = Updates()
    answering({"connect": updates.connect, "own": updates.own, "run": updates.run})


if __name__ == "__main__":
    main()
