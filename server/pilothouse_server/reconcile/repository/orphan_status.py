"""Orphans of a cluster as the sweep writes them, and whether it may delete a given one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

_STORED = text("SELECT object_uid, state FROM orphans WHERE cluster_name = :cluster_name")
_REMOVE = text(
    "DELETE FROM orphans WHERE cluster_name = :cluster_name AND object_uid = ANY(CAST(:uids AS text[]))"
)
_PUT = text("""
INSERT INTO orphans (cluster_name, object_uid, kind, kubernetes_namespace, name, state)
SELECT :cluster_name, o.uid, o.kind, o.namespace, o.name, o.state
FROM unnest(CAST(:uids AS text[]), CAST(:kinds AS text[]), CAST(:namespaces AS text[]), CAST(:names AS text[]),
            CAST(:states AS text[])) AS o(uid, kind, namespace, name, state)
ON CONFLICT (cluster_name, object_uid) DO UPDATE SET state = EXCLUDED.state
WHERE orphans.decided_at IS NULL
""")
# Written once per history, so that the sweep of a steady cluster writes nothing.
_SEEN = text("""
UPDATE clusters SET orphans_seen_in = current_history()
WHERE name = :cluster_name AND deleted_at IS NULL AND orphans_seen_in IS DISTINCT FROM current_history()
""")
_HELD = text("""
SELECT orphans_decided_in IS DISTINCT FROM current_history() AS held FROM clusters
WHERE name = :cluster_name AND deleted_at IS NULL
""")
_MAY_DELETE = text("""
SELECT 1 FROM orphans AS o JOIN clusters AS c ON c.name = o.cluster_name
WHERE o.cluster_name = :cluster_name AND o.object_uid = :uid AND c.deleted_at IS NULL
  AND (o.state = 'deleting' OR (o.state = 'undecided' AND c.orphans_decided_in = current_history()))
""")
_ROWS = 1000


class Orphan(msgspec.Struct, frozen=True):
    """An object that the sweep found.

    `is_swept`: the sweep deletes it unless a user decides otherwise.
    """

    uid: str
    kind: str
    namespace: str
    name: str
    is_swept: bool

    @property
    def state(self) -> str:
        """Its state before any decision."""
        return "undecided" if self.is_swept else "left"


class Recorded(msgspec.Struct, frozen=True):
    """`states` by uid; `new`: uids that were not stored before.

    `is_held`: a new history began, and nobody has decided about the cluster's orphans since then.
    """

    states: dict[str, str]
    new: frozenset[str]
    is_held: bool


async def record(transaction: Transaction, cluster_name: str, found: Sequence[Orphan]) -> Recorded:
    """Writes changed findings of a sweep, and removes those of deleted objects."""
    key = {"cluster_name": cluster_name}
    rows = await transaction.connection.execute(_STORED, key)
    states = {row.object_uid: row.state for row in rows}
    there = {orphan.uid for orphan in found}
    if gone := sorted(states.keys() - there):
        await transaction.connection.execute(_REMOVE, {**key, "uids": gone})
    changed = [orphan for orphan in found if states.get(orphan.uid) not in (orphan.state, "kept", "deleting")]
    for start in range(0, len(changed), _ROWS):
        await transaction.connection.execute(_PUT, {**key, **_columns(changed[start : start + _ROWS])})
    await transaction.connection.execute(_SEEN, key)
    held = (await transaction.connection.execute(_HELD, key)).first()
    after = {orphan.uid: orphan.state for orphan in found}
    after |= {uid: state for uid, state in states.items() if uid in there and state in ("kept", "deleting")}
    return Recorded(after, frozenset(there - states.keys()), held is None or held.held)


async def may_delete(transaction: ReadTransaction, cluster_name: str, uid: str) -> bool:
    """Returns whether an orphan may be deleted now, by decision or by the sweep itself."""
    parameters = {"cluster_name": cluster_name, "uid": uid}
    return (await transaction.connection.execute(_MAY_DELETE, parameters)).first() is not None


def _columns(orphans: Sequence[Orphan]) -> dict[str, list[str]]:
    return {
        "uids": [each.uid for each in orphans],
        "kinds": [each.kind for each in orphans],
        "namespaces": [each.namespace for each in orphans],
        "names": [each.name for each in orphans],
        "states": [each.state for each in orphans],
    }
