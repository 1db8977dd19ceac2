"""Config maps and secrets as the reconciler reads and writes them, and the objects that a container waits for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import text

from pilothouse_server.config import repository
from pilothouse_server.config.model import Config, Kind
from pilothouse_server.config.operations import configs
from pilothouse_server.containers import admission
from pilothouse_server.containers.model import Container
from pilothouse_server.encryption.envelopes import Sealed
from pilothouse_server.kubernetes.conditions import set_condition
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

# Usually nothing is pending, and then the rest of the statement reads nothing.
_WAIT = text("""
WITH pending AS (
    SELECT 'config_map' AS kind, namespace_id, name FROM config_maps
    WHERE namespace_id = ANY(CAST(:namespace_ids AS bigint[]))
      AND observed_generation < generation AND deletion_requested_at IS NULL
      AND NOT EXISTS (SELECT FROM reconcile_work AS w
                      WHERE w.resource_type = 'config_map' AND w.resource_id = config_maps.id AND w.held)
    UNION ALL
    SELECT 'secret', namespace_id, name FROM secrets
    WHERE namespace_id = ANY(CAST(:namespace_ids AS bigint[]))
      AND observed_generation < generation AND deletion_requested_at IS NULL
      AND NOT EXISTS (SELECT FROM reconcile_work AS w
                      WHERE w.resource_type = 'secret' AND w.resource_id = secrets.id AND w.held)
    UNION ALL
    SELECT 'account', namespace_id, name FROM objects
    WHERE namespace_id = ANY(CAST(:namespace_ids AS bigint[])) AND api_group = '' AND kind = 'ServiceAccount'
      AND observed_generation < generation AND deletion_requested_at IS NULL
      AND NOT EXISTS (SELECT FROM reconcile_work AS w
                      WHERE w.resource_type = 'object' AND w.resource_id = objects.id AND w.held))
SELECT DISTINCT c.id FROM pending AS p JOIN containers AS c ON c.namespace_id = p.namespace_id
WHERE c.id = ANY(CAST(:container_ids AS bigint[]))
  AND (EXISTS (SELECT FROM environment_variables AS e
               WHERE e.container_id = c.id AND e.value_from = p.kind AND e.source_name = p.name)
   OR jsonb_path_exists(c.spec, '$.** ? (@.value_from == $kind && @.source_name == $name)',
                        jsonb_build_object('kind', p.kind, 'name', p.name))
   OR (p.kind = 'secret' AND jsonb_path_exists(c.spec, '$.image_pull_secrets[*] ? (@ == $name)',
                                               jsonb_build_object('name', p.name)))
   OR (p.kind = 'account' AND c.spec ->> 'service_account' = p.name)
   OR EXISTS (SELECT FROM container_volumes AS m JOIN volumes AS v ON v.id = m.volume_id
              WHERE m.container_id = c.id AND v.type = p.kind AND v.source_name = p.name))
""")


_KNOWN = text("""
SELECT CAST(uid AS text) AS uid FROM config_maps WHERE uid = ANY(CAST(:uids AS uuid[]))
UNION ALL SELECT CAST(uid AS text) FROM secrets WHERE uid = ANY(CAST(:uids AS uuid[]))
""")


async def find(transaction: ReadTransaction, kind: Kind, config_id: int) -> Config | None:
    """Returns the config map or secret; None if it is deleted."""
    return await repository.get(transaction, kind, config_id)


async def find_sealed(transaction: ReadTransaction, secret_id: int) -> Sealed | None:
    """Returns the ciphertext of a secret."""
    return await repository.find_sealed(transaction, secret_id)


async def lock(transaction: Transaction, kind: Kind, config_id: int) -> Config | None:
    """Locks and returns the config map or secret; None if it is deleted."""
    return await repository.get(transaction, kind, config_id, lock=True)


async def write(
    transaction: Transaction, kind: Kind, config: Config, *, condition: Condition, observed_generation: int
) -> None:
    """Writes the cluster's state of a locked config map or secret, with its event, if anything differs."""
    conditions = set_condition(config.conditions, condition, transaction.now)
    if conditions == config.conditions and observed_generation == config.observed_generation:
        return
    written = await repository.write_observed(
        transaction, kind, config.id, conditions=conditions, observed_generation=observed_generation
    )
    transaction.emit(configs.event(kind, written, "modified", config))


async def delete(transaction: Transaction, kind: Kind, config: Config) -> None:
    """Deletes the row of a locked config map or secret, with its tombstone event."""
    await repository.remove(transaction, kind, config.id)
    transaction.emit(configs.event(kind, config, "deleted", config))


async def known_config_uids(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are config maps or secrets."""
    rows = await transaction.connection.execute(_KNOWN, {"uids": list(uids)})
    return {row.uid for row in rows}


async def those_that_wait(transaction: ReadTransaction, containers: Collection[Container]) -> set[int]:
    """Returns the ids of containers that must wait for an object they use to be applied.

    Such an object is a config map or secret that the container reads, or a service account that it names and that is a
    carried object, with a generation that is not applied yet. Without the wait, pods would start with the former
    values, without the token of the account, or not at all. Objects that the cluster refused, or that
    wait for their step of an application, do not make a container wait.
    """
    reading = [container for container in containers if _reads_any(container)]
    if not reading:
        return set()
    parameters = {
        "namespace_ids": sorted({int(container.namespace_id) for container in reading}),
        "container_ids": sorted(int(container.id) for container in reading),
    }
    return {row.id for row in await transaction.connection.execute(_WAIT, parameters)}


def _reads_any(container: Container) -> bool:
    """Returns whether the container may use any of them.

    Most containers do not, and need no query.
    """
    needs = admission.needs_of(container, None)
    return bool(needs.config_maps or needs.secrets or needs.volumes or container.spec.service_account)
