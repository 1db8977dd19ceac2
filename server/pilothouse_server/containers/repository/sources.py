"""SQL about config maps, secrets and existing claims that containers reference.

Containers read config maps and secrets through their environment and their mounted volumes, and to pull their images.
The variables of the main program are rows; the other references are in the document `containers.spec`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from pilothouse_server.config.model import Kind
from pilothouse_server.store.unit_of_work import ReadTransaction

_USES = """(
    EXISTS (SELECT FROM environment_variables AS e
            WHERE e.container_id = c.id AND e.value_from = :kind AND e.source_name = ANY (CAST(:names AS text[])))
    OR jsonb_path_exists(c.spec,
        '$.** ? (@.value_from == $kind && @.source_name == $names[*])',
        jsonb_build_object('kind', CAST(:kind AS text), 'names', CAST(:names AS text[])))
    OR (:kind = 'secret' AND jsonb_path_exists(c.spec,
        '$.image_pull_secrets[*] ? (@ == $names[*])', jsonb_build_object('names', CAST(:names AS text[]))))
    OR EXISTS (SELECT FROM container_volumes AS m JOIN volumes AS v ON v.id = m.volume_id
               WHERE m.container_id = c.id AND v.type = :kind AND v.source_name = ANY (CAST(:names AS text[]))))"""

_READERS = (
    "SELECT c.id, c.name FROM containers AS c "  # noqa: S608 - our own constants
    f"WHERE c.namespace_id = :namespace_id AND {_USES}"
)
_USERS = text(f"{_READERS} AND c.deletion_requested_at IS NULL ORDER BY c.id")
_USERS_OR_DELETING = text(f"{_READERS} ORDER BY c.id")


_USERS_OF_CLAIM = text("""
SELECT c.name FROM containers AS c
WHERE c.namespace_id = :namespace_id AND c.deletion_requested_at IS NULL AND jsonb_path_exists(c.spec,
    '$.pod_volumes[*].source ? (@.value_from == "existing_claim" && @.claim_name == $name)',
    jsonb_build_object('name', CAST(:name AS text)))
ORDER BY c.id
""")


async def users_of_claim(transaction: ReadTransaction, namespace_id: int, name: str) -> list[str]:
    """Returns the names of the containers that mount an existing claim, except those that are being deleted."""
    parameters = {"namespace_id": namespace_id, "name": name}
    return list((await transaction.connection.execute(_USERS_OF_CLAIM, parameters)).scalars())


async def users_of_source(
    transaction: ReadTransaction,
    namespace_id: int,
    kind: Kind,
    names: Sequence[str],
    *,
    deleting: bool = False,
) -> dict[int, str]:
    """Returns the containers that read any of these sources, as names by id.

    Containers that are being deleted are included only with `deleting`.
    """
    parameters = {"namespace_id": namespace_id, "kind": kind, "names": list(names)}
    rows = await transaction.connection.execute(_USERS_OR_DELETING if deleting else _USERS, parameters)
    return {row.id: row.name for row in rows}
