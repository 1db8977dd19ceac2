"""The checker of cached messages.

A message that is stored next to a row must equal the one rendered from that row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import text

from pilothouse.options.v1 import options_pb2
from pilothouse_server.app import Application
from pilothouse_server.store.backfill import Watched
from tests.services import METHODS

# The messages of resources that have a create method, by the resource type in the audit log.
MESSAGES: dict[str, type[Message]] = {
    rule.resource_type: GetMessageClass(field.message_type)
    for method in METHODS
    if (rule := method.GetOptions().Extensions[options_pb2.method]).action == "create"
    for field in method.output_type.fields[:1]
    if field.message_type is not None
}


@dataclass
class Findings:
    """Messages that differ from their row, and resources without a message.

    Only messages that would be shown count.
    """

    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    shown: int = 0


async def look(application: Application) -> Findings:
    """Compares all stored messages with their rows, in one snapshot."""
    assert len(application.watched) > 5
    found = Findings()
    async with application.store.system_read(snapshot=True) as transaction:
        for name, watched in application.watched.items():
            rows = await transaction.connection.execute(
                text(
                    "SELECT resource_id AS id FROM watched_rows WHERE resource_type = :name ORDER BY resource_id"
                ),
                {"name": name},
            )
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
    shown, expected = (MESSAGES[kind].FromString(each) for each in (row.message, rendered.kept))
    if shown != expected:
        found.wrong.append(f"{kind} {value.name}: {shown} is not {expected}")
