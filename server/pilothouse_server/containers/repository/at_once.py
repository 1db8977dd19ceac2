"""A container that is made by two statements of their own: what decides is read, and later all of it is written.

Both are functions of the database (see the migration that makes `admit_container`), which set the caller's identity
first. Between the two nothing is locked and no connection held. `write_container` compares what `admit_container` saw
with what there is when it has the locks, and refuses what is outdated.

What mounts volumes of its namespace is not made so: the volumes' own events must be rendered under their locks.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.repository.child_rows import columns_of, env_row, port_row
from pilothouse_server.containers.surroundings import Admission, Needs, Surroundings
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.store import idempotency_keys
from pilothouse_server.store.audit_chain import canonical_time
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.idempotency_keys import Look, StoredAnswer
from pilothouse_server.values.image_reference import ImageReference
from pilothouse_server.values.resources import ContainerId, NamespaceId

_ADMIT = text(
    "SELECT * FROM admit_container(:user_id, :request_id, :namespace, :name, CAST(:services AS text[]), "
    "CAST(:config_maps AS text[]), CAST(:secrets AS text[]))"
)
_WRITE = text(
    "SELECT write_container(:user_id, :operation_id, CAST(CAST(:container AS text) AS jsonb), "
    "CAST(CAST(:env AS text) AS jsonb), CAST(CAST(:ports AS text) AS jsonb), CAST(CAST(:quota AS text) AS jsonb), "
    "CAST(:limits AS numeric[]), CAST(:services AS text[]), CAST(:config_maps AS text[]), CAST(:secrets AS text[]), "
    "CAST(CAST(:audit AS text) AS jsonb), CAST(:hashes AS bytea[]), CAST(CAST(:events AS text) AS jsonb), "
    "CAST(:messages AS bytea[]), CAST(CAST(:operation AS text) AS jsonb), "
    "CAST(CAST(:idempotency AS text) AS jsonb))"
)
_NEW_IDS = text("SELECT nextval('containers_id_seq') AS id FROM generate_series(1, CAST(:count AS integer))")


async def new_ids(draft: Draft, count: int) -> list[ContainerId]:
    """So many ids for rows that are made later; those that nobody uses stay unused."""
    return [ContainerId(row.id) for row in await draft.read(_NEW_IDS, {"count": count})]


async def admit(draft: Draft, namespace: str, name: str, needs: Needs) -> Admission | None:
    """What decides whether a container of this name may be made; None where the caller reaches no such namespace.

    Raises:
        Replayed, BeingServed: the request is no new one.
    """
    rows = await draft.read(
        _ADMIT,
        {
            "request_id": draft.request_id,
            "namespace": namespace,
            "name": name,
            "services": list(needs.services),
            "config_maps": list(needs.config_maps),
            "secrets": list(needs.secrets),
        },
    )
    row = rows[0]
    answer = (
        None if row["method"] is None else StoredAnswer(row["method"], row["request_hmac"], row["response"])
    )
    idempotency_keys.settle(Look(answer, row["ours"]))
    return None if row["namespace_id"] is None else _admission(namespace, row)


def _admission(namespace: str, row: Any) -> Admission:
    return Admission(
        namespace=Namespace(
            id=NamespaceId(row["namespace_id"]),
            uid=str(row["namespace_uid"]),
            name=namespace,
            kubernetes_name=row["kubernetes_name"],
            cluster_name=row["cluster_name"],
            status=row["status"],
            quota=Quota() if row["quota"] is None else msgspec.json.decode(row["quota"], type=Quota),
            deletion_requested_at=row["deletion_requested_at"],
        ),
        quota=row["quota"],
        used=(row["used_containers"] or 0, int(row["used_cpu"] or 0), int(row["used_memory"] or 0)),
        name_taken=row["name_taken"],
        surroundings=Surroundings(
            services=_object(row["services"]),
            config_maps=frozenset(row["config_maps"] or ()),
            secrets=_object(row["secrets"]),
        ),
        container_id=ContainerId(row["container_id"]),
        moment=row["moment"],
    )


def _object(text: str | None) -> dict[str, str]:
    return {} if text is None else orjson.loads(text)


def write(
    draft: Draft,
    container: Container,
    admission: Admission,
    needs: Needs,
    share: tuple[int, int],
    limits: tuple[int, int, int] | None,
) -> None:
    """Has the draft write a container that was admitted, and leave it to the reconciler.

    `share`: millicores and bytes that it counts. `limits`: containers, millicores and bytes that the namespace may
    have, 0 where there is no limit; None where nothing is counted.
    """
    image = ImageReference.parse(container.image)
    moment = canonical_time(admission.moment)
    columns = {
        **columns_of(container),
        "id": container.id,
        "uid": container.uid,
        "name": container.name,
        "namespace_id": container.namespace_id,
        "kubernetes_name": container.kubernetes_name,
        "quota_cpu_millicores": share[0],
        "quota_memory_bytes": share[1],
        "created_at": moment,
        "updated_at": moment,
        "image": {
            "repository": image.repository or None,
            "name": image.name,
            "tag": image.tag or None,
            "digest": image.digest or None,
        },
    }
    draft.write(
        _WRITE,
        {
            "operation_id": draft.operation_id,
            "container": orjson.dumps(columns).decode(),
            "env": _rows([env_row(position, item) for position, item in enumerate(container.env)]),
            "ports": _rows([port_row(port) for port in container.ports]),
            "quota": admission.quota,
            "limits": None if limits is None else [limit or None for limit in limits],
            "services": list(needs.services),
            "config_maps": list(needs.config_maps),
            "secrets": list(needs.secrets),
        },
        alone=None if limits is None else ("quota", container.namespace_id),
    )


def _rows(rows: list[dict[str, Any]]) -> str | None:
    return orjson.dumps(rows).decode() if rows else None
