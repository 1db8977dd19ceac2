"""Rows for every table, for two tenants that share nothing, inserted as the owner.

`fill` inserts into the tables that exist and are empty, so it serves a database at any migration. Ids are fixed:
tenant 1 has user 11, namespace 1, container 1; tenant 2 has user 12, namespace 2, container 2; user 10 is an
administrator with a grant over every namespace.
"""

from __future__ import annotations

import asyncpg

from tests.migrations.catalogue import tables

ADMINISTRATOR = 10
TENANTS = (1, 2)
NAMES = {1: "alpha", 2: "beta"}


def user_of(tenant: int) -> int:
    """Returns the id of the user whose only grant is in the tenant's namespace."""
    return 10 + tenant


# Table -> statements; `$1` is the tenant's number and `$2` its name. A table comes after the tables that it refers to.
_SHARED: dict[str, str] = {
    "users": """INSERT INTO users (id, username, username_normalized, email, email_normalized, password_hash)
        VALUES (10, 'root', 'root', 'root@example.com', 'root@example.com', '!')""",
    "roles": """INSERT INTO roles (id, name, display_name, permissions, is_system)
        VALUES (1, 'admin', 'Admin', '["*"]', true), (2, 'developer', 'Developer', '["container.*"]', true),
               (3, 'nothing', 'Nothing', '[]', false)""",
    "encryption_keys": "INSERT INTO encryption_keys (key_id) VALUES ('key-1')",
    "user_roles": "INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (10, 1, NULL)",
    "container_images": "INSERT INTO container_images (id, name, tag, size_bytes) VALUES (9, 'unused', '1', 7)",
    "login_throttles": "INSERT INTO login_throttles (account_hash, failures) VALUES ('\\x01', 2)",
    "login_origins": """INSERT INTO login_origins (account_hash, origin_hash, password_changed_at)
        VALUES ('\\x01', '\\x02', now())""",
    "oidc_logins": "INSERT INTO oidc_logins (state_hash, expires_at) VALUES ('\\x01', now())",
    "device_logins": """INSERT INTO device_logins
        (token_hash, issuer, sealed_code, address_hash, interval_seconds, next_poll_at, expires_at)
        VALUES (sha256('one'), 'company', '\\x01', '\\x02', 5, now(), now() + interval '10 minutes')""",
    "leases": "INSERT INTO leases (name, owner, epoch) VALUES ('periodic', 'replica-1', 1)",
    "periodic_jobs": "INSERT INTO periodic_jobs (name, failures, failing_since) VALUES ('drop', 1, now())",
    "audit_seals": "INSERT INTO audit_seals (size, root, note) VALUES (1, sha256(''), 'a note')",
    "audit_tiles": "INSERT INTO audit_tiles VALUES (0, 0, decode(repeat('ab', 8192), 'hex'))",
    "audit_sinks": """INSERT INTO audit_sinks (name, kind, address, secrets, data_key, key_id)
        VALUES ('siem', 'http', 'https://siem.example.com', '\\x01', '\\x02', 'key-1')""",
}
_PER_TENANT: dict[str, str] = {
    "users": """INSERT INTO users
        (id, username, username_normalized, email, email_normalized, password_hash, created_by)
        VALUES (10 + $1, $2, $2, $2 || '@example.com', $2 || '@example.com', 'hash of ' || $2, 10)""",
    "clusters": """INSERT INTO clusters (id, name, api_server, credentials, key_id, created_by)
        VALUES ($1, $2 || '-cluster', 'https://' || $2, '\\x01', 'key-1', 10)""",
    "orphans": """INSERT INTO orphans (cluster_name, object_uid, kind, kubernetes_namespace, name, state)
        VALUES ($2 || '-cluster', 'uid of ' || $2, 'Deployment', $2, 'web', 'undecided')""",
    "namespaces": """INSERT INTO namespaces (id, name, kubernetes_name, cluster_name, labels, created_by)
        VALUES ($1, $2, $2, $2 || '-cluster', jsonb_build_object('tenant', $2), 10)""",
    "user_roles": "INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (10 + $1, 2, $1)",
    "sessions": """INSERT INTO sessions
        (user_id, family_id, access_token_hash, refresh_token_hash, access_expires_at, refresh_expires_at)
        VALUES (10 + $1, gen_random_uuid(), sha256($2::bytea), sha256($2::bytea), now(), now())""",
    "api_keys": """INSERT INTO api_keys (user_id, name, key_hash, prefix, expires_at)
        VALUES (10 + $1, 'deploy', sha256($2::bytea), 'ph_' || $1, now() + interval '1 day')""",
    "user_secrets": """INSERT INTO user_secrets (user_id, secret_type, encrypted_value, key_id)
        VALUES (10 + $1, 'token', '\\x01', 'key-1')""",
    "recovery_codes": "INSERT INTO recovery_codes (user_id, code_hash) VALUES (10 + $1, sha256($2::bytea))",
    "login_challenges": """INSERT INTO login_challenges
        (challenge_hash, user_id, origin_hash, password_changed_at, expires_at)
        VALUES (sha256($2::bytea), 10 + $1, sha256($2::bytea), now(), now())""",
    "federated_identities": """INSERT INTO federated_identities (id, user_id, issuer, subject, confirmed_until)
        VALUES ($1, 10 + $1, 'https://issuer.example.com', $2, now())""",
    "oidc_sessions": "INSERT INTO oidc_sessions (family_id, identity_id) VALUES (gen_random_uuid(), $1)",
    "container_images": """INSERT INTO container_images (id, repository, name, tag, size_bytes)
        VALUES ($1, 'registry.example/' || $2, 'web', '1', 100 * $1)""",
    "containers": """INSERT INTO containers (id, name, namespace_id, image_id, kubernetes_name, status, created_by)
        VALUES ($1, 'web', $1, $1, 'web', 'running', 10 + $1)""",
    # A database whose triggers maintain this row already has it.
    "quota_counters": """INSERT INTO quota_counters (namespace_id, id, containers, cpu_millicores, memory_bytes)
        VALUES ($1, 0, 1, 0, 0)""",
    "container_pods": """INSERT INTO container_pods (container_id, namespace_id, pod_name, uid)
        VALUES ($1, $1, 'web-0', 'pod-' || $2)""",
    "container_runs": """INSERT INTO container_runs (container_id, namespace_id, number, name, status)
        VALUES ($1, $1, 1, 'web-' || $2, 'running')""",
    "program_images": """INSERT INTO program_images (container_id, namespace_id, program, image, image_id)
        VALUES ($1, $1, 'proxy', 'registry.example/' || $2 || '/web:1', $1)""",
    "revisions": """INSERT INTO revisions (resource_type, resource_id, namespace_id, number, document)
        VALUES ('container', $1, $1, 1, '{}')""",
    "revision_values": """INSERT INTO revision_values
        (revision_id, namespace_id, secret_name, place, ciphertext, data_key, key_id)
        SELECT min(id), $1, 'password-' || $2, $2, '\\x01'::bytea, '\\x02'::bytea, 'key-1'
        FROM revisions WHERE namespace_id = $1""",
    "application_changes": "INSERT INTO application_changes (application_id, namespace_id) VALUES ($1, $1)",
    "port_mappings": """INSERT INTO port_mappings
        (container_id, namespace_id, container_port, service_name, service_port) VALUES ($1, $1, 8080, 'web', 80)""",
    "environment_variables": """INSERT INTO environment_variables (container_id, namespace_id, name, value)
        VALUES ($1, $1, 'TENANT', $2)""",
    "volumes": """INSERT INTO volumes (id, name, namespace_id, type, size, access_mode)
        VALUES ($1, 'data', $1, 'persistent_volume_claim', '1Gi', 'ReadWriteOnce')""",
    "container_volumes": """INSERT INTO container_volumes (container_id, volume_id, namespace_id, mount_path)
        VALUES ($1, $1, $1, '/data/' || $2)""",
    "mount_changes": "INSERT INTO mount_changes (volume_id, namespace_id) VALUES ($1, $1)",
    "service_changes": "INSERT INTO service_changes (container_id, namespace_id) VALUES ($1, $1)",
    "claim_changes": "INSERT INTO claim_changes (container_id, namespace_id, storage_bytes) VALUES ($1, $1, 1)",
    "services": """INSERT INTO services (id, name, namespace_id, spec)
        VALUES ($1, 'web-' || $2, $1, '{"selector": {"app": "web"}}')""",
    "objects": """INSERT INTO objects (name, namespace_id, api_group, api_version, kind, document)
        VALUES ('web-' || $2, $1, 'networking.k8s.io', 'networking.k8s.io/v1', 'Ingress', '{}')""",
    "config_maps": """INSERT INTO config_maps (name, namespace_id, kubernetes_name, data)
        VALUES ('settings', $1, 'settings', jsonb_build_object('tenant', $2))""",
    "secrets": """INSERT INTO secrets (name, namespace_id, kubernetes_name, data, ciphertext, data_key, key_id)
        VALUES ('password-' || $2, $1, 'password', '{"password": {"size_bytes": 8}}', '\\x01', '\\x02', 'key-1')""",
    "applications": """INSERT INTO applications (id, name, namespace_id, created_by)
        VALUES ($1, 'shop-' || $2, $1, 10 + $1)""",
    "application_members": """INSERT INTO application_members
        (application_id, namespace_id, resource_type, name, api_version, kind, generation)
        VALUES ($1, $1, 'container', 'web-' || $2, 'apps/v1', 'Deployment', 1)""",
    "application_documents": """INSERT INTO application_documents (application_id, namespace_id, digest, document)
        VALUES ($1, $1, $2, '{}')""",
    "rendered_messages": """INSERT INTO rendered_messages
        (resource_type, resource_id, namespace_id, row_version, format, message)
        VALUES ('container', $1, $1, 1, 1, '\\x01')""",
    "operations": """INSERT INTO operations (operation_id, user_id, method, resource_type, resource_id, namespace_id)
        VALUES (md5($2)::uuid, 10 + $1, 'CreateContainer', 'container', $1, $1)""",
    "idempotency_keys": """INSERT INTO idempotency_keys (user_id, request_id, method, request_hmac)
        VALUES (10 + $1, md5($2)::uuid, 'CreateContainer', '\\x01')""",
    "request_claims": """INSERT INTO request_claims (user_id, request_id, owner, expires_at)
        VALUES (10 + $1, md5($2)::uuid, md5($2)::uuid, now())""",
    "container_status_history": """INSERT INTO container_status_history
        (container_id, namespace_id, current_status, operation_id) VALUES ($1, $1, 'running', md5($2)::uuid)""",
    "reconcile_work": """INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, namespace_id)
        VALUES ('container', $1, $2 || '-cluster', $1)""",
    "operation_logs": """INSERT INTO operation_logs (user_id, username, action, resource_type, resource_id,
        namespace_id, request_method, status_code, duration_ms, sequence, record_hash, mark)
        VALUES (10 + $1, $2, 'create', 'container', $1,
        $1, 'UNARY', 200, 5, $1, sha256($2::bytea), int8send($1))""",
    "events": """INSERT INTO events (revision, resource_type, resource_id, namespace_id, resource_name, kind, message)
        VALUES ($1, 'container', $1, $1, 'web-' || $2, 'added', '\\x01')""",
    "pending_changes": """SELECT put_changes('[]', '{}', '[]', '{}')""",
    "pending_incidents": """INSERT INTO pending_incidents (id, records, record_hashes, events, messages, created_at,
        sqlstate, constraint_name, incident_sequence) VALUES ($1, '{}', '{}', '{}', '{}', now(), '23514', '', $1)""",
    "container_resource_usage": """INSERT INTO container_resource_usage
        (container_id, namespace_id, cpu_cores_used, cpu_usage_percent) VALUES ($1, $1, 11, 100 * $1 + 1000)""",
    "container_usage_hourly": """INSERT INTO container_usage_hourly (container_id, namespace_id, bucket, samples)
        VALUES ($1, $1, date_trunc('hour', now()), 12)""",
    "container_usage_daily": """INSERT INTO container_usage_daily (container_id, namespace_id, bucket, samples)
        VALUES ($1, $1, date_trunc('day', now()), 288)""",
    "container_usage_days": """INSERT INTO container_usage_days (container_id, namespace_id, day)
        VALUES ($1, $1, date_trunc('day', now()))""",
}
_ORDER = list(dict.fromkeys([*list(_SHARED)[:3], *_PER_TENANT, *_SHARED]))


async def fill(connection: asyncpg.Connection) -> None:
    """Fills every table that exists and is empty; `connection` has the owner's role.

    Raises AssertionError if a table is left without a row: a new table needs its line above.
    """
    present = await tables(connection)
    for table in _ORDER:
        if table not in present or await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):
            continue
        if table in _SHARED:
            await connection.execute(_SHARED[table])
        if table in _PER_TENANT:
            for tenant in TENANTS:
                statement = _PER_TENANT[table].replace("$1", str(tenant)).replace("$2", f"'{NAMES[tenant]}'")
                await connection.execute(statement)
    if "events" in present:
        await connection.execute("UPDATE stream_head SET revision = greatest(revision, 2)")
    for table in present:
        # The ids above are fixed, so the next generated ids must be greater.
        sequence = await connection.fetchval(
            "SELECT pg_get_serial_sequence(attrelid::regclass::text, 'id') FROM pg_attribute"
            " WHERE attrelid = $1::regclass AND attname = 'id' AND atttypid = 'bigint'::regtype",
            table,
        )
        if sequence is not None:
            await connection.execute("SELECT setval($1::text::regclass, 1000)", sequence)
        assert await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"), f"no rows for {table}"
