"""A filled database of the release before goes up to this one, and down again, while servers of both write to it.

The release before is told by its schema, 0014: its servers write through `append_changes`, and its resume tokens are of
an older form. What fills the database is made through the API, and taken down to that schema.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as container
from pilothouse.namespace.v1 import namespace_pb2 as namespace
from pilothouse_client import AsyncClient
from pilothouse_migrations import runner
from pilothouse_server.encryption.keys import KeyRing
from tests.conftest import Database, connection, number_changes
from tests.harness import running_server
from tests.promises.chain import broken_links
from tests.promises.watches import told
from tests.waiting import within

BEFORE = "0014"
SPACE = "shop"
CHANGES = 15
_WATCH = "/pilothouse.container.v1.ContainerService/WatchContainers"


def a_record() -> dict[str, Any]:
    """An audit record as servers of both releases make it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    unset = (
        "user_id",
        "resource_id",
        "namespace_id",
        "request_body",
        "request_headers",
        "client_ip",
        "user_agent",
    )
    return {
        **dict.fromkeys((*unset, "response_body", "error_code", "error_message", "stream_id")),
        "operation_id": str(uuid4()),
        "username": "admin",
        "action": "update",
        "resource_type": "container",
        "resource_name": "web",
        "request_method": "UNARY",
        "request_path": "/pilothouse.container.v1.ContainerService/UpdateContainer",
        "status_code": 200,
        "duration_ms": 1,
        "started_at": now,
        "completed_at": now,
        "metadata": {},
    }


def record_hash(one: dict[str, Any]) -> bytes:
    """Of its canonical form, as `tests.promises.chain` reads it."""
    return hashlib.sha256(json.dumps(one, sort_keys=True, separators=(",", ":")).encode()).digest()


async def old_server_relabels(sql: asyncpg.Connection, step: int) -> None:
    """One mutation as a server of the release before makes it: the row, then `append_changes`, in one transaction."""
    async with sql.transaction():
        row = await sql.fetchrow(
            "UPDATE containers SET labels = jsonb_build_object('old', $1::text), generation = generation + 1, "
            "resource_version = resource_version + 1 WHERE name = 'web' RETURNING *",
            str(step),
        )
        assert row is not None
        etag = base64.urlsafe_b64encode(f"{str(row['uid'])[:8]}/{row['resource_version']}".encode())
        message = container.Container(
            name="web",
            namespace=SPACE,
            uid=str(row["uid"]),
            etag=etag.decode().rstrip("="),
            labels={"old": str(step)},
        )
        one = a_record()
        event = {
            "resource_type": "container",
            "resource_id": row["id"],
            "namespace_id": row["namespace_id"],
            "resource_name": "web",
            "kind": "modified",
            "status": row["status"],
            "labels": {"old": str(step)},
            "labels_before": {},
            "status_before": row["status"],
            "message": base64.b64encode(message.SerializeToString()).decode(),
        }
        # The record is of nobody, as the server's own are.
        await sql.execute("SET LOCAL ROLE pilothouse_system")
        await sql.fetchrow(
            "SELECT * FROM append_changes($1::text::jsonb, $2::text::jsonb)",
            json.dumps([{**one, "record_hash": record_hash(one).hex()}]),
            json.dumps([event]),
        )


async def fill_by_the_api(client: AsyncClient) -> None:
    """A namespace, containers, and changes of them."""
    await client.namespaces.create(namespace=namespace.Namespace(name=SPACE))
    for name in ("web", "api"):
        made = container.Container(name=name, image="nginx:1.27", replicas=0)
        await client.containers.create(namespace=SPACE, container=made)
    await client.containers.stop(namespace=SPACE, name="api")


@asynccontextmanager
async def of_the_release_before(database: Database, directory: Path) -> AsyncIterator[None]:
    """A database that the release before filled, and wrote to last."""
    async with running_server(database, directory, with_cluster=False) as server:
        await fill_by_the_api(server.admin)
    assert runner.revisions()[-1] != BEFORE
    await runner.downgrade(database.maintenance_dsn, BEFORE)
    async with connection(database.admin_dsn) as sql:
        assert await sql.fetchval("SELECT to_regclass('pending_changes')") is None
        for step in range(3):
            await old_server_relabels(sql, step)
        assert await broken_links(sql) == []
    yield


async def old_token(database: Database, directory: Path) -> str:
    """A resume token as the release before made it, of the administrator's watch over all containers of SPACE."""
    async with connection(database.admin_dsn) as sql:
        user = await sql.fetchval("SELECT id FROM users WHERE username = 'admin'")
        space = await sql.fetchval("SELECT id FROM namespaces WHERE name = $1", SPACE)
        revision = await sql.fetchval("SELECT revision FROM stream_head")
    key = KeyRing.load(directory / "master.key", create=False).derive("resume-token")

    def binding(*parts: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(key, "\x00".join(parts).encode(), "sha256")[:12]).decode()

    asked = binding("watch", str(user), _WATCH, "\x00".join((str(space), "", "", "")))
    return (
        asked + binding("history", "any", "") + base64.urlsafe_b64encode(revision.to_bytes(9, "big")).decode()
    )


@pytest.mark.full
async def test_what_the_release_before_left_goes_up(database: Database, tmp_path: Path) -> None:
    async with of_the_release_before(database, tmp_path):
        token = await old_token(database, tmp_path)
        await runner.upgrade(database.maintenance_dsn)
        async with connection(database.admin_dsn) as sql:
            assert await broken_links(sql) == [], "the old chain is whole"
        async with running_server(database, tmp_path, with_cluster=False) as server:
            shown = await server.admin.containers.get(namespace=SPACE, name="web")
            assert dict(shown.labels) == {"old": "2"}
            stream: Any = server.channel().unary_stream(
                _WATCH, request_serializer=container.WatchContainersRequest.SerializeToString
            )
            metadata = (("authorization", f"Bearer {await server.token()}"),)
            call = stream(
                container.WatchContainersRequest(namespace=SPACE, resume_token=token), metadata=metadata
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async with within(10):
                    await anext(aiter(call))
            assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE
        async with connection(database.admin_dsn) as sql:
            await number_changes(sql)
            assert await broken_links(sql) == [], "what this release wrote follows on it"


@pytest.mark.full
async def test_an_old_server_beside_a_new_one_keeps_the_order(database: Database, tmp_path: Path) -> None:
    async with (
        of_the_release_before(database, tmp_path),
        connection(database.admin_dsn) as sql,
    ):
        await runner.upgrade(database.maintenance_dsn)
        async with running_server(database, tmp_path, with_cluster=False) as server:
            began = await sql.fetchval("SELECT revision FROM stream_head")

            async def new_server_relabels(writer: str) -> None:
                for step in range(CHANGES):
                    changed = container.Container(labels={writer: str(step)})
                    await server.admin.containers.update(
                        namespace=SPACE,
                        name="web",
                        container=changed,
                        update_mask=FieldMask(paths=["labels"]),
                    )

            async def old_server_writes() -> None:
                for step in range(CHANGES):
                    await old_server_relabels(sql, step)

            await asyncio.gather(new_server_relabels("a"), new_server_relabels("b"), old_server_writes())
            await old_server_relabels(sql, 99)
            shown = await server.admin.containers.get(namespace=SPACE, name="web")
            assert dict(shown.labels) == {"old": "99"}, "a Get shows at once what an old server wrote"
        await number_changes(sql)
        rows = await sql.fetch(
            "SELECT message FROM events WHERE revision > $1 AND resource_name = 'web' ORDER BY revision",
            began,
        )
        versions = [told.version(container.Container.FromString(row["message"]).etag) for row in rows]
        last = await sql.fetchval("SELECT resource_version FROM containers WHERE name = 'web'")
        # What is observed makes events, too, of the version that there is.
        wanted = list(range(last - 3 * CHANGES, last + 1))
        assert [each for each in dict.fromkeys(versions) if each >= wanted[0]] == wanted
        assert versions == sorted(versions)
        assert await broken_links(sql) == []


async def test_nothing_pending_is_lost_on_the_way_down(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await fill_by_the_api(server.admin)
    async with connection(database.admin_dsn) as sql:
        await number_changes(sql)
        before = await sql.fetchrow("SELECT revision, audit_sequence FROM stream_head")
        assert before is not None
        for number in range(1200):
            one = a_record()
            message = {
                "resource_type": "container",
                "resource_id": number,
                "resource_name": "x",
                "kind": "added",
            }
            await _put(sql, one, message)
        await runner.downgrade(database.maintenance_dsn, BEFORE)
        after = await sql.fetchrow("SELECT revision, audit_sequence FROM stream_head")
        assert after is not None
        assert (
            after["revision"] - before["revision"],
            after["audit_sequence"] - before["audit_sequence"],
        ) == (
            1200,
            1200,
        )
        assert await broken_links(sql) == []
        await old_server_relabels(sql, 1)
        assert await broken_links(sql) == [], "an old server goes on from there"


async def _put(sql: asyncpg.Connection, one: dict[str, Any], event: dict[str, Any]) -> None:
    async with sql.transaction():
        await sql.execute("SET LOCAL ROLE pilothouse_system")
        await sql.fetchval(
            "SELECT put_changes($1::text::jsonb, $2::bytea[], $3::text::jsonb, $4::bytea[])",
            json.dumps([one]),
            [record_hash(one)],
            json.dumps([event]),
            [b"a message"],
        )
