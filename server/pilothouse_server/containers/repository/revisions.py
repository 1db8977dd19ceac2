"""The newest revision of a container, in the form that the SQL functions read."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import orjson

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.revisions import desired_fields, revisions_kept
from pilothouse_server.store.audit_records import canonical_time


def revision_row(
    wanted: Container,
    number: int,
    operation_id: UUID,
    stored: Container | None = None,
    origin: int | None = None,
) -> dict[str, Any]:
    """Returns the newest revision of a container for the SQL function `write_revision`.

    `stored`: the container before the change. If it has no revision, its state is written as one, too.
    """
    row = {
        "number": number,
        "document": _document(wanted),
        "origin": origin,
        "operation_id": str(operation_id),
        "kept": revisions_kept(wanted),
    }
    if stored is not None and stored.revision_number == 0:
        changed = stored.updated_at or stored.created_at
        row |= {"before": _document(stored), "before_at": changed and canonical_time(changed)}
    return row


def _document(container: Container) -> orjson.Fragment:
    return orjson.Fragment(msgspec.json.encode(desired_fields(container)))
