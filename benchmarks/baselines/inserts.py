"""The rows that a CreateContainer writes, inserted with bare asyncpg in one transaction, with or without the lock.

The baseline connects as the superuser, so without row-level security. Its tables are like the product's, with all
indexes, foreign keys and checks, but without triggers. There are sixteen clients, each with its own connection and
namespace. A transaction takes five round trips: BEGIN; container, variables, port, history, operation, work, message,
quota and idempotency row in one statement; the lock of the stream head; record, event and new head in one statement;
COMMIT, which is flushed to disk. Without the lock there are four round trips, the head is not updated, and this
process assigns the numbers.
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
), rendered AS (
    INSERT INTO rendered_messages (resource_type, resource_id, namespace_id, row_version, format, message)
    SELECT 'container', id, $3, 1, 1, $8 FROM made
), counted AS (
    INSERT INTO quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
    VALUES ($3, 1, 100, 134217728)
), key AS (
    INSERT INTO idempotency_keys (user_id, request_id, method, request_hmac, response, operation_id)
    VALUES ($2, $4, '/pilothouse.container.v1.ContainerService/CreateContainer', $7, $8, $1)
)
SELECT id FROM made
"""
_LOCK = "SELECT revision, audit_sequence FROM stream_head WHERE id = 1 FOR UPDATE"
_NUMBERED = """
WITH record AS (
    INSERT INTO operation_logs (operation_id, user_id, username, action, resource_type, resource_id, resource_name,
        namespace_id, request_method, request_path, request_body, request_headers, response_body, client_ip,
        user_agent, status_code, duration_ms, sequence, record_hash, mark)
    VALUES ($1, $2, 'tenant', 'create', 'container', $3, $4, $5, 'UNARY',
        '/pilothouse.container.v1.ContainerService/CreateContainer', $6::jsonb, '{"user-agent": "bare"}', $6::jsonb,
        '127.0.0.1', 'bare', 200, 3, $7, $8, int8send($7))
), event AS (
    INSERT INTO events (revision, resource_type, resource_id, namespace_id, resource_name, kind, message, labels,
        status, operation_id, pending_id, mark)
    VALUES ($9, 'container', $3, $5, $4, 'added', $10, '{"app": "made"}', 'pending', $1, $9, '\\x0102030405060708')
)
"""
_APPEND = f"""{_NUMBERED}
UPDATE stream_head SET revision = $9, audit_sequence = $7, record_mark = int8send($7) WHERE id = 1
"""
APPEND_UNLOCKED = f"{_NUMBERED} SELECT"
_TRIGGERS = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal GROUP BY 1"
# As long as the product's: the record's bodies as text, the message and the stored response as bytes.
BODY = (
    '{"container": {"name": "made", "image": "image-1:1.0", "labels": {"app": "made"}}, "padding": "%s"}'
    % ("x" * 500)
)
MESSAGE = b"m" * 400


class Inserts:
    """The inserts of this process."""

    def __init__(self) -> None:
        self._numbers = count()
        self._revisions = count(1)
        self._sequences = count(1)
        self._locked = True
        self._namespaces: list[int] = []
        self._image = 0
        self._user = 0
        self._connections: list[asyncpg.Connection] = []

    async def connect(self, dsn: str, clients: int, namespaces: list[str], locked: bool) -> None:
        """Opens the connections of all clients, and disables the triggers of the tables."""
        self._locked = locked
        self._connections = [await asyncpg.connect(dsn) for _ in range(clients)]
        first = self._connections[0]
        for row in await first.fetch(_TRIGGERS):
            await first.execute(f"ALTER TABLE {row[0]} DISABLE TRIGGER USER")
        found = await first.fetch("SELECT id FROM namespaces WHERE name = ANY ($1) ORDER BY id", namespaces)
        self._namespaces = [row["id"] for row in found]
        self._image = await first.fetchval("SELECT min(id) FROM container_images")
        self._user = await first.fetchval("SELECT min(id) FROM users")
        head = await first.fetchrow("SELECT revision, audit_sequence FROM stream_head WHERE id = 1")
        self._revisions, self._sequences = count(head["revision"] + 1), count(head["audit_sequence"] + 1)

    async def run(self, seconds: float) -> dict[str, float]:
        """Returns the transactions committed per second, and in total."""
        committed = 0
        began = time.perf_counter()
        end = began + seconds

        async def one_client(number: int, connection: asyncpg.Connection) -> None:
            nonlocal committed
            while time.perf_counter() < end:
                await self._insert(self._namespaces[number % len(self._namespaces)], connection)
                committed += 1

        await asyncio.gather(*(one_client(number, each) for number, each in enumerate(self._connections)))
        return {"rate": committed / (time.perf_counter() - began), "calls": committed}

    async def _insert(self, namespace: int, connection: asyncpg.Connection) -> None:
        name = f"bare-{next(self._numbers)}"
        operation, digest = uuid4(), hashlib.sha256(name.encode()).digest()
        async with connection.transaction():
            container = await connection.fetchval(
                _ROWS, operation, self._user, namespace, uuid4(), name, self._image, digest, MESSAGE
            )
            if self._locked:
                head = await connection.fetchrow(_LOCK)
                sequence, revision = head["audit_sequence"] + 1, head["revision"] + 1
            else:
                sequence, revision = next(self._sequences), next(self._revisions)
            await connection.execute(
                _APPEND if self._locked else APPEND_UNLOCKED,
                operation,
                self._user,
                container,
                name,
                namespace,
                BODY,
                sequence,
                digest,
                revision,
                MESSAGE,
            )


def main() -> None:
    """Runs the process."""
    inserts = Inserts()
    answering({"connect": inserts.connect, "run": inserts.run})


if __name__ == "__main__":
    main()
