"""The checker of cached messages: a message that is stored next to a row equals the one rendered from that row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import text

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.app import Application
from pilothouse_server.store.backfill import Watched

# Type of a resource -> its table, and its message.
KINDS: dict[str, tuple[str, type[Message]]] = {
    "container": ("containers", container_pb2.Container),
    "volume": ("volumes", storage_pb2.Volume),
    "service": ("services", network_pb2.Service),
    "config_map": ("config_maps", config_pb2.ConfigMap),
    "secret": ("secrets", config_pb2.Secret),
    "namespace": ("namespaces", namespace_pb2.Namespace),
}


@dataclass
class Findings:
    """Messages that would be shown and are not their row's; resources without a message that can be shown."""

    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    shown: int = 0


async def look(application: Application) -> Findings:
    """Compares all that there is, at one moment."""
    assert set(application.watched) == set(KINDS)
    found = Findings()
    async with application.store.system_read(snapshot=True) as transaction:
        for name, watched in application.watched.items():
            rows = await transaction.connection.execute(text(f"SELECT id FROM {KINDS[name][0]} ORDER BY id"))
            values = await watched.load(transaction, [row.id for row in rows])
            kept = {
                row.resource_id: row
                for row in await transaction.connection.execute(
                    text("SELECT * FROM rendered_messages WHERE resource_type = :name"), {"name": name}
                )
            }
            for value in values:
                _compare(found, name, watched, value, kept.get(value.id))
    return found


def _compare(found: Findings, kind: str, watched: Watched, value: Any, row: Any) -> None:
    rendered = watched.render(value)
    if row is None or (row.row_version, row.format) != (value.row_version, watched.format):
        if rendered.kept_bytes:
            found.missing.append(f"{kind} {value.name}")
        return
    found.shown += 1
    shown, expected = (KINDS[kind][1].FromString(each) for each in (row.message, rendered.kept))
    if shown != expected:
        found.wrong.append(f"{kind} {value.name}: {shown} is not {expected}")
