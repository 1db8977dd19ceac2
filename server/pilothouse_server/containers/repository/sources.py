"""SQL about what containers read: config maps and secrets, by their environment, by the volumes they mount, and to
pull their images.

The variables of the container are rows; what else reads them lies in the document `containers.spec`.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import text

from pilothouse_server.config.model import Kind
from pilothouse_server.store.unit_of_work import ReadTransaction

# One that is being deleted is not there for what begins to use it.
_CONFIG_MAPS = text(
    "SELECT name FROM config_maps WHERE namespace_id = :id AND name = ANY (:names) AND deletion_requested_at IS NULL"
)
_TYPES = text(
    "SELECT name, type FROM secrets WHERE namespace_id = :id AND name = ANY (:names) "
    "AND deletion_requested_at IS NULL"
)

_USES = """(
    EXISTS (SELECT FROM environment_variables AS e
            WHERE e.container_id = c.id AND e.value_from = :kind AND e.source_name = :name)
    OR jsonb_path_exists(c.spec,
        '$.** ? (@.value_from == $kind && @.source_name == $name)',
        jsonb_build_object('kind', CAST(:kind AS text), 'name', CAST(:name AS text)))
    OR (:kind = 'secret' AND jsonb_path_exists(c.spec,
        '$.image_pull_secrets[*] ? (@ == $name)', jsonb_build_object('name', CAST(:name AS text))))
    OR EXISTS (SELECT FROM container_volumes AS m JOIN volumes AS v ON v.id = m.volume_id
               WHERE m.container_id = c.id AND v.type = :kind AND v.source_name = :name))"""

_READERS = (
    "SELECT c.id, c.name FROM containers AS c "  # noqa: S608 - our own constants
    f"WHERE c.namespace_id = :namespace_id AND {_USES}"
)
_USERS = text(f"{_READERS} AND c.deletion_requested_at IS NULL ORDER BY c.id")
_USERS_OR_DELETING = text(f"{_READERS} ORDER BY c.id")


async def config_maps_there(
    transaction: ReadTransaction, namespace_id: int, names: Collection[str]
) -> frozenset[str]:
    """Which of these config maps the namespace has."""
    if not names:
        return frozenset()
    rows = await transaction.connection.execute(_CONFIG_MAPS, {"id": namespace_id, "names": list(names)})
    return frozenset(row.name for row in rows)


async def types_of_secrets(
    transaction: ReadTransaction, namespace_id: int, names: Collection[str]
) -> dict[str, str]:
    """The Kubernetes types of those of these secrets that the namespace has."""
    if not names:
        return {}
    rows = await transaction.connection.execute(_TYPES, {"id": namespace_id, "names": list(names)})
    return {row.name: row.type for row in rows}


async def users_of_source(
    transaction: ReadTransaction, namespace_id: int, kind: Kind, name: str, *, deleting: bool = False
) -> dict[int, str]:
    """The containers that read a config map or secret, less those being deleted unless `deleting`: name by id."""
    parameters = {"namespace_id": namespace_id, "kind": kind, "name": name}
    rows = await transaction.connection.execute(_USERS_OR_DELETING if deleting else _USERS, parameters)
    return {row.id: row.name for row in rows}
