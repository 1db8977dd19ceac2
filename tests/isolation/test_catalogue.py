"""The test over the whole catalogue: no table, view or function lets a tenant see another tenant's rows."""

from __future__ import annotations

import pytest

from tests.conftest import Database, connection
from tests.isolation.rules import RULES, findings


@pytest.mark.usefixtures("promised_partitions")
async def test_every_table_view_and_function_isolates_tenants(database: Database) -> None:
    async with connection(database.admin_dsn) as admin:
        assert await findings(admin) == []
        assert (
            await admin.fetchval("SELECT count(*) FROM pg_class WHERE relrowsecurity AND relispartition") > 20
        )


_BREAKS = {
    "row-level security is not enabled and forced": [
        "ALTER TABLE secrets DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE containers NO FORCE ROW LEVEL SECURITY",
        "CREATE TABLE added_later (namespace_id bigint)",
    ],
    "is not owned by the owner": ["ALTER TABLE volumes OWNER TO pilothouse_maintenance"],
    "a policy is for everybody, so for the owner's views as well": [
        "CREATE POLICY wide ON secrets USING (true)"
    ],
    "a table the app role may touch has no policy for it": ["GRANT SELECT ON leases TO pilothouse_app"],
    "the app role sees every row of a table that belongs to a namespace or user": [
        "CREATE POLICY wide ON secrets TO pilothouse_app USING (true)",
        "ALTER POLICY container_access_policy ON containers USING (true)",
    ],
    "a partition is open to a role of request handling": [
        "GRANT SELECT ON events_r0 TO pilothouse_app",
        "GRANT SELECT (message) ON events_r0 TO pilothouse_app",
        "GRANT SELECT ON events_r0 TO PUBLIC",
    ],
    "a view runs with its owner's rights": [
        "CREATE VIEW leak AS SELECT * FROM secrets",
        "ALTER VIEW container_details SET (security_invoker = false)",
    ],
    "the app role may read a materialised view": ["GRANT SELECT ON container_summary TO pilothouse_app"],
    "something is granted to everybody": [
        "GRANT SELECT ON leases TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION drop_old_partitions(text, integer) TO PUBLIC",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
    ],
    "a function's search path is not pinned to the system's": [
        "ALTER FUNCTION app_reach() RESET search_path",
        "ALTER FUNCTION app_reach() SET search_path = public",
        "ALTER FUNCTION app_sees_all() SECURITY DEFINER",
        "ALTER FUNCTION read_container(bigint, text, text, integer) RESET search_path",
    ],
    "a function is not owned by the owner": ["ALTER FUNCTION app_sees_all() OWNER TO pilothouse_maintenance"],
    "the log, the events or their head can be written by a role of request handling": [
        "GRANT INSERT ON operation_logs TO pilothouse_app",
        "GRANT UPDATE ON stream_head TO pilothouse_system",
    ],
    "a role of request handling may truncate, refer to or put a trigger on a table": [
        "GRANT TRUNCATE ON secrets TO pilothouse_app",
    ],
    "a role of request handling bypasses row-level security or owns something": [
        "CREATE TABLE own (); ALTER TABLE own OWNER TO pilothouse_app",
        "GRANT CREATE ON SCHEMA public TO pilothouse_system",
    ],
    "a child of a container or volume is bound to it without the namespace": [
        "ALTER TABLE quota_counters ADD COLUMN container_id bigint REFERENCES containers (id)",
    ],
}


@pytest.mark.parametrize(
    ("rule", "change"), [(rule, change) for rule, changes in _BREAKS.items() for change in changes]
)
async def test_the_rules_find_violations(apart: Database, rule: str, change: str) -> None:
    async with connection(apart.admin_dsn) as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(change)
        assert any(line.endswith(f": {rule}") for line in await findings(admin))
        await transaction.rollback()


def test_every_rule_has_a_positive_control() -> None:
    assert set(_BREAKS) == set(RULES)
