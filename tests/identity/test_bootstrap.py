"""The start of a server: updated shipped roles, and one administrator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.accounts.bootstrap import bootstrap
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database, number_changes
from tests.identity.server import ADMIN_PASSWORD, refused, running, settings_of


@pytest_asyncio.fixture(loop_scope="session")
async def store(database: Database) -> AsyncIterator[Store]:
    engines = Engines.connect(settings_of(database))
    try:
        yield Store(engines)
    finally:
        await engines.close()


@pytest.fixture
def passwords(database: Database) -> NewPasswords:
    return NewPasswords(Passwords(), settings_of(database))


async def test_replicas_that_start_together_create_one_administrator(
    store: Store, passwords: NewPasswords
) -> None:
    starts = await asyncio.gather(*(bootstrap(store, passwords, "") for _ in range(4)))
    made = [start for start in starts if start.administrator_created]
    assert len(made) == 1
    assert len(made[0].random_password or "") >= 24
    assert (made[0].random_password or "") not in repr(made[0])
    assert all(start.random_password is None for start in starts if start is not made[0])


async def test_a_given_password_is_not_shown_and_only_the_first_applies(
    database: Database, store: Store, passwords: NewPasswords
) -> None:
    first = await bootstrap(store, passwords, ADMIN_PASSWORD)
    assert (first.administrator_created, first.random_password) == (True, None)
    again = await bootstrap(store, passwords, "another long password")
    assert not again.administrator_created
    async with running(database) as server:
        await server.admin()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("short", "12 to 1024 characters"),
        ("admin-and-more-of-it", "must not contain the user name"),
        (ADMIN_PASSWORD, ""),
    ],
)
async def test_a_weak_password_is_accepted_and_its_rule_is_logged(
    store: Store, passwords: NewPasswords, given: str, rule: str
) -> None:
    with capture_logs() as lines:
        made = await bootstrap(store, passwords, given)
    assert made.administrator_created
    told = [
        line
        for line in lines
        if line["event"] == "the bootstrap password is weak or cannot be checked: change it"
    ]
    assert len(told) == bool(rule)
    assert all(rule in line["rule"] and given not in line["rule"] for line in told)


async def test_a_deleted_administrator_stays_deleted(database: Database) -> None:
    async with running(database) as server:
        admin = await server.admin()
        second = await server.user(admin, "second", ("admin", ""))
        await second.DeleteUser(pb.DeleteUserRequest(username="admin"))
    async with running(database) as server:
        login = pb.LoginRequest(username="admin", password=ADMIN_PASSWORD)
        assert (await refused(server.stranger, "Login", login)).reason == "INVALID_CREDENTIALS"
        await server.log_in("second")


async def test_shipped_roles_are_updated(database: Database, store: Store, passwords: NewPasswords) -> None:
    await bootstrap(store, passwords, ADMIN_PASSWORD)
    async with database.system() as connection:
        query = "SELECT name, permissions, resource_version FROM roles ORDER BY name"
        before = await connection.fetch(query)
        await connection.execute("""UPDATE roles SET permissions = '["*"]' WHERE name = 'viewer'""")
        await bootstrap(store, passwords, ADMIN_PASSWORD)
        after = await connection.fetch(query)
        await number_changes(connection)
        records = await connection.fetch(
            "SELECT action, resource_type, resource_name FROM operation_logs ORDER BY sequence"
        )
    assert [row["permissions"] for row in after] == [row["permissions"] for row in before]
    assert [row["name"] for row, old in zip(after, before, strict=True) if row != old] == ["viewer"]
    assert [tuple(row) for row in records][-4:] == [
        ("update", "role", "auditor"),
        ("create", "user", "admin"),
        ("grant", "role_grant", "admin"),
        ("update", "role", "viewer"),
    ]
