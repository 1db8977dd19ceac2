"""Changes a container with two statements.

The first reads the container with all facts, and the second writes the change. Both are SQL functions.
`admit_container_change` reads; `update_container` compares the facts with the present rows, and writes. A draft sends
`change_container`, which writes the change and its record in one message; nothing is locked before. A unit of work
locks the rows that it will write when it reads them, calls `update_container` for each of its containers, and writes
the records at its commit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import orjson
from sqlalchemy import DateTime, text

from pilothouse_server.containers.model import Container, Observed
from pilothouse_server.containers.namespace_facts import ChangeFacts, Needs
from pilothouse_server.containers.owned_services import owned_services
from pilothouse_server.containers.owned_volumes import claims_differ, claims_document, templates_of
from pilothouse_server.containers.repository.child_rows import columns_of, env_row, image_parts, port_row
from pilothouse_server.containers.repository.creation import (
    FACTS,
    facts_parameters,
    namespace_of,
    refuse_replay,
    used_of,
)
from pilothouse_server.containers.repository.mounts import mount_rows
from pilothouse_server.containers.repository.revisions import revision_row
from pilothouse_server.containers.repository.rows import container_of
from pilothouse_server.containers.revisions import desired_fields
from pilothouse_server.containers.tables import CONTAINERS
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.append import Operation
from pilothouse_server.store.audit_records import canonical_time
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.actors import TriggeredBy

_ADMIT = text(
    "SELECT * FROM admit_container_change(:user_id, CAST(:request_id AS uuid), :namespace, :name, :lock)"
)
_DOCUMENTS = ", ".join(f"CAST(CAST(:{name} AS text) AS jsonb)" for name in ("container", "parts", "history"))
_UPDATE = text(
    f"SELECT update_container({_DOCUMENTS}, CAST(CAST(:operation AS text) AS jsonb), "
    f"CAST(:mounted AS text[]), {FACTS})"
)
# Reads and locks the containers one after the other, in the order of their ids.
_ADMIT_MANY = text("""
SELECT a.* FROM (
    SELECT c.name FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
    WHERE n.name = :namespace AND n.deleted_at IS NULL AND c.name = ANY (CAST(:names AS text[])) ORDER BY c.id) AS w
CROSS JOIN LATERAL admit_container_change(:user_id, NULL, :namespace, w.name, true) AS a
""")
_UPDATE_MANY = text("""
SELECT update_container(r.container, r.parts, r.history, r.operation, r.mounted, r.namespace_version, r.limits,
    r.services, r.config_maps, r.secrets, r.volumes)
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container jsonb, parts jsonb, history jsonb, operation jsonb, mounted text[], namespace_version bigint,
    limits numeric[], services text[], config_maps text[], secrets text[], volumes jsonb)
""")
# Parameters of a change that are JSON texts.
_JSON = ("container", "parts", "history", "operation", "volumes")
_CHANGE = text(
    f"SELECT change_container(:user_id, {_DOCUMENTS}, CAST(:mounted AS text[]), {FACTS}, "
    "CAST(CAST(:audit AS text) AS jsonb), CAST(:hashes AS bytea[]), CAST(CAST(:events AS text) AS jsonb), "
    "CAST(:messages AS bytea[]), CAST(CAST(:operation AS text) AS jsonb), "
    "CAST(CAST(:idempotency AS text) AS jsonb))"
)
_TIMES = frozenset(column.name for column in CONTAINERS.c if isinstance(column.type, DateTime))


class HistoryLine(NamedTuple):
    """A line of the history of a container's status."""

    observed: Observed
    triggered_by: TriggeredBy = "user"


class ContainerChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a container that is to be written.

    `wanted`: the changed container, with its new status if the change alone decides it. `quota`: millicores and bytes
    that the container will count; None if they do not change. `mounted`: volumes that it starts or stops to mount. The
    write compares `namespace_version`, `limits`, `most` (Services, bytes of storage), `needs` and `volume_definitions`
    with the present facts; without a version, it compares only the container. `origin`: the number of the revision that
    a rollback restores.
    """

    stored: Container
    wanted: Container
    moment: datetime
    quota: tuple[int, int] | None = None
    deleting: bool = False
    history: HistoryLine | None = None
    mounted: Collection[str] = ()
    namespace_version: int | None = None
    limits: tuple[int, int, int] | None = None
    most: tuple[int, int] = (0, 0)
    needs: Needs = Needs()
    volume_definitions: str | None = None
    origin: int | None = None

    @property
    def written(self) -> Container:
        """The container as the change stores it, with a new generation."""
        return msgspec.structs.replace(
            self.wanted,
            generation=self.stored.generation + 1,
            resource_version=self.stored.resource_version + 1,
            row_version=self.stored.row_version + 1,
            revision_number=self.revision_number,
            updated_at=self.moment,
            deletion_requested_at=self.moment if self.deleting else self.stored.deletion_requested_at,
        )

    @property
    def revision_number(self) -> int:
        """The number of the newest revision after the change; for a container without any, two are written."""
        number = self.stored.revision_number
        if self.deleting or desired_fields(self.stored) == desired_fields(self.wanted):
            return number
        return number + 1 if number else 2

    @property
    def changes_services(self) -> bool:
        """Whether rows of the Services that the container owns are to be written."""
        before = owned_services(self.stored)
        return bool(before) if self.deleting else before != owned_services(self.wanted)

    @property
    def changes_claims(self) -> bool:
        """Whether rows of the volumes that the container owns are to be written."""
        return bool(templates_of(self.stored)) if self.deleting else claims_differ(self.stored, self.wanted)

    @property
    def follow_up(self) -> bool:
        """Whether the change leaves rows for another transaction."""
        return bool(self.mounted) or self.changes_services or self.changes_claims


async def admit_change(
    target: Draft | Transaction, namespace: str, name: str
) -> tuple[Namespace | None, ChangeFacts | None]:
    """Returns the namespace, and the facts that decide about a change of the container.

    Each is None if it does not exist or is outside of the caller's scope. A transaction locks both.

    Raises:
        Replayed, BeingServed: the request of the draft was sent before.
    """
    drafted = isinstance(target, Draft)
    parameters = {
        "request_id": target.request_id if drafted else None,
        "namespace": namespace,
        "name": name,
        "lock": not drafted,
    }
    (row,) = await target.read(_ADMIT, parameters)
    refuse_replay(row)
    if row["namespace_id"] is None:
        return None, None
    found = namespace_of(namespace, row)
    return found, _facts(found, row)


async def admit_changes(transaction: Transaction, namespace: str, names: Sequence[str]) -> list[ChangeFacts]:
    """Returns the facts of the existing containers of these names, in the order of their ids; locks them all."""
    rows = await transaction.read(_ADMIT_MANY, {"namespace": namespace, "names": list(names)})
    found = [_facts(namespace_of(namespace, row), row) async for row in cooperatively(rows)]
    return [each for each in found if each is not None]


def _facts(namespace: Namespace, row: Any) -> ChangeFacts | None:
    if row["container"] is None:
        return None
    stored = container_of(_row(namespace, row["container"]))
    return ChangeFacts(namespace, stored, used_of(row), row["moment"])


def _row(namespace: Namespace, document: str) -> Any:
    """Returns the document of `admit_container_change` as a row for `container_of`."""
    columns: dict[str, Any] = orjson.loads(document)
    for name in _TIMES:
        if (moment := columns[name]) is not None:
            columns[name] = datetime.fromisoformat(moment).astimezone(UTC)
    return SimpleNamespace(
        **columns,
        namespace_name=namespace.name,
        namespace_uid=namespace.uid,
        cluster_name=namespace.cluster_name,
        kubernetes_namespace=namespace.kubernetes_name,
    )


def draft_change(draft: Draft, change: ContainerChange) -> None:
    """Makes the draft write a change, with work for the reconciler."""
    draft.follow_up = change.follow_up
    draft.write(
        _CHANGE,
        _parameters(change, draft.operation_id),
        alone=("quota", change.stored.namespace_id) if change.limits or any(change.most) else None,
    )


async def write_change(transaction: Transaction, change: ContainerChange) -> None:
    """Writes a change, with work for the reconciler.

    Raises:
        Aborted: the facts are outdated, which cannot happen if the transaction had locked the rows.
    """
    transaction.follow_up |= change.follow_up
    parameters = {
        **_parameters(change, transaction.operation_id),
        "operation": _operation(transaction, change),
    }
    if change.namespace_version is None:
        await transaction.connection.rows(_UPDATE, parameters)
        return
    async with transaction.attempt():
        await transaction.connection.rows(_UPDATE, parameters)


async def write_changes(transaction: Transaction, changes: Sequence[ContainerChange]) -> None:
    """Writes changes with one statement, in their order; all or none. Raises as `write_change` does."""
    if not changes:
        return
    transaction.follow_up |= any(each.follow_up for each in changes)
    rows = [
        {**_parameters(each, transaction.operation_id), "operation": _operation(transaction, each)}
        async for each in cooperatively(changes)
    ]
    for row in rows:
        row.update((name, orjson.Fragment(row[name] or "null")) for name in _JSON)
    await transaction.connection.rows(_UPDATE_MANY, {"rows": orjson.dumps(rows).decode()})


def _parameters(change: ContainerChange, operation_id: UUID) -> dict[str, Any]:
    stored, wanted = change.stored, change.wanted
    columns: dict[str, Any] = {
        **columns_of(wanted),
        "id": stored.id,
        "kubernetes_name": wanted.kubernetes_name,
        "namespace_id": stored.namespace_id,
        "cluster_name": stored.cluster_name,
        "row_version": stored.row_version,
        "generation": stored.generation + 1,
        "updated_at": canonical_time(change.moment),
        "status": wanted.observed.status,
        "reason": wanted.observed.reason or None,
        "message": wanted.observed.message or None,
        "deleting": change.deleting,
        "services_changed": change.changes_services,
    }
    if (number := change.revision_number) != stored.revision_number:
        columns["revision"] = revision_row(wanted, number, operation_id, stored, change.origin)
    if change.changes_claims:
        columns["claims"] = claims_document(wanted, deleting=change.deleting)
    if wanted.image != stored.image:
        columns["image"] = image_parts(wanted.image)
    if change.quota is not None:
        columns["quota_cpu_millicores"], columns["quota_memory_bytes"] = change.quota
    parts = None
    # Rows are compared, because a mount may be unchanged while its volume becomes a volume of the namespace.
    if (stored.env, stored.ports, mount_rows(stored)) != (wanted.env, wanted.ports, mount_rows(wanted)):
        parts = {
            "env": [env_row(position, item) for position, item in enumerate(wanted.env)],
            "ports": [port_row(port) for port in wanted.ports],
            "mounts": mount_rows(wanted),
        }
    return {
        "container": _json(columns),
        "parts": None if parts is None else _json(parts),
        "history": None if change.history is None else _json(_history(stored, change.history)),
        "mounted": list(change.mounted),
        **facts_parameters(
            change.namespace_version,
            change.limits,
            change.most,
            change.needs,
            change.volume_definitions,
        ),
    }


def _history(stored: Container, line: HistoryLine) -> dict[str, Any]:
    return {
        "previous_status": stored.observed.status,
        "current_status": line.observed.status,
        "reason": line.observed.reason[:100] or None,
        "message": line.observed.message or None,
        "triggered_by": line.triggered_by,
    }


def _operation(transaction: Transaction, change: ContainerChange) -> str | None:
    """Returns the operation that a user's line of history refers to; without such a line, `put_changes` writes it."""
    if change.history is None or change.history.triggered_by != "user":
        return None
    return _json(
        Operation(
            transaction.operation_id,
            transaction.actor.user_id,
            transaction.method,
            "container",
            change.stored.id,
            change.stored.namespace_id,
            transaction.request_id,
        )
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
