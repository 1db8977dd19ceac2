"""A record names its caller, and either no namespace or one within the caller's reach, whichever role writes it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database, connection, number_changes
from tests.harness import Server, running_server
from tests.identity.server import settings_of
from tests.migrations.filling import ADMINISTRATOR, user_of
from tests.transparency.logs import a_record

_PUT = "SELECT put_changes($1::text::jsonb, ARRAY[sha256('record')], '[]', '{}')"
_OPERATION = (
    "SELECT put_changes('[]', '{}', '[]', '{}', jsonb_build_object('operation_id', gen_random_uuid(), "
    "'method', 'Create', 'resource_type', 'container', 'user_id', 11, 'namespace_id', $1::bigint))"
)
_LOGIN = "own_records_member"


def _record(**columns: Any) -> str:
    return json.dumps(
        [
            {
                "action": "update",
                "resource_type": "container",
                "user_id": user_of(1),
                "username": "alpha",
                **columns,
            }
        ]
    )


_FORGED = {
    "another's name": {"username": "root"},
    "no name": {"username": None},
    "another's name in the other tenant's namespace": {"username": "root", "namespace_id": 2},
    "another's id": {"user_id": user_of(2)},
    "another's id and name": {"user_id": user_of(2), "username": "beta"},
    "nobody, as the server itself": {"user_id": None, "username": "system"},
    "the other tenant's namespace": {"namespace_id": 2},
    "a namespace that is not there": {"namespace_id": 404},
}


@pytest.mark.parametrize("forged", _FORGED.values(), ids=_FORGED)
async def test_requests_cannot_write_a_forged_record_of(tenants: Database, forged: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenants.app(user_of(1)) as app:
            await app.execute(_PUT, _record(**forged))


async def test_requests_without_a_user_write_nothing(tenants: Database) -> None:
    for forged in ({}, {"user_id": None, "username": "system"}, {"user_id": None, "username": None}):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenants.app() as app:
                await app.execute(_PUT, _record(**forged))


@pytest.mark.parametrize("namespace_id", [None, 1])
async def test_requests_write_their_own_records(tenants: Database, namespace_id: int | None) -> None:
    async with tenants.app(user_of(1)) as app:
        assert await app.fetchval(_PUT, _record(namespace_id=namespace_id)) > 0


async def test_an_administrator_writes_own_records_of_any_namespace(tenants: Database) -> None:
    for namespace_id in (None, 1, 2, 404):
        async with tenants.app(ADMINISTRATOR) as app:
            record = _record(user_id=ADMINISTRATOR, username="root", namespace_id=namespace_id)
            await app.execute(_PUT, record)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenants.app(ADMINISTRATOR) as app:
            await app.execute(_PUT, _record(user_id=ADMINISTRATOR, username="alpha"))


async def test_an_operation_needs_a_namespace_within_the_callers_reach(tenants: Database) -> None:
    for namespace_id in (None, 1):
        async with tenants.app(user_of(1)) as app:
            await app.execute(_OPERATION, namespace_id)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tenants.app(user_of(1)) as app:
            await app.execute(_OPERATION, 2)


async def test_a_self_revoked_grant_allows_a_record_of_its_namespace_only(tenants: Database) -> None:
    for namespace_id, written in ((1, True), (2, False)):
        outcome = None
        try:
            async with tenants.app(user_of(1)) as app:
                await app.execute("DELETE FROM user_roles WHERE user_id = 11")
                await app.execute(_PUT, _record(namespace_id=namespace_id))
                if not written:
                    pytest.fail("a record of a namespace that was never reached is written")
                raise _TakenBackError
        except (_TakenBackError, asyncpg.InsufficientPrivilegeError) as error:
            outcome = error
        assert isinstance(outcome, _TakenBackError) is written
    # Without any grant, the user can still write records without a namespace.
    async with tenants.app(user_of(1)) as app:
        await app.execute("DELETE FROM user_roles WHERE user_id = 11")
        await app.execute(_PUT, _record())
    # A grant that another user revoked does not allow the record.
    async with tenants.owner() as owner:
        await owner.execute("INSERT INTO user_roles (user_id, role_id, namespace_id) VALUES (11, 2, 1)")
    async with tenants.app(user_of(1)) as app, tenants.owner() as owner:
        await owner.execute("DELETE FROM user_roles WHERE user_id = 11")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(_PUT, _record(namespace_id=1))


class _TakenBackError(Exception):
    """Ends a transaction and rolls it back."""


@asynccontextmanager
async def _member(database: Database, role: str) -> AsyncIterator[asyncpg.Connection]:
    """Yields a login that is a member of a role, in a transaction of a tenant's user."""
    async with connection(database.admin_dsn) as admin:
        await admin.execute(f"CREATE ROLE {_LOGIN} IN ROLE {role}")
        try:
            async with admin.transaction():
                await admin.execute(f"SET LOCAL SESSION AUTHORIZATION {_LOGIN}")
                await admin.execute("SELECT set_config('app.current_user_id', '11', true)")
                yield admin
        finally:
            await admin.execute("RESET SESSION AUTHORIZATION")
            await admin.execute(f"DROP ROLE {_LOGIN}")


@pytest.mark.parametrize("role", ["pilothouse_app", "pilothouse_system"])
async def test_a_login_that_is_a_member_of_a_role_is_checked(tenants: Database, role: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="own name"):
        async with _member(tenants, role) as login:
            await login.execute(_PUT, _record(username="root", namespace_id=2))


async def test_a_login_with_the_system_role_writes_records_of_others(tenants: Database) -> None:
    async with _member(tenants, "pilothouse_system") as login:
        await login.execute("SET LOCAL ROLE pilothouse_system")
        assert await login.fetchval(_PUT, _record(user_id=None, username="root", namespace_id=2)) > 0


async def _written(server: Server, username: str) -> list[tuple[str, str, str | None, bool]]:
    """Returns action, resource type, error code and whether there is a namespace, for each mutation of a user."""
    async with connection(server.database.admin_dsn) as sql:
        await number_changes(sql)
        rows = await sql.fetch(
            "SELECT action, resource_type, error_code, namespace_id IS NOT NULL AS placed FROM operation_logs "
            "WHERE username = $1 AND user_id = (SELECT id FROM users WHERE username = $1) "
            "AND action NOT IN ('get', 'list', 'login') ORDER BY sequence",
            username,
        )
    return [(row["action"], row["resource_type"], row["error_code"], row["placed"]) for row in rows]


async def test_every_call_to_a_server_leaves_its_record(database: Database, tmp_path: Path) -> None:
    """Covers namespace creation and deletion, self-revoked grants, a denied call and records without a namespace."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        namespaces = server.admin.namespaces
        await namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        ada = await server.user("ada", {"": "admin"})
        ben = await server.user("ben", {"shop": "admin"})
        await ada.namespaces.create(namespace=namespace_pb2.Namespace(name="toys"))
        await ada.namespaces.delete(name="toys")
        await ada.identity.revoke_role(username="ada", role="admin", namespace="")
        with pytest.raises(PilothouseError, match="PERMISSION_DENIED"):
            await ben.namespaces.create(namespace=namespace_pb2.Namespace(name="more"))
        await ben.identity.revoke_role(username="ben", role="admin", namespace="shop")
        assert await _written(server, "ada") == [
            ("create", "namespace", None, True),
            ("delete", "namespace", None, True),
            ("revoke", "role_grant", None, False),
        ]
        assert await _written(server, "ben") == [
            ("create", "namespace", "PERMISSION_DENIED", False),
            ("revoke", "role_grant", None, True),
        ]


async def test_a_server_sets_its_roles_when_logins_are_members(tenants: Database) -> None:
    members = {role: f"own_records_{role}" for role in ("app", "system")}
    async with connection(tenants.admin_dsn) as admin:
        for role, login in members.items():
            await admin.execute(f"CREATE ROLE {login} LOGIN IN ROLE pilothouse_{role}")
        pools = Pools.connect(
            settings_of(
                tenants,
                database_url=tenants.app_dsn.replace("pilothouse_app", members["app"]),
                system_database_url=tenants.system_dsn.replace("pilothouse_system", members["system"]),
                replica_database_url=tenants.app_dsn.replace("pilothouse_app", members["app"]),
                direct_database_url="",
            )
        )
        try:
            assert pools.replica is not None
            for pool, role in ((pools.app, "app"), (pools.replica, "app"), (pools.system, "system")):
                async with pool.connect() as opened:
                    found = (await opened.execute(text("SELECT session_user, current_user"))).one()
                    assert tuple(found) == (members[role], f"pilothouse_{role}")
            # The audit writer uses this role to write records of other users.
            unit = Store(pools).system_unit()
            await unit.begin()
            await unit.commit(audit=[a_record(1, namespace_id=2)])
        finally:
            await pools.close()
            for login in members.values():
                await admin.execute(f"DROP ROLE {login}")
