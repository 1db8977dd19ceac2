"""Creates a container with two statements.

The first reads the deciding facts, and the second writes everything. Both are SQL functions. `admit_container` reads
the facts. `write_container` compares them with the present ones once it has the locks, refuses outdated facts, and
writes. Between the two statements, nothing is locked and no connection is in use. A draft sends `create_container`,
which writes the container and its record in one message. A unit of work calls `write_container` for each of its
containers, and writes the records at its commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec
import orjson
from sqlalchemy import Executable, text

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.namespace_facts import CreationFacts, NamespaceFacts, Needs, NewContainer
from pilothouse_server.containers.owned_volumes import claims_document, templates_of
from pilothouse_server.containers.repository.child_rows import columns_of, env_row, image_parts, port_row
from pilothouse_server.containers.repository.mounts import mount_rows, volumes_of
from pilothouse_server.containers.repository.revisions import revision_row
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store import idempotency_keys
from pilothouse_server.store.append import Operation
from pilothouse_server.store.audit_records import canonical_time
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.idempotency_keys import Look, StoredAnswer
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.resources import ContainerId, NamespaceId

_ADMIT = text(
    "SELECT * FROM admit_container(:user_id, :request_id, :namespace, :name, CAST(:services AS text[]), "
    "CAST(:config_maps AS text[]), CAST(:secrets AS text[]), CAST(:volumes AS text[]))"
)
_SERVICE_LIMITS = text("SELECT service_types, most, used FROM service_limits(:user_id, :namespace)")
_STORAGE_LIMITS = text(
    "SELECT most, used, asked, taken "
    "FROM storage_limits(:user_id, :namespace, :container_id, CAST(CAST(:claims AS text) AS jsonb))"
)
_VERSION = text("SELECT version FROM version_of_cluster(:user_id, :namespace)")
_EXTERNAL_SOURCES = text("SELECT external_sources FROM allowed_external_sources(:user_id, :namespace)")
_HOSTS = text("SELECT allowed_hosts FROM hosts_of_namespace(:user_id, :namespace)")
_PARTS = ("container", "env", "ports", "mounts")
_ROWS = ", ".join(f"CAST(CAST(:{name} AS text) AS jsonb)" for name in _PARTS)
# Parameters of a write that are JSON texts.
_JSON = (*_PARTS, "volumes")
FACTS = (
    "CAST(:namespace_version AS bigint), CAST(:limits AS numeric[]), CAST(:services AS text[]), "
    "CAST(:config_maps AS text[]), CAST(:secrets AS text[]), CAST(CAST(:volumes AS text) AS jsonb)"
)
_CREATE = text(
    f"SELECT * FROM create_container(:user_id, {_ROWS}, {FACTS}, CAST(CAST(:audit AS text) AS jsonb), "  # noqa: S608
    "CAST(:hashes AS bytea[]), CAST(CAST(:events AS text) AS jsonb), CAST(:messages AS bytea[]), "
    "CAST(CAST(:operation AS text) AS jsonb), CAST(CAST(:idempotency AS text) AS jsonb))"
)
_WRITE = text(f"SELECT write_container({_ROWS}, CAST(CAST(:operation AS text) AS jsonb), {FACTS})")
# Writes the containers one after the other, in the order of the array.
_WRITE_MANY = text("""
SELECT write_container(r.container, r.env, r.ports, r.mounts, CAST(CAST(:operation AS text) AS jsonb),
    r.namespace_version, r.limits, r.services, r.config_maps, r.secrets, r.volumes)
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container jsonb, env jsonb, ports jsonb, mounts jsonb, namespace_version bigint, limits numeric[], services text[],
    config_maps text[], secrets text[], volumes jsonb)
""")
_NEW_IDS = text("""
SELECT nextval('containers_id_seq') AS id, c.deletion_requested_at IS NOT NULL AS going, c.id IS NOT NULL AS taken
FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS n(name, place)
LEFT JOIN containers AS c ON c.namespace_id = :namespace_id AND c.name = n.name ORDER BY n.place
""")


class FactReader(Protocol):
    """A draft or a transaction, from which only facts are read."""

    async def read(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the rows of one statement; a statement that needs the caller gets `user_id`."""


class ReadOnce:
    """Reads the facts of a namespace once for many containers of one transaction, which has locked it."""

    def __init__(self, reader: FactReader) -> None:
        self._reader = reader
        self._rows: dict[tuple[Executable, str], Sequence[Any]] = {}

    async def read(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the rows of the statement's first execution with these parameters."""
        key = statement, repr(sorted(parameters.items()))
        if key not in self._rows:
            self._rows[key] = await self._reader.read(statement, parameters)
        return self._rows[key]


class Creation(msgspec.Struct, frozen=True):
    """A container that is to be written, and the facts that were read for it.

    `share`: millicores and bytes that the container counts. `limits`: containers, millicores and bytes that the
    namespace may have, 0 if there is no limit; None if nothing is counted. `most`: Services and bytes of storage that
    the namespace may have; 0 if there is no limit or the container gets none.
    """

    container: Container
    facts: CreationFacts
    needs: Needs
    share: tuple[int, int]
    limits: tuple[int, int, int] | None
    most: tuple[int, int] = (0, 0)

    @property
    def follow_up(self) -> bool:
        """Whether the creation leaves rows for another transaction."""
        return bool(self.container.volumes or self.needs.services or templates_of(self.container))


class StorageLimits(NamedTuple):
    """The storage that a namespace may have, and the bytes that count against it.

    `most`: a quantity; empty if there is no limit, and nothing is counted. `asked`: the bytes of the claims that have
    no row yet. `taken`: the name of another volume that has the name of one of these claims; empty if there is none.
    """

    most: str
    used: int
    asked: int
    taken: str


class ServiceLimits(NamedTuple):
    """The Services that a namespace may have, and how many count against its quota.

    `types`: the allowed types; if empty, all types that need no permission. `most`: 0 if there is no limit, and nothing
    is counted.
    """

    types: Sequence[str]
    most: int
    used: int


async def admit_draft(draft: Draft, namespace: str, name: str, needs: Needs) -> CreationFacts | None:
    """Returns the facts that decide whether a container of this name may be created.

    None if the namespace does not exist or is outside of the caller's scope.

    Raises:
        Replayed, BeingServed: the request was sent before.
    """
    rows = await draft.read(_ADMIT, {"request_id": draft.request_id, **_names(namespace, name, needs)})
    refuse_replay(rows[0])
    return _facts(namespace, rows[0])


async def admit(target: FactReader, namespace: str, name: str, needs: Needs) -> CreationFacts | None:
    """Returns the same facts, without checking for a replay."""
    rows = await target.read(_ADMIT, {"request_id": None, **_names(namespace, name, needs)})
    return _facts(namespace, rows[0])


async def admit_many(
    transaction: Transaction, namespace: str, wanted: Sequence[tuple[str, Needs]]
) -> list[CreationFacts] | None:
    """Returns the facts for containers of these names, with two statements.

    The facts for each container have only the names of its own needs. They do not include the shares and the Services
    of the containers before it.
    """
    together = Needs(
        *(frozenset[str]().union(*names) for names in zip(*(_of(needs) for _, needs in wanted), strict=True))
    )
    facts = await admit(transaction, namespace, "", together)
    if facts is None:
        return None
    names = {"namespace_id": facts.namespace.id, "names": [name for name, _ in wanted]}
    rows = await transaction.read(_NEW_IDS, names)
    return [_narrowed(facts, row, needs) for row, (_, needs) in zip(rows, wanted, strict=True)]


def _of(needs: Needs) -> tuple[frozenset[str], ...]:
    return needs.services, needs.config_maps, needs.secrets, needs.volumes


def _narrowed(facts: CreationFacts, row: Any, needs: Needs) -> CreationFacts:
    found = facts.found
    definitions: list[Any] = _decoded(facts.volume_definitions) or [] if needs.volumes else []
    own = [each for each in definitions if each["name"] in needs.volumes]
    return msgspec.structs.replace(
        facts,
        name_taken=("being_deleted" if row["going"] else "taken") if row["taken"] else None,
        found=NamespaceFacts(
            services={name: owner for name, owner in found.services.items() if name in needs.services},
            config_maps=found.config_maps & needs.config_maps,
            secrets={name: type_ for name, type_ in found.secrets.items() if name in needs.secrets},
            volumes={name: volume for name, volume in found.volumes.items() if name in needs.volumes},
        ),
        volume_definitions=orjson.dumps(own).decode() if own else None,
        container_id=ContainerId(row["id"]),
    )


async def service_limits(target: FactReader, namespace: str) -> ServiceLimits:
    """Returns the Services that a namespace allows."""
    (row,) = await target.read(_SERVICE_LIMITS, {"namespace": namespace})
    return ServiceLimits(row["service_types"] or (), row["most"] or 0, row["used"] or 0)


async def storage_limits(target: FactReader, namespace: str, wanted: Container) -> StorageLimits:
    """Returns the storage that a namespace may have, and the bytes that the claims of a container need."""
    parameters = {
        "namespace": namespace,
        "container_id": wanted.id,
        "claims": orjson.dumps(claims_document(wanted)).decode(),
    }
    (row,) = await target.read(_STORAGE_LIMITS, parameters)
    return StorageLimits(row["most"] or "", int(row["used"] or 0), int(row["asked"] or 0), row["taken"] or "")


async def allowed_external_sources(target: FactReader, namespace: str) -> Sequence[str]:
    """Returns the allowed patterns for config maps and secrets that exist on the cluster only; empty: none."""
    rows = await target.read(_EXTERNAL_SOURCES, {"namespace": namespace})
    return rows[0]["external_sources"] or ()


async def allowed_hosts(target: FactReader, namespace: str) -> Sequence[str]:
    """Returns the patterns for hosts that a namespace may use; empty: none."""
    rows = await target.read(_HOSTS, {"namespace": namespace})
    return rows[0]["allowed_hosts"] or ()


async def version_of_cluster(target: FactReader, namespace: str) -> str:
    """Returns the version of Kubernetes of a namespace's cluster; empty if it is unknown."""
    rows = await target.read(_VERSION, {"namespace": namespace})
    return rows[0]["version"] or ""


def refuse_replay(row: Any) -> None:
    """Raises Replayed or BeingServed if `begin_request` has found that the request was sent before."""
    answer = (
        None if row["method"] is None else StoredAnswer(row["method"], row["request_hmac"], row["response"])
    )
    idempotency_keys.settle(Look(answer, row["ours"]))


def _names(namespace: str, name: str, needs: Needs) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "name": name,
        "services": list(needs.services),
        "config_maps": list(needs.config_maps),
        "secrets": list(needs.secrets),
        "volumes": list(needs.volumes),
    }


def _facts(namespace: str, row: Any) -> CreationFacts | None:
    if row["namespace_id"] is None:
        return None
    return CreationFacts(
        namespace=namespace_of(namespace, row),
        used=used_of(row),
        name_taken=row["name_taken"],
        found=NamespaceFacts(
            services=_decoded(row["services"]) or {},
            config_maps=frozenset(row["config_maps"] or ()),
            secrets=_decoded(row["secrets"]) or {},
            volumes={volume.name: volume for volume in volumes_of(_decoded(row["volumes"]))},
        ),
        volume_definitions=row["volumes"],
        container_id=ContainerId(row["container_id"]),
        moment=row["moment"],
    )


def namespace_of(name: str, row: Any) -> Namespace:
    """Returns the deciding part of a namespace, from a row of `admit_container` or `admit_container_change`."""
    return Namespace(
        id=NamespaceId(row["namespace_id"]),
        uid=str(row["namespace_uid"]),
        name=name,
        kubernetes_name=row["kubernetes_name"],
        cluster_name=row["cluster_name"],
        status=row["status"],
        quota=Quota() if row["quota"] is None else msgspec.json.decode(row["quota"], type=Quota),
        row_version=row["namespace_version"],
        deletion_requested_at=row["deletion_requested_at"],
    )


def used_of(row: Any) -> tuple[int, int, int]:
    """Returns containers, millicores and bytes that count against the quota, from the same row."""
    return (row["used_containers"] or 0, int(row["used_cpu"] or 0), int(row["used_memory"] or 0))


def facts_parameters(
    version: int | None,
    limits: tuple[int, int, int] | None,
    most: tuple[int, int],
    needs: Needs,
    volumes: str | None,
) -> dict[str, Any]:
    """Returns the arguments of the SQL function `lock_facts`.

    The function locks and compares the facts. `most`: Services and bytes of storage that the namespace may have; 0 for
    no limit. `version` and `volumes`: the namespace and the mounted volumes as they were read. If they have changed,
    the write starts again.
    """
    counted = limits is not None or any(most)
    return {
        "namespace_version": version,
        "limits": [limit or None for limit in (*(limits or (0, 0, 0)), *most)] if counted else None,
        "services": list(needs.services),
        "config_maps": list(needs.config_maps),
        "secrets": list(needs.secrets),
        "volumes": volumes,
    }


def _decoded(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def draft_creation(
    draft: Draft,
    creation: Creation,
    *,
    written: Callable[[NewContainer], None],
    outdated: Callable[[], None],
) -> None:
    """Makes the draft write an admitted container, with work for the reconciler.

    `written` is called with the id for a later container once this one is committed. `outdated` is called if the facts
    have changed.
    """
    draft.write(
        _CREATE,
        _parameters(creation, draft.operation_id),
        alone=("quota", creation.container.namespace_id) if creation.limits or any(creation.most) else None,
        written=lambda rows: written(NewContainer(ContainerId(rows[0]["next_id"]), rows[0]["moment"])),
        outdated=outdated,
    )


async def write(transaction: Transaction, creation: Creation) -> None:
    """Writes a container that was admitted, with work for the reconciler.

    Raises:
        Aborted: the facts are outdated.
    """
    parameters = {
        **_parameters(creation, transaction.operation_id),
        "operation": _operation(transaction, creation),
    }
    async with transaction.attempt():
        await transaction.connection.rows(_WRITE, parameters)


async def write_many(transaction: Transaction, creations: Sequence[Creation]) -> None:
    """Writes containers with one statement, in their order; all or none. Raises as `write` does."""
    rows = [_parameters(each, transaction.operation_id) async for each in cooperatively(creations)]
    for row in rows:
        row.update((name, orjson.Fragment(row[name] or "null")) for name in _JSON)
    parameters = {"rows": orjson.dumps(rows).decode(), "operation": _operation(transaction, creations[0])}
    await transaction.connection.rows(_WRITE_MANY, parameters)


def _operation(transaction: Transaction, creation: Creation) -> str:
    operation = Operation(
        transaction.operation_id,
        transaction.actor.user_id,
        transaction.method,
        "container",
        creation.container.id,
        creation.container.namespace_id,
        transaction.request_id,
    )
    return orjson.dumps(operation).decode()


def _parameters(creation: Creation, operation_id: UUID) -> dict[str, Any]:
    container, needs = creation.container, creation.needs
    moment = canonical_time(creation.facts.moment)
    columns = {
        **columns_of(container),
        "id": container.id,
        "uid": container.uid,
        "name": container.name,
        "namespace_id": container.namespace_id,
        "kubernetes_name": container.kubernetes_name,
        "imported": container.imported,
        "quota_cpu_millicores": creation.share[0],
        "quota_memory_bytes": creation.share[1],
        "created_at": moment,
        "updated_at": moment,
        "image": image_parts(container.image),
        "revision": revision_row(container, 1, operation_id),
    }
    if templates_of(container):
        columns["claims"] = claims_document(container)
    return {
        "container": orjson.dumps(columns).decode(),
        "env": _rows([env_row(position, item) for position, item in enumerate(container.env)]),
        "ports": _rows([port_row(port) for port in container.ports]),
        "mounts": _rows(mount_rows(container)),
        **facts_parameters(
            creation.facts.namespace.row_version,
            creation.limits,
            creation.most,
            needs,
            creation.facts.volume_definitions,
        ),
    }


def _rows(rows: list[dict[str, Any]]) -> str | None:
    return orjson.dumps(rows).decode() if rows else None
