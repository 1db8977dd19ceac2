"""How a change of a container that the transaction has locked is written: by one function of the database."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.containers.model import Container, Observed
from pilothouse_server.containers.repository.child_rows import columns_of, env_row, image_parts, port_row
from pilothouse_server.containers.repository.mounts import mount_rows
from pilothouse_server.store.append import Operation
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.actors import TriggeredBy

_UPDATE = text(
    "SELECT * FROM update_container(CAST(CAST(:container AS text) AS jsonb), CAST(CAST(:parts AS text) AS jsonb), "
    "CAST(CAST(:history AS text) AS jsonb), CAST(CAST(:operation AS text) AS jsonb), CAST(:mounted AS text[]))"
)


class HistoryLine(NamedTuple):
    """A line of the history of a container's status."""

    observed: Observed
    triggered_by: TriggeredBy = "user"


async def update_container(
    transaction: Transaction,
    stored: Container,
    wanted: Container,
    *,
    quota: tuple[int, int] | None = None,
    deleting: bool = False,
    history: HistoryLine | None = None,
    mounted: Collection[str] = (),
) -> Container:
    """Writes what is wanted of a container as a new generation, leaves it to the reconciler, and returns it as stored.

    `quota` only where it changes. `mounted`: volumes that it began or ceased to mount.

    Raises:
        Aborted: the row was written since it was read; not where the transaction had locked it.
    """
    columns: dict[str, Any] = {
        **columns_of(wanted),
        "id": stored.id,
        "namespace_id": stored.namespace_id,
        "cluster_name": stored.cluster_name,
        "row_version": stored.row_version,
        "generation": stored.generation + 1,
        "status": wanted.observed.status,
        "reason": wanted.observed.reason or None,
        "message": wanted.observed.message or None,
        "deleting": deleting,
    }
    if wanted.image != stored.image:
        columns["image"] = image_parts(wanted.image)
    if quota is not None:
        columns["quota_cpu_millicores"], columns["quota_memory_bytes"] = quota
    parts = None
    if (stored.env, stored.ports, stored.all_mounts) != (wanted.env, wanted.ports, wanted.all_mounts):
        parts = {
            "env": [env_row(position, item) for position, item in enumerate(wanted.env)],
            "ports": [port_row(port) for port in wanted.ports],
            "mounts": mount_rows(wanted),
        }
    transaction.follow_up |= bool(mounted)
    parameters = {
        "container": _json(columns),
        "parts": None if parts is None else _json(parts),
        "history": None if history is None else _json(_history(stored, history)),
        "operation": _operation(transaction, stored, history),
        "mounted": list(mounted),
    }
    (row,) = await transaction.connection.rows(_UPDATE, parameters)
    return msgspec.structs.replace(
        wanted,
        generation=stored.generation + 1,
        resource_version=row["new_resource_version"],
        row_version=row["new_row_version"],
        updated_at=row["moment"],
        deletion_requested_at=row["moment"] if deleting else stored.deletion_requested_at,
    )


def _history(stored: Container, line: HistoryLine) -> dict[str, Any]:
    return {
        "previous_status": stored.observed.status,
        "current_status": line.observed.status,
        "reason": line.observed.reason[:100] or None,
        "message": line.observed.message or None,
        "triggered_by": line.triggered_by,
    }


def _operation(transaction: Transaction, stored: Container, history: HistoryLine | None) -> str | None:
    if history is None or history.triggered_by != "user":
        return None
    return _json(
        Operation(
            transaction.operation_id,
            transaction.actor.user_id,
            transaction.method,
            "container",
            stored.id,
            stored.namespace_id,
            transaction.request_id,
        )
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
