"""The role `auditor`, over all namespaces and in one: it reads, verifies and exports, and has no other rights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError, audit_verifier
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from tests.conftest import Database, connection, new_database
from tests.harness import Server, running_server
from tests.transparency.logs import exported, fill, lines_of

AUDITOR = ("audit.get", "audit.list", "audit.watch", "audit.verify", "audit.export")


@dataclass
class Tenants:
    """A server with records of two namespaces, an auditor of one of them, and an auditor of all."""

    server: Server
    own: AsyncClient
    all: AsyncClient
    ids: dict[str, int]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenants(postgres, template_database, tmp_path_factory) -> AsyncIterator[Tenants]:  # type: ignore[no-untyped-def]
    directory: Path = tmp_path_factory.mktemp("tenants")
    async with (
        new_database(postgres, template_database.name) as database,
        running_server(database, directory, with_cluster=False, audit_seal_seconds=600.0) as server,
    ):
        ids = {}
        for name in ("own", "foreign"):
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
            ids[name] = await namespace_id(database, name)
            await fill(server, 20, namespace_id=ids[name])
        yield Tenants(
            server,
            await server.user("tess", {"own": "auditor"}),
            await server.user("alice", {"": "auditor"}),
            ids,
        )


async def namespace_id(database: Database, name: str) -> int:
    async with connection(database.admin_dsn) as sql:
        return int(await sql.fetchval("SELECT id FROM namespaces WHERE name = $1", name))


async def verdict(client: AsyncClient, namespace: str = "") -> pb.VerifyAuditLogResponse:
    async with client.audit.verify_audit_log(namespace=namespace) as answers:
        *_, last = [answer async for answer in answers]
    return last


def test_the_role_permits_only_the_audit_log() -> None:
    assert sorted(SHIPPED_ROLES["auditor"].permissions) == sorted(AUDITOR)


@pytest.mark.parametrize("named", [True, False])
async def test_a_namespace_auditor_exports_and_verifies_its_records(
    tenants: Tenants, tmp_path: Path, *, named: bool
) -> None:
    namespace = "own" if named else ""
    file = tmp_path / "export"
    await exported(tenants.own, file, namespace=namespace)
    head, *entries, _ = lines_of(file)
    records = [json.loads(entry["record"]) for entry in entries]
    mine = {each["namespace_id"] for each in records if each["username"] != "tess"}
    assert mine == {tenants.ids["own"]}
    assert len(records) > 20
    found = audit_verifier.verify(iter(file.read_text().splitlines()), head["keys"][0])
    assert (found["complete"], found["records"]) == (False, len(records))
    verified = await verdict(tenants.own, namespace)
    assert verified.intact, verified.findings
    assert not verified.complete
    assert len(records) <= verified.verified_records < verified.total_records


async def test_an_auditor_of_all_namespaces_sees_the_whole_log(tenants: Tenants, tmp_path: Path) -> None:
    await exported(tenants.all, tmp_path / "export")
    lines = lines_of(tmp_path / "export")
    assert lines[-1]["complete"]
    verified = await verdict(tenants.all)
    assert (verified.intact, verified.complete) == (True, True)
    assert verified.verified_records == verified.total_records
    assert not (await verdict(tenants.all, "own")).complete


async def test_an_altered_record_is_found_by_auditors_who_may_see_it(tenants: Tenants) -> None:
    async with connection(tenants.server.database.admin_dsn) as sql:
        for namespace, finders in (("own", (tenants.own, tenants.all)), ("foreign", (tenants.all,))):
            sequence, before = await sql.fetchrow(
                "SELECT sequence, user_agent FROM operation_logs WHERE namespace_id = $1 AND username = 'somebody' "
                "ORDER BY sequence LIMIT 1",
                tenants.ids[namespace],
            )
            alter = "UPDATE operation_logs SET user_agent = $2 WHERE sequence = $1"
            await sql.execute(alter, sequence, "another")
            try:
                for client in (tenants.own, tenants.all):
                    found = [(each.fault, each.first_sequence) for each in (await verdict(client)).findings]
                    expected = [(pb.AUDIT_FAULT_ALTERED, sequence)] if client in finders else []
                    assert found == expected, namespace
            finally:
                await sql.execute(alter, sequence, before)


async def test_an_auditor_has_no_access_to_other_namespaces_or_methods(tenants: Tenants) -> None:
    own = tenants.own
    for call, codes in (
        (verdict(own, "foreign"), {"NOT_FOUND"}),
        (own.namespaces.get(name="own"), {"PERMISSION_DENIED"}),
        (own.containers.get(namespace="own", name="web"), {"PERMISSION_DENIED"}),
        (own.namespaces.delete(name="own"), {"PERMISSION_DENIED"}),
        (tenants.all.identity.create_role(role=identity_pb2.Role(name="a")), {"PERMISSION_DENIED"}),
        (tenants.all.audit.delete_audit_sink(name="siem"), {"PERMISSION_DENIED"}),
    ):
        with pytest.raises(PilothouseError) as caught:
            await call
        assert caught.value.code.name in codes


@pytest.mark.parametrize("permission", ["audit.verify", "audit.export"])
async def test_each_permission_works_alone_in_one_namespace(
    tenants: Tenants, tmp_path: Path, permission: str
) -> None:
    name = permission.replace(".", "-")
    admin = tenants.server.admin.identity
    await admin.create_role(role=identity_pb2.Role(name=name, permissions=[permission]))
    user = await tenants.server.user(name, {"own": name})
    file = tmp_path / "export"
    if permission == "audit.verify":
        assert (await verdict(user, "own")).verified_records > 20
        with pytest.raises(PilothouseError) as caught:
            await exported(user, file, namespace="own")
    else:
        await exported(user, file, namespace="own")
        with pytest.raises(PilothouseError) as caught:
            await verdict(user, "own")
    assert caught.value.code.name == "PERMISSION_DENIED"
