"""A grant gives reach if it has not expired, its user is active, and its role permits something."""

from __future__ import annotations

import asyncpg
import pytest

from tests.conftest import Database
from tests.migrations.filling import user_of


async def _reach(database: Database, user_id: int) -> tuple[bool, list[int]]:
    """Returns the reach. Checks that the reach computed on demand equals the reach computed once and stored."""
    once = await _seen(database, user_id, "SELECT set_config('app.reach', app_reach(), true)")
    assert await _seen(database, user_id, "SELECT") == once
    return once


async def _seen(database: Database, user_id: int, first: str) -> tuple[bool, list[int]]:
    async with database.app(user_id) as app:
        await app.execute(first)
        row = await app.fetchrow("SELECT app_sees_all(), app_namespace_ids()")
        seen = sorted(row[0] for row in await app.fetch("SELECT namespace_id FROM containers"))
        assert row is not None
        # The policies must always agree with the functions that they call.
        assert seen == ([1, 2] if row[0] else sorted(row[1]))
        return row[0], sorted(row[1])


async def test_a_grant_without_expiry_gives_reach(tenants: Database) -> None:
    assert await _reach(tenants, user_of(1)) == (False, [1])


@pytest.mark.parametrize(
    ("change", "reach"),
    [
        ("UPDATE user_roles SET expires_at = now() + interval '1 hour' WHERE user_id = 11", [1]),
        ("UPDATE user_roles SET expires_at = now() - interval '1 second' WHERE user_id = 11", []),
        ("UPDATE user_roles SET role_id = 3 WHERE user_id = 11", []),
        ("UPDATE users SET status = 'inactive' WHERE id = 11", []),
        ("UPDATE users SET status = 'locked' WHERE id = 11", []),
        ("UPDATE users SET deleted_at = now() WHERE id = 11", []),
        ("DELETE FROM user_roles WHERE user_id = 11", []),
        ("INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (11, 2, 2)", [1, 2]),
        ("INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (11, 1, 1)", [1]),
    ],
)
async def test_reach_follows_the_grant(tenants: Database, change: str, reach: list[int]) -> None:
    async with tenants.owner() as owner:
        await owner.execute(change)
    assert await _reach(tenants, user_of(1)) == (False, reach)


async def test_an_expired_grant_over_all_namespaces_leaves_other_grants(tenants: Database) -> None:
    async with tenants.owner() as owner:
        await owner.execute(
            "INSERT INTO user_roles (user_id, role_id, expires_at) VALUES (11, 2, now() + interval '1 hour')"
        )
        assert await _reach(tenants, user_of(1)) == (True, [1])
        await owner.execute(
            "UPDATE user_roles SET expires_at = now() WHERE user_id = 11 AND namespace_id IS NULL"
        )
    assert await _reach(tenants, user_of(1)) == (False, [1])


async def test_a_revoked_grant_takes_effect_within_a_transaction(tenants: Database) -> None:
    async with tenants.app(user_of(1)) as app:
        assert await app.fetchval("SELECT count(*) FROM containers") == 1
        async with tenants.owner() as owner:
            await owner.execute("DELETE FROM user_roles WHERE user_id = 11")
        assert await app.fetchval("SELECT count(*) FROM containers") == 0


@pytest.mark.parametrize("namespace_id", ["1", "NULL"])
async def test_a_grant_is_unique_by_user_role_and_namespace(tenants: Database, namespace_id: str) -> None:
    """NULL, which means every namespace, counts as a value for the unique constraint."""
    statement = f"INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (12, 2, {namespace_id})"
    async with tenants.owner() as owner:
        await owner.execute(statement)
        with pytest.raises(asyncpg.UniqueViolationError, match="uq_user_roles"):
            await owner.execute(statement)


async def test_a_recreated_namespace_has_none_of_the_old_grants(
    tenants: Database,
) -> None:
    async with tenants.owner() as owner:
        await owner.execute("UPDATE namespaces SET deleted_at = now() WHERE id = 1")
        await owner.execute(
            "INSERT INTO namespaces (name, kubernetes_name, cluster_name) VALUES ('alpha', 'alpha', 'alpha-cluster')"
        )
    async with tenants.app(user_of(1)) as app:
        assert [row[0] for row in await app.fetch("SELECT id FROM namespaces WHERE deleted_at IS NULL")] == []


async def test_names_are_unique_except_for_deleted_rows(tenants: Database) -> None:
    async with tenants.owner() as owner:
        again = (
            "INSERT INTO namespaces (name, kubernetes_name, cluster_name) VALUES ($1, $2, 'alpha-cluster')"
        )
        with pytest.raises(asyncpg.UniqueViolationError, match="uq_namespaces_name"):
            await owner.execute(again, "alpha", "other")
        # Two tenants must never share one Kubernetes namespace.
        with pytest.raises(asyncpg.UniqueViolationError, match="uq_namespaces_cluster_kubernetes_name"):
            await owner.execute(again, "other", "alpha")
        user = """INSERT INTO users (username, username_normalized, email, email_normalized, password_hash)
            VALUES ('Alpha', 'alpha', 'x', 'x', '!')"""
        with pytest.raises(asyncpg.UniqueViolationError, match="uq_users_username"):
            await owner.execute(user)
        await owner.execute("UPDATE users SET deleted_at = now() WHERE id = 11")
        await owner.execute(user)
