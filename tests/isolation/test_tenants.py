"""Isolation by behaviour: the rows that the app role reads and writes for a tenant's user, without any WHERE clause."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.conftest import Database, connection
from tests.migrations.catalogue import tables
from tests.migrations.filling import ADMINISTRATOR, TENANTS, user_of

# Tables that belong neither to a namespace nor to a user. Each has its own test below.
_SHARED = {
    "audit_seals",
    "audit_sinks",
    "audit_tiles",
    "audit_tree",
    "clusters",
    "container_images",
    "device_logins",
    "encryption_keys",
    "federated_identities",
    "leases",
    "login_challenges",
    "login_origins",
    "login_throttles",
    "namespaces",
    "oidc_logins",
    "oidc_sessions",
    "orphans",
    "pending_changes",
    "pending_incidents",
    "periodic_jobs",
    "recovery_codes",
    "roles",
    "stream_head",
    "users",
}


async def _columns(opened: asyncpg.Connection, table: str) -> set[str]:
    rows = await opened.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
        table,
    )
    return {row[0] for row in rows}


async def _belonging(database: Database) -> dict[str, str]:
    """Returns, for every table that is not shared, the column with the owner of a row."""
    found = {}
    async with database.owner() as owner:
        for table in set(await tables(owner)) - _SHARED:
            columns = await _columns(owner, table)
            assert columns & {"namespace_id", "user_id"}, (
                f"{table}: whose is a row? say it in a column, or test it"
            )
            found[table] = "namespace_id" if "namespace_id" in columns else "user_id"
    assert len(found) > 20
    return found


def _belongs_to(tenant: int, column: str) -> int:
    return tenant if column == "namespace_id" else user_of(tenant)


@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_tenant_sees_its_own_rows_and_no_others(apart: Database, tenant: int) -> None:
    for table, column in (await _belonging(apart)).items():
        async with apart.app(user_of(tenant)) as app:
            owners = {row[0] for row in await app.fetch(f"SELECT {column} FROM {table}")}
        assert owners == {_belongs_to(tenant, column)}, table


async def test_without_an_identity_nothing_is_seen(apart: Database) -> None:
    for table in await _belonging(apart):
        for user_id in (None, 999):
            async with apart.app(user_id) as app:
                assert await app.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    async with connection(apart.app_dsn) as app:
        assert await app.fetchval("SELECT count(*) FROM containers") == 0


async def test_a_grant_over_all_namespaces_sees_everything(apart: Database) -> None:
    for table, column in (await _belonging(apart)).items():
        async with apart.app(ADMINISTRATOR) as app:
            owners = {row[0] for row in await app.fetch(f"SELECT {column} FROM {table}")}
        assert owners >= {_belongs_to(tenant, column) for tenant in TENANTS}, table


async def test_the_system_role_sees_everything(apart: Database) -> None:
    async with apart.owner() as owner, apart.system() as system:
        for table in await tables(owner):
            assert await system.fetchval(f"SELECT count(*) FROM {table}") > 0, table


async def test_foreign_rows_can_be_neither_changed_nor_deleted(tenants: Database) -> None:
    for table, column in (await _belonging(tenants)).items():
        foreign = _belongs_to(2, column)
        async with tenants.app(user_of(1)) as app:
            for privilege, statement in (
                ("UPDATE", f"UPDATE {table} SET {column} = {column} WHERE {column} = {foreign}"),
                ("DELETE", f"DELETE FROM {table} WHERE {column} = {foreign}"),
            ):
                if await app.fetchval("SELECT has_table_privilege($1, $2)", table, privilege):
                    assert await app.execute(statement) == f"{privilege} 0", table


async def test_rows_cannot_be_inserted_for_or_moved_to_another_tenant(tenants: Database) -> None:
    for table, column in (await _belonging(tenants)).items():
        foreign = _belongs_to(2, column)
        async with tenants.owner() as owner:
            await owner.execute(
                f"CREATE TABLE stolen AS SELECT * FROM {table} WHERE {column} = {foreign} LIMIT 1"
            )
            await owner.execute(
                "ALTER TABLE stolen ENABLE ROW LEVEL SECURITY; GRANT SELECT ON stolen TO pilothouse_app"
            )
            await owner.execute("CREATE POLICY readable ON stolen TO pilothouse_app USING (true)")
            assert await owner.fetchval("SELECT count(*) FROM stolen") == 1
        for statement in (
            f"INSERT INTO {table} SELECT * FROM stolen",
            f"UPDATE {table} SET {column} = {foreign}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with tenants.app(user_of(1)) as app:
                    await app.execute(statement)
        async with tenants.owner() as owner:
            await owner.execute("DROP TABLE stolen")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO port_mappings (container_id, namespace_id, container_port, service_type) VALUES (2, 1, 1, 'None')",
        "INSERT INTO environment_variables (container_id, namespace_id, name, value) VALUES (2, 1, 'A', 'b')",
        "INSERT INTO container_pods (container_id, namespace_id, pod_name, uid) VALUES (2, 1, 'p', 'u')",
        "INSERT INTO container_volumes (container_id, volume_id, namespace_id, mount_path) VALUES (2, 1, 1, '/m')",
        "INSERT INTO container_volumes (container_id, volume_id, namespace_id, mount_path) VALUES (1, 2, 1, '/m')",
        "INSERT INTO container_status_history (container_id, namespace_id, current_status) VALUES (2, 1, 'failed')",
        "INSERT INTO container_resource_usage (container_id, namespace_id) VALUES (2, 1)",
        "UPDATE port_mappings SET container_id = 2, service_port = 81",
    ],
)
async def test_a_child_row_cannot_reference_a_foreign_parent(tenants: Database, statement: str) -> None:
    """Foreign-key checks bypass row-level security, so the key itself must include the namespace."""
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with tenants.app(user_of(1)) as app:
            await app.execute(statement)


async def test_foreign_namespaces_and_clusters_are_invisible(apart: Database) -> None:
    async with apart.app(user_of(1)) as app:
        assert [row[0] for row in await app.fetch("SELECT name FROM namespaces")] == ["alpha"]
        assert [row[0] for row in await app.fetch("SELECT name FROM clusters")] == ["alpha-cluster"]
    async with apart.app(None) as app:
        assert await app.fetch("SELECT FROM namespaces") == []
        assert await app.fetch("SELECT FROM clusters") == []


async def test_orphans_need_a_grant_over_all_namespaces(tenants: Database) -> None:
    decision = "UPDATE orphans SET state = 'deleting'"
    for user_id in (user_of(1), None):
        async with tenants.app(user_id) as app:
            assert await app.fetch("SELECT FROM orphans") == []
            assert await app.execute(decision) == "UPDATE 0"
    async with tenants.app(ADMINISTRATOR) as app:
        assert await app.execute(decision) == f"UPDATE {len(TENANTS)}"


async def test_globally_unique_names_need_a_grant_over_all_namespaces(tenants: Database) -> None:
    statements = [
        "INSERT INTO namespaces (name, kubernetes_name, cluster_name) VALUES ('new', 'new', 'alpha-cluster')",
        "INSERT INTO clusters (name, api_server) VALUES ('new', 'https://new')",
        "INSERT INTO roles (name, display_name) VALUES ('new', 'New')",
        """INSERT INTO users (username, username_normalized, email, email_normalized, password_hash)
        VALUES ('new', 'new', 'n', 'n', '!')""",
    ]
    for statement in statements:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenants.app(user_of(1)) as app:
                await app.execute(statement)
        async with tenants.app(ADMINISTRATOR) as app:
            assert await app.execute(statement) == "INSERT 0 1"


async def test_users_are_visible_to_users_who_share_a_namespace(tenants: Database) -> None:
    async with tenants.app(user_of(1)) as app:
        assert {row[0] for row in await app.fetch("SELECT username FROM users")} == {"root", "alpha"}
    async with tenants.owner() as owner:
        await owner.execute("INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (12, 2, 1)")
    async with tenants.app(user_of(1)) as app:
        assert {row[0] for row in await app.fetch("SELECT username FROM users")} == {"root", "alpha", "beta"}
    async with tenants.app(None) as app:
        assert await app.fetch("SELECT username FROM users") == []


async def test_service_accounts_and_their_keys_belong_to_their_namespace(tenants: Database) -> None:
    key = """INSERT INTO api_keys (user_id, account_namespace_id, name, key_hash, prefix, expires_at)
        VALUES ({user}, {namespace}, 'k{namespace}', sha256('{user}{namespace}'), 'phk_', now() + interval '1 day')"""
    account = """INSERT INTO users (id, username, username_normalized, email, email_normalized, password_hash, kind,
        namespace_id)
        VALUES ({user}, 'sa{user}', 'sa{user}', 's{user}', 's{user}', '!', 'service_account', {namespace})"""
    async with tenants.owner() as owner:
        for tenant in TENANTS:
            await owner.execute(account.format(user=20 + tenant, namespace=tenant))
            await owner.execute(key.format(user=20 + tenant, namespace=tenant))
    async with tenants.app(user_of(1)) as app:
        assert {row[0] for row in await app.fetch("SELECT id FROM users WHERE kind <> 'person'")} == {21}
        assert {row[0] for row in await app.fetch("SELECT user_id FROM api_keys")} == {11, 21}
        for statement in ("UPDATE users SET deleted_at = now()", "UPDATE api_keys SET revoked_at = now()"):
            column = "id" if "users" in statement else "user_id"
            assert await app.execute(f"{statement} WHERE {column} = 22") == "UPDATE 0"
        # The tenant can create its own account, with a key.
        await app.execute(account.format(user=31, namespace=1))
        await app.execute(key.format(user=31, namespace=1))
    for error, statement in (
        (asyncpg.InsufficientPrivilegeError, account.format(user=32, namespace=2)),
        (asyncpg.InsufficientPrivilegeError, account.format(user=32, namespace="NULL")),
        (asyncpg.InsufficientPrivilegeError, key.format(user=22, namespace=2)),
        (asyncpg.InsufficientPrivilegeError, key.format(user=22, namespace="NULL")),
        # A key's namespace is that of its user; the foreign key excludes any other.
        (asyncpg.ForeignKeyViolationError, key.format(user=22, namespace=1)),
        (asyncpg.ForeignKeyViolationError, key.format(user=user_of(2), namespace=1)),
    ):
        with pytest.raises(error):
            async with tenants.app(user_of(1)) as app:
                await app.execute(statement)
    async with tenants.owner() as owner:
        for statement in (
            "UPDATE users SET namespace_id = 1 WHERE id = 11",
            "UPDATE users SET kind = 'robot' WHERE id = 21",
            "UPDATE api_keys SET expires_at = NULL",
        ):
            with pytest.raises(asyncpg.CheckViolationError):
                await owner.execute(statement)


async def test_a_user_can_read_only_their_own_password_hash(tenants: Database) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenants.app(ADMINISTRATOR) as app:
            await app.fetch("SELECT password_hash FROM users")
    async with tenants.app(user_of(1)) as app:
        assert await app.fetchval("SELECT app_password_hash()") == "hash of alpha"
        assert await app.execute("UPDATE users SET password_hash = 'new'") == "UPDATE 1"
        assert await app.fetchval("SELECT app_password_hash()") == "new"
    async with tenants.app(None) as app:
        assert await app.fetchval("SELECT app_password_hash()") is None


async def test_grants_can_be_made_only_within_ones_reach(tenants: Database) -> None:
    async with tenants.app(user_of(1)) as app:
        await app.execute("INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (12, 2, 1)")
        assert await app.execute("DELETE FROM user_roles WHERE user_id = 12") == "DELETE 1"
    for namespace_id in ("2", "NULL"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenants.app(user_of(1)) as app:
                await app.execute(
                    f"INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (11, 1, {namespace_id})"
                )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenants.app(user_of(1)) as app:
            await app.execute("UPDATE user_roles SET namespace_id = NULL")


async def test_roles_are_readable_and_changed_only_with_reach_over_all(tenants: Database) -> None:
    async with tenants.app(user_of(1)) as app:
        assert await app.fetchval("SELECT count(*) FROM roles") == 3
        assert await app.execute("""UPDATE roles SET permissions = '["*"]'""") == "UPDATE 0"
        assert await app.execute("DELETE FROM roles") == "DELETE 0"


async def test_images_are_visible_to_tenants_that_use_them(tenants: Database) -> None:
    async with tenants.app(user_of(1)) as app:
        assert [row[0] for row in await app.fetch("SELECT id FROM container_images")] == [1]
        # Registering another tenant's image returns its id without an error, but the image stays hidden.
        again = await app.fetchval("SELECT register_image('registry.example/beta', 'web', '1', NULL)")
        assert again == 2
        assert [row[0] for row in await app.fetch("SELECT id FROM container_images")] == [1]
        # A sidecar that uses the image makes it visible.
        await app.execute(
            """UPDATE containers SET spec = '{"sidecars": [{"name": "p", "image": "registry.example/beta/web:1"}]}'"""
        )
        images = await app.fetch("SELECT id FROM container_images ORDER BY id")
        assert [row[0] for row in images] == [1, 2]
        assert await app.execute("DELETE FROM container_images") == "DELETE 0"
    async with tenants.app(ADMINISTRATOR) as app:
        assert await app.fetchval("SELECT count(*) FROM container_images") == 3


@pytest.mark.parametrize(
    "table",
    [
        "leases",
        "device_logins",
        "login_challenges",
        "login_origins",
        "login_throttles",
        "recovery_codes",
        "container_summary",
        "schema_functions",
        "schema_migrations",
        "federated_identities",
        "oidc_logins",
        "oidc_sessions",
        "pending_changes",
        "pending_incidents",
        "periodic_jobs",
    ],
)
async def test_the_servers_own_tables_are_closed_to_requests(apart: Database, table: str) -> None:
    for user_id in (user_of(1), ADMINISTRATOR):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with apart.app(user_id) as app:
                await app.fetch(f"SELECT * FROM {table}")


async def test_only_the_owner_reads_or_changes_pending_rows(apart: Database) -> None:
    async with apart.system() as system:
        assert await system.fetchval("SELECT count(id) FROM pending_changes") > 0
        for statement in (
            "SELECT records FROM pending_changes",
            "UPDATE pending_changes SET failures = 0",
            "DELETE FROM pending_changes",
            "DELETE FROM pending_incidents",
            "INSERT INTO pending_changes (records, record_hashes, events, messages) VALUES ('{}', '{}', '{}', '{}')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await system.execute(statement)


@pytest.mark.parametrize(
    "table", ["encryption_keys", "stream_head", "audit_seals", "audit_tiles", "audit_tree"]
)
async def test_tables_readable_by_all_users_cannot_be_changed(apart: Database, table: str) -> None:
    async with apart.app(user_of(1)) as app:
        assert await app.fetchval(f"SELECT count(*) FROM {table}") == 1
    for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM {table}"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with apart.app(ADMINISTRATOR) as app:
                await app.execute(statement)


async def test_audit_sinks_need_a_grant_over_all_namespaces(tenants: Database) -> None:
    """The same holds for changes: a tenant sees no sinks, and cannot add one."""
    made = (
        "INSERT INTO audit_sinks (name, kind, format, address) VALUES ('siem', 'file', 'ocsf', 'file:///x')"
    )
    async with tenants.app(user_of(1)) as app:
        assert await app.fetchval("SELECT count(*) FROM audit_sinks") == 0
        assert await app.execute("DELETE FROM audit_sinks") == "DELETE 0"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenants.app(user_of(1)) as app:
            await app.execute(made)


async def test_partitions_cannot_be_read_directly(apart: Database) -> None:
    async with apart.owner() as owner:
        names = [
            row[0]
            for row in await owner.fetch(
                "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
            )
        ]
    assert len(names) >= 9
    for opened in (apart.app(ADMINISTRATOR), apart.system()):
        async with opened as request:
            for name in names:
                readable = await request.fetchval("SELECT has_any_column_privilege($1, 'SELECT')", name)
                assert not readable, name
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with apart.app(ADMINISTRATOR) as app:
            await app.fetch(f"SELECT * FROM {names[0]}")


async def test_views_show_a_tenant_only_its_own_rows(apart: Database) -> None:
    async with apart.app(user_of(1)) as app:
        details = await app.fetch("SELECT * FROM container_details")
        assert [(row["id"], row["namespace_name"], row["created_by_username"]) for row in details] == [
            (1, "alpha", "alpha")
        ]
        stats = {
            row["username"]: row["total_operations"]
            for row in await app.fetch("SELECT * FROM user_operation_stats")
        }
        assert stats == {"root": 0, "alpha": 1}
        summary = await app.fetch("SELECT * FROM reachable_container_summary()")
        assert [(row["namespace_id"], row["total_containers"]) for row in summary] == [(1, 1)]
    async with apart.app(ADMINISTRATOR) as app:
        assert await app.fetchval("SELECT count(*) FROM container_details") == 2
        assert await app.fetchval("SELECT count(*) FROM reachable_container_summary()") == 2
    async with apart.app(None) as app:
        assert await app.fetch("SELECT * FROM container_details") == []
        assert await app.fetch("SELECT * FROM reachable_container_summary()") == []


async def test_statistics_are_only_for_maintenance(apart: Database) -> None:
    for view in ("database_stats", "table_sizes"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with apart.app(ADMINISTRATOR) as app:
                await app.fetch(f"SELECT * FROM {view}")
    async with apart.owner() as owner:
        assert await owner.fetchval("SELECT count(*) FROM database_stats WHERE tablename = 'containers'") > 0
        sizes = {
            row["tablename"]: row["total_bytes"] for row in await owner.fetch("SELECT * FROM table_sizes")
        }
        assert sizes["operation_logs"] > 0


async def test_an_identity_ends_with_its_transaction(apart: Database) -> None:
    async with connection(apart.app_dsn) as app:
        async with app.transaction():
            await app.execute("SELECT set_config('app.current_user_id', '11', true)")
            assert await app.fetchval("SELECT app_user_id()") == 11
            assert await app.fetchval("SELECT count(*) FROM containers") == 1
        assert await app.fetchval("SELECT app_user_id()") is None
        assert await app.fetchval("SELECT count(*) FROM containers") == 0


async def test_an_image_registered_in_parallel_is_one_row(tenants: Database) -> None:
    async def register() -> int:
        async with tenants.app(user_of(1)) as app:
            return int(await app.fetchval("SELECT register_image(NULL, 'nginx', NULL, 'sha256:00')"))

    assert len(set(await asyncio.gather(*(register() for _ in range(8))))) == 1
