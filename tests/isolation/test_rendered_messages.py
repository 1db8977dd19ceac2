"""No caller can store bytes for a row outside their reach, or for a version other than the row's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Database
from tests.migrations.filling import ADMINISTRATOR, user_of

_KEPT = "SELECT message FROM rendered_messages WHERE resource_type = $1 AND resource_id = $2"
_TYPES = ("container", "volume", "namespace")


async def _put(database: Database, user_id: int, **fields: Any) -> None:
    """Writes an event as a server would, with the bytes `new` of its message marked to be stored."""
    event = {
        "resource_name": "web",
        "kind": "modified",
        "row_version": 1,
        "format": 2,
        "kept_at": 2,
        "kept_bytes": 3,
        **fields,
    }
    async with database.app(user_id) as app:
        await app.execute(
            "SELECT put_changes('[]', '{}', $1::text::jsonb, ARRAY['xxnewyy'::bytea])", json.dumps([event])
        )


@pytest.mark.parametrize("resource_type", _TYPES)
async def test_the_marked_part_of_the_message_is_stored(tenants: Database, resource_type: str) -> None:
    await _put(tenants, user_of(1), resource_type=resource_type, resource_id=1, namespace_id=1)
    async with tenants.owner() as owner:
        assert await owner.fetchval(_KEPT, resource_type, 1) == b"new"


@pytest.mark.parametrize("resource_type", _TYPES)
@pytest.mark.parametrize("user_id", [user_of(1), ADMINISTRATOR])
async def test_a_foreign_row_keeps_its_bytes(tenants: Database, resource_type: str, user_id: int) -> None:
    """The event names the caller's own namespace, but another tenant's resource."""
    async with tenants.owner() as owner:
        before = await owner.fetchval(_KEPT, resource_type, 2)
        await _put(tenants, user_id, resource_type=resource_type, resource_id=2, namespace_id=1)
        assert await owner.fetchval(_KEPT, resource_type, 2) == before


@pytest.mark.parametrize(
    "fields",
    [{"row_version": 2}, {"row_version": 0}, {"format": 0}, {"kind": "deleted"}, {"kept_bytes": 0}],
)
async def test_bytes_of_another_version_or_older_format_are_not_stored(
    tenants: Database, fields: dict[str, Any]
) -> None:
    await _put(tenants, user_of(1), resource_type="container", resource_id=1, namespace_id=1, **fields)
    async with tenants.owner() as owner:
        assert await owner.fetchval(_KEPT, "container", 1) == b"\x01"


async def test_an_event_without_bytes_to_store_changes_no_message(tenants: Database) -> None:
    event = {
        "resource_type": "container",
        "resource_id": 1,
        "namespace_id": 1,
        "resource_name": "web",
        "kind": "modified",
    }
    async with tenants.app(user_of(1)) as app:
        await app.execute("UPDATE containers SET status = 'failed' WHERE id = 1")
        await app.execute(
            "SELECT put_changes('[]', '{}', $1::text::jsonb, ARRAY['new'::bytea])", json.dumps([event])
        )
    async with tenants.owner() as owner:
        assert await owner.fetchval(_KEPT, "container", 1) == b"\x01"
        versions = await owner.fetchrow(
            "SELECT c.row_version, m.row_version FROM containers AS c JOIN rendered_messages AS m"
            " ON m.resource_type = 'container' AND m.resource_id = c.id WHERE c.id = 1"
        )
        assert versions is not None
        assert tuple(versions) == (2, 1)
