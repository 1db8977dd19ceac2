"""The rows that a CreateContainer writes, inserted by bare asyncpg in one transaction under the same lock.

As the superuser, so without row-level security, into the product's own tables with all their indexes, foreign keys and
checks. Sixteen clients, each on a connection of its own. Five round trips: BEGIN; container, variables, port, history,
operation, work and idempotency row in one statement; the lock of the stream head; record, event and new head in one
statement; COMMIT, which is flushed to disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from itertools import count
from uuid import uuid4

import asyncpg

from benchmarks.child import answering

_ROWS = """
WITH operation AS (
    INSERT INTO operations (operation_id, user_id, method, resource_type, namespace_id, request_id)
    VALUES ($1, $2, '/pilothouse.container.v1.ContainerService/CreateContainer', 'container', $3, $4)
), made AS (
    INSERT INTO containers (name, namespace_id, image_id, kubernetes_name, cpu_request, cpu_limit, memory_request,
        memory_limit, labels, spec, quota_cpu_millicores, quota_memory_bytes, created_by, updated_by)
    VALUES ($5, $3, $6, $5, '100m', '500m', '128Mi', '256Mi', '{"app": "made"}', '{"image": "image-1:1.0"}', 100,
        134217728, $2, $2)
    RETURNING id
), environment AS (
    INSERT INTO environment_variables (container_id, namespace_id, position, name, value)
    SELECT id, $3, p.position, p.name, 'a value of some length'
    FROM made CROSS JOIN (VALUES (0, 'FIRST'), (1, 'SECOND')) AS p (position, name)
), port AS (
    INSERT INTO port_mappings (container_id, namespace_id, name, container_port, service_name, service_port)
    SELECT id, $3, 'http', 8080, $5, 8080 FROM made
), history AS (
    INSERT INTO container_status_history (container_id, namespace_id, current_status, triggered_by, user_id,
        operation_id)
    SELECT id, $3, 'pending', 'user', $2, $1 FROM made
), work AS (
    INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, namespace_id)
    SELECT 'container', id, 'measured', $3 FROM made
), key AS (
    INSERT INTO idempotency_keys (user_id, request_id, method, request_hmac, response, operation_id)
    VALUES ($2, $4, '/pilothouse.container.v1.ContainerService/CreateContainer', $7, $8, $1)
)
SELECT id FROM made
"""
_LOCK = "SELECT revision, audit_sequence FROM stream_head WHERE id = 1 FOR UPDATE"
_APPEND = """
WITH record AS (
    INSERT INTO operation_logs (operation_id, user_id, username, action, resource_type, resource_id, resource_name,
        namespace_id, request_method, request_path, request_body, request_headers, response_body, client_ip,
        user_agent, status_code, duration_ms, sequence, record_hash, chain_hash)
    VALUES ($1, $2, 'tenant', 'create', 'container', $3, $4, $5, 'UNARY',
        '/pilothouse.container.v1.ContainerService/CreateContainer', $6::jsonb, '{"user-agent": "bare"}', $6::jsonb,
        '127.0.0.1', 'bare', 200, 3, $7, $8, $8)
), event AS (
    INSERT INTO events (revision, resource_type, resource_id, namespace_id, resource_name, kind, message, labels,
        status, operation_id)
    VALUES ($9, 'container', $3, $5, $4, 'added', $10, '{"app": "made"}', 'pending', $1)
)
UPDATE stream_head SET revision = $9, audit_sequence = $7, audit_chain_hash = $8 WHERE id = 1
"""
# As long as the product's are: the record's bodies as text, the message and the stored answer as bytes.
_BODY = (
    '{"container": {"name": "made", "image": "image-1:1.0", "labels": {"app": "made"}}, "padding": "%s"}'
    % ("x" * 500)
)
_MESSAGE = b"m" * 400


class Inserts:
    """The inserts of this process."""

    def __init__(self) -> None:
        self._numbers = count()
        self._namespaces: list[int] = []
        self._image = 0
        self._user = 0
        self._connections: list[asyncpg.Connection] = []

    async def connect(self, dsn: str, clients: int, namespaces: list[str]) -> None:
        """Opens the connections of all clients."""
        self._connections = [await asyncpg.connect(dsn) for _ in range(clients)]
        first = self._connections[0]
        found = await first.fetch("SELECT id FROM namespaces WHERE name = ANY ($1)", namespaces)
        self._namespaces = [row["id"] for row in found]
        self._image = await first.fetchval("SELECT min(id) FROM container_images")
        self._user = await first.fetchval("SELECT min(id) FROM users")

    async def run(self, seconds: float) -> float:
        """Transactions committed a second."""
        committed = 0
        began = time.perf_counter()
        end = began + seconds

        async def one_client(connection: asyncpg.Connection) -> None:
            nonlocal committed
            while time.perf_counter() < end:
                await self._insert(connection)
                committed += 1

        await asyncio.gather(*(one_client(connection) for connection in self._connections))
        return committed / (time.perf_counter() - began)

    async def _insert(self, connection: asyncpg.Connection) -> None:
        number = next(self._numbers)
        name = f"bare-{number}"
        namespace = self._namespaces[number % len(self._namespaces)]
        operation, digest = uuid4(), hashlib.sha256(name.encode()).digest()
        async with connection.transaction():
            container = await connection.fetchval(
                _ROWS, operation, self._user, namespace, uuid4(), name, self._image, digest, _MESSAGE
            )
            head = await connection.fetchrow(_LOCK)
            await connection.execute(
                _APPEND,
                operation,
                self._user,
                container,
                name,
                namespace,
                _BODY,
                head["audit_sequence"] + 1,
                digest,
                head["revision"] + 1,
                _MESSAGE,
            )


def main() -> None:
    """The process."""
    inserts = Inserts()
    answering({"connect": inserts.connect, "run": inserts.run})


if __name__ == "__main__":
    main()
