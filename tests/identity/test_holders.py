"""The holders of a permission, compared with a model that checks every grant.

Roles, users and grants are random.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.identity.access.operations import explanations
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.access.repository.grants import held, held_grants
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store.paging import PageRequest
from pilothouse_server.values.names import normalise_username
from tests.conftest import Database, connection, new_database
from tests.identity.server import KNOWN, RULES, IdentityServer, running

WORDS = PermissionWords(KNOWN, RULES.values())
_NAMESPACES = ("alpha", "beta", "gamma", "ended")
_Row = tuple[str, str, str]


@dataclass
class Placed:
    """A grant as it was inserted."""

    username: str
    grant: Grant
    lives: bool


@dataclass
class Holders:
    """The server, and the grants in its database."""

    server: IdentityServer
    placed: list[Placed] = field(default_factory=list)
    namespace_ids: dict[str, int] = field(default_factory=dict)

    def model(self, permission: str, namespace: str, readable: set[str] | None) -> set[_Row]:
        """Returns the holders of a permission in a namespace; '' means any namespace.

        Only grants in the namespaces of `readable` are shown; None means all grants.
        """
        found = set()
        for placed in self.placed:
            grant = placed.grant
            if not placed.lives or not grant.holds(permission):
                continue
            if grant.namespace is None:
                shown = readable is None
            else:
                shown = namespace in ("", grant.namespace) and not WORDS.works_over_all_only(permission)
                shown = shown and (readable is None or grant.namespace in readable)
            if shown:
                found.add((placed.username, grant.role, grant.namespace or ""))
        return found

    async def told(self, caller: Principal, permission: str, namespace: str) -> tuple[set[_Row], bool]:
        """Returns the holders as the server finds them, and whether the list is partial."""
        question = WORDS.question(permission, namespace)
        page = PageRequest(key=bytes(32), page_size=1000)
        async with self.server.store.read(caller.user_id) as transaction:
            rows, _, partial = await explanations.list_holders(transaction, caller, question, page)
        found = [(row.username, row.role, row.namespace) for row in rows]
        assert len(found) == len(set(found))
        return set(found), partial


def _forms(chance: random.Random) -> list[str]:
    nouns = sorted({permission.partition(".")[0] for permission in KNOWN})
    kind = chance.random()
    if kind < 0.05:
        return ["*"]
    if kind < 0.1:
        return []
    return [
        f"{chance.choice(nouns)}.*" if chance.random() < 0.3 else chance.choice(sorted(KNOWN))
        for _ in range(chance.randint(1, 5))
    ]


async def _fill(made: Holders, sql: asyncpg.Connection, chance: random.Random) -> None:
    """Inserts random roles, users of every status, and grants.

    Grants are valid, expired, or in a deleted namespace.
    """
    for name in _NAMESPACES:
        made.namespace_ids[name] = await made.server.namespace(name)
    await sql.execute("UPDATE namespaces SET deleted_at = now() WHERE name = 'ended'")
    roles = {name: (list(role.permissions), role.excluded) for name, role in SHIPPED_ROLES.items()}
    for number in range(25):
        # One role has the permissions of a shipped role but not its exclusions.
        forms = list(SHIPPED_ROLES["developer"].permissions) if number == 0 else _forms(chance)
        roles[f"role{number}"] = (forms, frozenset())
        await sql.execute(
            "INSERT INTO roles (name, display_name, permissions) VALUES ($1, $1, $2)",
            f"role{number}",
            json.dumps(forms),
        )
    for number in range(40):
        username = f"User{number:02}"
        status = chance.choice(["active", "active", "active", "inactive", "locked"])
        deleted = chance.random() < 0.1
        user_id = await sql.fetchval(
            "INSERT INTO users "
            "(username, username_normalized, email, email_normalized, password_hash, status, deleted_at) "
            "VALUES ($1, $2, $2, $2, '!', $3, CASE WHEN $4 THEN now() END) RETURNING id",
            username,
            normalise_username(username),
            status,
            deleted,
        )
        for role in chance.sample(sorted(roles), chance.randint(0, 4)):
            place = chance.choice([None, *_NAMESPACES])
            ends = chance.choice([None, None, "1 hour", "-1 hour"])
            await sql.execute(
                "INSERT INTO user_roles (user_id, role_id, namespace_id, expires_at) "
                "SELECT $1, id, $3, now() + $4::text::interval FROM roles WHERE name = $2",
                user_id,
                role,
                made.namespace_ids.get(place or ""),
                ends,
            )
            forms, excluded = roles[role]
            grant = Grant(role, place, made.namespace_ids.get(place or ""), frozenset(forms), excluded)
            lives = status == "active" and not deleted and ends != "-1 hour" and place != "ended"
            made.placed.append(Placed(username, grant, lives))
    everything = Grant("admin", None, None, frozenset({"*"}))
    made.placed.append(Placed("admin", everything, lives=True))


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[1, 2])
async def holders(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, template_database: Database
) -> AsyncIterator[Holders]:
    async with new_database(postgres, template_database.name) as database, running(database) as server:
        made = Holders(server)
        async with connection(database.admin_dsn) as sql:
            await _fill(made, sql, random.Random(request.param))
        yield made


async def _principal(made: Holders, username: str) -> Principal:
    async with made.server.store.system_read() as transaction:
        rows = (await transaction.connection.execute(held())).all()
    own = [row for row in rows if row.username == username]
    return Principal(own[0].user_id, username, held_grants(own))


async def test_a_reader_of_all_grants_sees_every_holder(holders: Holders) -> None:
    admin = await _principal(holders, "admin")
    several = 0
    for permission in sorted(KNOWN):
        for namespace in ("", "alpha", "beta"):
            told, partial = await holders.told(admin, permission, namespace)
            assert told == holders.model(permission, namespace, None), (permission, namespace)
            assert not partial
            several += len(told) > 1
    # The environment contains grants.
    assert several > 50


async def test_other_readers_see_holders_only_where_they_may_read_grants(holders: Holders) -> None:
    async with connection(holders.server.database.admin_dsn) as sql:
        user_id = await sql.fetchval(
            "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash) "
            "VALUES ('reader', 'reader', 'reader', 'reader', '!') "
            "ON CONFLICT DO NOTHING RETURNING id"
        )
        for place, role in (("alpha", "admin"), ("beta", "viewer")):
            await sql.execute(
                "INSERT INTO user_roles (user_id, role_id, namespace_id) SELECT $1, id, $3 FROM roles WHERE name = $2",
                user_id,
                role,
                holders.namespace_ids[place],
            )
            shipped = SHIPPED_ROLES[role]
            own = Grant(
                role, place, holders.namespace_ids[place], frozenset(shipped.permissions), shipped.excluded
            )
            holders.placed.append(Placed("reader", own, lives=True))
    reader = await _principal(holders, "reader")
    for permission in sorted(KNOWN):
        for namespace in ("", "alpha"):
            told, partial = await holders.told(reader, permission, namespace)
            # The reader has a grant in `beta`, so row-level security shows the others' grants, but it may not
            # list them.
            assert told == holders.model(permission, namespace, {"alpha"}), (permission, namespace)
            assert partial
