"""Rows for the measured databases, written with SQL: tenants, containers, records, usage.

The rows are the ones that the product would have written, in all respects that the measured statements depend on. The
superuser writes them, so that row-level security does not slow the writes down.

The cluster of these rows does not exist, so two mechanisms keep the reconciler out of measurements of calls. A
trigger on `reconcile_work` makes sure that work is written as usual but never becomes due. And another server seems
to hold the lease for watching the cluster: otherwise this server would find the cluster unreachable, and mark each of
its containers stale, with an event. A server that tries to take that lease finds it renewed, because a holder that
does not renew counts as dead.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

CLUSTER = "measured"
# Containers are spread over this number of namespaces; calls use the first of them, one for each caller.
NAMESPACES = 100
ACTIVE_NAMESPACES = 16
# The namespaces of row 3.
WRITTEN_NAMESPACES = 64
# An empty namespace, for watches.
WATCHED = "watched"

_TENANTS = f"""
INSERT INTO clusters (name, api_server, status) VALUES ('{CLUSTER}', 'http://127.0.0.1:1', 'healthy');
INSERT INTO namespaces (name, kubernetes_name, cluster_name, phase, resource_quota)
SELECT name, name, '{CLUSTER}', 'Active', quota
FROM (SELECT format('tenant-%s', i) AS name, '{{"containers": 10000000}}'::jsonb AS quota
      FROM generate_series(0, {NAMESPACES - 1}) AS i
      UNION ALL SELECT '{WATCHED}', NULL) AS wanted;
INSERT INTO container_images (name, tag) SELECT 'image-' || i, '1.0' FROM generate_series(0, 19) AS i;

INSERT INTO leases (name, owner, epoch, expires_at) VALUES
    ('observe/{CLUSTER}', 'another', 1, clock_timestamp() + interval '30 seconds');
CREATE FUNCTION held_by_another() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN
        UPDATE leases SET expires_at = clock_timestamp() + interval '30 seconds' WHERE name = NEW.name;
        RETURN NULL;
    END $$;
CREATE TRIGGER held_by_another BEFORE INSERT ON leases FOR EACH ROW WHEN (NEW.name = 'observe/{CLUSTER}')
    EXECUTE FUNCTION held_by_another();
CREATE FUNCTION never_due() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN NEW.due_at := 'infinity'; RETURN NEW; END $$;
CREATE TRIGGER never_due BEFORE INSERT OR UPDATE ON reconcile_work FOR EACH ROW EXECUTE FUNCTION never_due();
"""
_CONTAINERS = """
INSERT INTO containers (name, namespace_id, image_id, kubernetes_name, deployment_name, status, phase, ready_replicas,
    observed_replicas, cpu_request, cpu_limit, memory_request, memory_limit, pod_ip, started_at, labels, spec,
    quota_cpu_millicores, quota_memory_bytes, observed_generation)
SELECT 'web-' || i, n.id, m.id, 'web-' || i, 'web-' || i, 'running', 'Running', 1, 1, '100m', '500m', '128Mi', '256Mi',
       '10.0.' || i / 250 % 250 || '.' || i % 250, now(), jsonb_build_object('app', 'web', 'number', i::text),
       jsonb_build_object('image', m.name || ':1.0'), 100, 128 * 1048576, 1
FROM generate_series(0, $1::integer - 1) AS i
JOIN namespaces AS n ON n.name = format('tenant-%s', i % $2::integer)
JOIN container_images AS m ON m.name = 'image-' || i % 20
"""
_ENVIRONMENT = """
INSERT INTO environment_variables (container_id, namespace_id, position, name, value)
SELECT c.id, c.namespace_id, p.position, p.name, 'a value of some length'
FROM containers AS c CROSS JOIN (VALUES (0, 'FIRST'), (1, 'SECOND')) AS p (position, name)
"""
_PORTS = """
INSERT INTO port_mappings (container_id, namespace_id, name, container_port, service_name, service_port)
SELECT id, namespace_id, 'http', 8080, name, 80 FROM containers
"""


async def tenants(connection: asyncpg.Connection) -> None:
    """Creates an unreachable cluster, namespaces with a quota, and images."""
    await connection.execute(_TENANTS)


async def containers(connection: asyncpg.Connection, count: int) -> None:
    """Creates containers, spread evenly over the namespaces, each with two variables and a port.

    The first `NAMESPACES` containers are web-0 in tenant-0, web-1 in tenant-1 and so on.
    """
    await connection.execute(_CONTAINERS, count, NAMESPACES)
    await connection.execute(_ENVIRONMENT)
    await connection.execute(_PORTS)


# The tables that are filled here, and a column of each.
_FILLED = {
    "clusters": "name",
    "namespaces": "name",
    "container_images": "name",
    "containers": "name",
    "environment_variables": "name",
    "port_mappings": "name",
}
# The tables that the product fills in addition.
RENDERED = {"rendered_messages": "format"}
UNRENDERED = """
SELECT count(*) FROM containers AS c WHERE NOT EXISTS (
    SELECT FROM rendered_messages AS m
    WHERE m.resource_type = 'container' AND m.resource_id = c.id AND m.row_version = c.row_version)
"""


async def used(connection: asyncpg.Connection, tables: Mapping[str, str] = _FILLED) -> None:
    """Updates every row of these tables once and vacuums, as in a database that has been used.

    New rows look better than they should: an index visits them in the order of the table. A join that was not needed
    took 70 µs on new rows and 1,100 µs on these.
    """
    for table, column in tables.items():
        await connection.execute(f"UPDATE {table} SET {column} = {column}")
    await connection.execute("VACUUM (ANALYZE)")


async def analyze(connection: asyncpg.Connection, *tables: str) -> None:
    """Vacuums and analyzes tables, as autovacuum would have done before anyone reads them."""
    for table in tables:
        await connection.execute(f"VACUUM (ANALYZE) {table}")


_RECORDS = """
INSERT INTO operation_logs (user_id, username, action, resource_type, resource_id, resource_name, namespace_id,
    request_method, request_path, request_body, request_headers, client_ip, user_agent, status_code, duration_ms,
    started_at, completed_at, sequence, record_hash, mark)
SELECT u.id, u.username, (ARRAY['create', 'get', 'list', 'update', 'delete'])[i % 5 + 1], 'container', i % 1000,
       'web-' || i % 1000, n.id, 'UNARY', '/pilothouse.container.v1.ContainerService/GetContainer',
       jsonb_build_object('namespace', n.name, 'name', 'web-' || i % 1000), '{"user-agent": "grpc-python/1.85"}',
       '127.0.0.1', 'grpc-python/1.85', 200, 3, t.at, t.at + interval '3 ms', i, sha256(int8send(i)),
       int8send(i)
FROM generate_series($1::bigint, $2::bigint) AS i
JOIN namespaces AS n ON n.name = format('tenant-%s', i % $3::integer)
JOIN users AS u ON u.username = 'admin'
CROSS JOIN LATERAL (SELECT now() - interval '25 days' + i * interval '2 s' AS at) AS t
"""


async def records(connection: asyncpg.Connection, count: int) -> None:
    """Adds audit records after the last one, 2 s apart. Their hashes are made up: nothing verifies them here.

    The function locks the head: a running server would otherwise give its own records the same numbers.
    """
    async with connection.transaction():
        last = await connection.fetchval("SELECT audit_sequence FROM stream_head FOR UPDATE")
        await connection.execute(_RECORDS, last + 1, last + count, NAMESPACES)
        await connection.execute("UPDATE stream_head SET audit_sequence = $1", last + count)
    await analyze(connection, "operation_logs")


# The interval of the samples that are aggregated, as in the product's roll-ups.
SAMPLE_SECONDS = 300
_BARE_USAGE = """
CREATE UNLOGGED TABLE bare_usage (
    container_id bigint NOT NULL, namespace_id bigint NOT NULL, timestamp timestamptz NOT NULL,
    cpu_cores_used numeric(10,4), memory_bytes_used bigint, network_bytes_rx bigint, network_bytes_tx bigint,
    disk_bytes_used bigint)
"""
_SAMPLES = """
INSERT INTO bare_usage
SELECT c.id, c.namespace_id, t.at, (c.id * 7 + t.number * 13) % 1000 / 1000.0, 1000000 + (t.number * 37) % 500000,
       t.number * 1000, t.number * 500, 1000000
FROM generate_series(1, $1::integer) WITH ORDINALITY AS step (number, _)
CROSS JOIN LATERAL (SELECT step.number, $2::timestamptz + step.number * make_interval(secs => $3) AS at) AS t
CROSS JOIN containers AS c
"""
_HOURLY = """
INSERT INTO container_usage_hourly (container_id, namespace_id, bucket, samples, cpu_cores_avg, cpu_cores_max,
    memory_bytes_avg, memory_bytes_max, network_bytes_rx, network_bytes_tx, disk_bytes_max)
SELECT container_id, namespace_id, date_trunc('hour', timestamp), count(*), avg(cpu_cores_used), max(cpu_cores_used),
       avg(memory_bytes_used), max(memory_bytes_used), max(network_bytes_rx) - min(network_bytes_rx),
       max(network_bytes_tx) - min(network_bytes_tx), max(disk_bytes_used)
FROM bare_usage GROUP BY 1, 2, 3
"""


async def usage(connection: asyncpg.Connection, days: int) -> None:
    """Adds a sample of each container every five minutes, up to the last whole hour, and the roll-ups of all samples.

    The samples are in a separate table, `bare_usage`, for the baseline. The product keeps raw samples for days, not
    for a month, and reads a month from the roll-ups.
    """
    begin = await connection.fetchval(
        "SELECT date_trunc('hour', now()) - make_interval(days => $1::integer) - interval '5 min'", days
    )
    await connection.execute(_BARE_USAGE)
    await connection.execute(_SAMPLES, days * 86400 // SAMPLE_SECONDS, begin, float(SAMPLE_SECONDS))
    await connection.execute("CREATE INDEX ON bare_usage (container_id, timestamp)")
    await connection.execute(_HOURLY)
    await analyze(connection, "bare_usage", "container_usage_hourly")


# The canonical form of a record (docs/audit-format.md), written out: members in order, no spaces.
_AUDITED = """
DO $$
DECLARE
    one record;
    mark bytea;
    digest bytea;
    place bigint;
BEGIN
    SELECT audit_sequence, record_mark INTO place, mark FROM stream_head WHERE id = 1;
    FOR one IN
        SELECT i, gen_random_uuid() AS operation_id, n.id AS namespace_id, n.name AS namespace,
               now() - interval '25 days' + i * interval '1 s' AS at
        FROM generate_series(1, {records}) AS i
        JOIN namespaces AS n ON n.name = format('tenant-%s', i % {namespaces}) ORDER BY i
    LOOP
        place := place + 1;
        digest := sha256(convert_to(format('{{"action":"get","client_ip":"127.0.0.1","completed_at":%s,"duration_ms":3,'
            '"error_code":null,"error_message":null,"metadata":{{}},"namespace_id":%s,"operation_id":"%s",'
            '"request_body":{{"name":"web-%s","namespace":"%s"}},"request_headers":{{"user-agent":"grpc-python/1.85"}},'
            '"request_method":"UNARY","request_path":"/pilothouse.container.v1.ContainerService/GetContainer",'
            '"resource_id":%s,"resource_name":"web-%s","resource_type":"container","response_body":null,'
            '"started_at":%s,"status_code":200,"stream_id":null,"user_agent":"grpc-python/1.85","user_id":null,'
            '"username":"admin"}}',
            to_json(to_char(one.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')), one.namespace_id,
            one.operation_id, one.i % 1000, one.namespace, one.i % 1000, one.i % 1000,
            to_json(to_char(one.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), 'UTF8'));
        mark := substring(digest FROM 1 FOR 8);
        INSERT INTO operation_logs (operation_id, username, action, resource_type, resource_id, resource_name,
            namespace_id, request_method, request_path, request_body, request_headers, client_ip, user_agent,
            status_code, duration_ms, started_at, completed_at, sequence, record_hash, mark)
        VALUES (one.operation_id, 'admin', 'get', 'container', one.i % 1000, 'web-' || one.i % 1000,
            one.namespace_id, 'UNARY', '/pilothouse.container.v1.ContainerService/GetContainer',
            jsonb_build_object('namespace', one.namespace, 'name', 'web-' || one.i % 1000),
            '{{"user-agent": "grpc-python/1.85"}}', '127.0.0.1', 'grpc-python/1.85', 200, 3, one.at, one.at, place,
            digest, mark);
    END LOOP;
    UPDATE stream_head SET audit_sequence = place, record_mark = mark WHERE id = 1;
END $$
"""


async def audited_records(connection: asyncpg.Connection, records: int) -> None:
    """Adds audit records with correct hashes after the existing ones, 1 s apart; no server may run at that time."""
    await connection.execute(_AUDITED.format(records=records, namespaces=NAMESPACES))
    await analyze(connection, "operation_logs")
