"""Config maps and secrets on their clusters.

Values of a secret are decrypted in `act`, for the one object that is sent, and nowhere before or after. An object of
this name that belongs to another owner is left alone (`NameTaken`, see `config.objects`).

The cluster refuses to change an immutable object. If our row is immutable too, its content is final, so the object is
deleted and created again (it may differ after a restore from a backup). Otherwise another client made the object
immutable, and the refusal is reported.
"""

from __future__ import annotations

from typing import cast

import msgspec

from pilothouse_server.config import objects
from pilothouse_server.config.model import Config, Kind, Secret, Values
from pilothouse_server.config.objects import ConfigObject
from pilothouse_server.config.operations import secrets
from pilothouse_server.encryption.envelopes import Envelopes, Sealed
from pilothouse_server.errors import PilothouseError
from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.errors import ClusterError, Refused
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.ownership import CONFIG_UID, NAMESPACE, NAMESPACE_UID
from pilothouse_server.reconcile.apply import managed_fields_diff
from pilothouse_server.reconcile.apply.row_reconciler import (
    AGAIN_SECONDS,
    OneByOne,
    dealt_with,
    failed,
    namespace_retry_seconds,
    read_namespace_not_ready,
    waiting,
)
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Progress, Result
from pilothouse_server.reconcile.repository import config_status
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

_KEY_AGAIN_SECONDS = 30.0
# Our keys in the written object.
_OURS = frozenset({CONFIG_UID, NAMESPACE, NAMESPACE_UID})


class LoadedConfig(msgspec.Struct, frozen=True):
    """`namespace_not_ready`: why its namespace is not on the cluster; None if it is.

    `sealed`: the ciphertext of a secret.
    """

    config: Config
    namespace_not_ready: Condition | None
    sealed: Sealed | None = None


class ConfigProgress(Progress, frozen=True):
    """`condition`: why the config is not applied; None if it is."""

    condition: Condition | None = None


class ConfigReconciler(OneByOne[Config, LoadedConfig, ConfigProgress]):
    """Applies and deletes config maps, or secrets."""

    def __init__(self, kind: Kind, envelopes: Envelopes) -> None:
        self._kind: Kind = kind
        self._resource = objects.RESOURCES[kind]
        self._envelopes = envelopes

    async def load_one(self, transaction: ReadTransaction, work: Work) -> LoadedConfig | None:
        """Returns the config in its desired state; None if it is deleted."""
        config = await config_status.find(transaction, self._kind, work.resource_id)
        if config is None:
            return None
        sealed = None
        if self._kind == "secret" and config.deletion_requested_at is None:
            sealed = await config_status.find_sealed(transaction, config.id)
        going = config.deletion_requested_at is not None
        namespace_not_ready = await read_namespace_not_ready(transaction, config.namespace_id, going=going)
        return LoadedConfig(config, namespace_not_ready, sealed)

    async def act(self, client: LeasedClient, loaded: LoadedConfig) -> ConfigProgress:
        """Applies the config to the cluster or deletes it there. Raises ClusterError, LeaseLost."""
        if loaded.config.deletion_requested_at is not None:
            if loaded.namespace_not_ready is not None:
                # The config was never applied or taken over there: an object with its name belongs to another owner.
                return ConfigProgress(gone=True)
            return await self._delete(client, loaded.config)
        if (namespace_not_ready := loaded.namespace_not_ready) is not None:
            # The namespace's own work creates it; the config is applied after that.
            return ConfigProgress(
                condition=namespace_not_ready, again_seconds=namespace_retry_seconds(namespace_not_ready)
            )
        return await self._apply(client, loaded)

    async def lock_one(self, transaction: Transaction, resource_id: int) -> Config | None:
        """Locks and returns the row; None if it is deleted."""
        return await config_status.lock(transaction, self._kind, resource_id)

    async def write_error(
        self, transaction: Transaction, row: Config, loaded: LoadedConfig, error: ClusterError, attempts: int
    ) -> None:
        """Writes a refusal, or a failure that occurred more than once."""
        refused = error.outlook != "passing"
        if not refused and attempts == 0:
            # A first failure is not written: most transient failures are over at the second attempt.
            return
        generation = dealt_with(row, loaded.config.generation) if refused else row.observed_generation
        await self._write(transaction, row, failed(error, refused=refused), generation)

    async def write_deleted(self, transaction: Transaction, row: Config) -> Result:
        """Deletes the row, with its tombstone event."""
        await config_status.delete(transaction, self._kind, row)
        return Result(removed=True)

    async def write_one(
        self, transaction: Transaction, row: Config, loaded: LoadedConfig, progress: ConfigProgress
    ) -> Result:
        """Writes whether the config is applied."""
        again = progress.again_seconds
        if row.deletion_requested_at is not None:
            return Result(again_seconds=AGAIN_SECONDS if again is None else again)
        condition = progress.condition or Condition(APPLIED, "True", "Applied")
        generation = row.observed_generation
        # A generation counts as observed once it is applied or refused, but not while it waits for others.
        if again is None or condition.status == "False":
            generation = dealt_with(row, loaded.config.generation)
        await self._write(transaction, row, condition, generation)
        return Result(again_seconds=again)

    async def _apply(self, client: LeasedClient, loaded: LoadedConfig) -> ConfigProgress:
        config = loaded.config
        found = await client.find(self._resource, config.kubernetes_namespace, config.kubernetes_name)
        objects.check_ours(config, found)
        if found is None:
            # Another installation may own the namespace by now, and could read the values.
            await client.check_namespace_ownership(config.namespace_ref)
        if found is not None and found.metadata.deletion_timestamp is not None:
            return ConfigProgress(
                condition=waiting("Deleting", f"the {self._resource.kind} is being deleted"),
                again_seconds=AGAIN_SECONDS,
            )
        values: Values = {}
        if loaded.sealed is not None:
            try:
                await self._envelopes.at_hand(loaded.sealed)
                values = secrets.opened(cast("Secret", config), loaded.sealed, self._envelopes)
            except PilothouseError as error:
                # The failure is not the cluster's: it causes no backoff, and other work of this cluster continues.
                return ConfigProgress(
                    condition=Condition(APPLIED, "False", "DecryptionFailed", error.message),
                    again_seconds=_KEY_AGAIN_SECONDS,
                )
        wanted = objects.manifest(config, values)
        if found is not None and await self._is_as_wanted(client, config, wanted, found):
            return ConfigProgress(objects=fingerprints.by_object((self._resource, found)))
        admitted = Admitted(config.kubernetes_namespace, _OURS, frozenset())
        try:
            applied = await client.apply(self._resource, wanted, admitted, force=True)
            if (patch := objects.without_added_keys(wanted, applied)) is not None:
                applied = await client.merge_patch(
                    self._resource, config.namespace_ref, config.kubernetes_name, patch
                )
        except Refused as refusal:
            if found is None or not objects.is_made_anew(config, refusal):
                raise objects.redacted(refusal, values) from None
            await client.delete(
                self._resource,
                config.namespace_ref,
                config.kubernetes_name,
                uid=found.metadata.uid,
                propagation="Background",
            )
            return ConfigProgress(
                condition=waiting("Replacing", "the immutable object differs and is created again"),
                again_seconds=0.0,
            )
        return ConfigProgress(objects=fingerprints.by_object((self._resource, applied)))

    async def _is_as_wanted(
        self, client: LeasedClient, config: Config, wanted: Manifest, found: ConfigObject
    ) -> bool:
        """Returns whether nothing new is requested, and the object matches."""
        if config.observed_generation < config.generation:
            return False
        if objects.without_added_keys(wanted, found) is not None:
            return False
        return await managed_fields_diff.live_matches_manifest(client, self._resource, wanted)

    async def _delete(self, client: LeasedClient, config: Config) -> ConfigProgress:
        found = await client.find(self._resource, config.kubernetes_namespace, config.kubernetes_name)
        if found is None or not objects.is_ours(config, found):
            return ConfigProgress(gone=True)
        if found.metadata.deletion_timestamp is None:
            await client.delete(
                self._resource,
                config.namespace_ref,
                config.kubernetes_name,
                uid=found.metadata.uid,
                propagation="Background",
            )
        # Finalizers of others may delay the deletion: it has ended when a read does not find the object any more.
        return ConfigProgress(
            again_seconds=0.05 if found.metadata.deletion_timestamp is None else AGAIN_SECONDS
        )

    async def _write(
        self, transaction: Transaction, row: Config, condition: Condition, generation: int
    ) -> None:
        await config_status.write(
            transaction, self._kind, row, condition=condition, observed_generation=generation
        )
