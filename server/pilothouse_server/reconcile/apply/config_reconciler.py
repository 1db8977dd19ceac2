"""One config map's or secret's reconciliation: load, act, write back.

Values of a secret are decrypted in `act`, for the one object that is sent, and nowhere before or after. An object of
somebody else that has the name is left alone, as `NameTaken`; see `cluster.configs`.

The cluster refuses to change an immutable one. Where our row is immutable too, what it says is final, so the
object is deleted and made again (after a restored backup it may differ); elsewhere somebody else froze it,
and the refusal is told.
"""

from __future__ import annotations

from typing import cast

import msgspec

from pilothouse_server.config import repository as configs
from pilothouse_server.config.model import Config, Kind, Secret, Values
from pilothouse_server.config.operations import configs as rules
from pilothouse_server.config.operations import secrets
from pilothouse_server.encryption import Envelopes, Sealed
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import configs as on_cluster
from pilothouse_server.kubernetes.errors import ClusterError, Conflict, Refused
from pilothouse_server.kubernetes.observation import APPLIED, set_condition
from pilothouse_server.namespaces import repository as namespaces
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.written import Written
from pilothouse_server.reconcile.repository import work_queue as queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.values.resources import Condition

AGAIN_SECONDS = 0.5
NAMESPACE_AGAIN_SECONDS = 0.2
_MESSAGE_LIMIT = 4096


class Loaded(msgspec.Struct, frozen=True):
    """`namespace_ready`: the namespace was brought to the cluster before. `sealed`: of a secret."""

    config: Config
    namespace_ready: bool
    sealed: Sealed | None = None


class Result(msgspec.Struct, frozen=True):
    """How far it came. `again_seconds`: the cluster is not done, look again. `gone`: nothing of it is left.

    `condition` says in what way it is not applied; None where it is.
    """

    condition: Condition | None = None
    again_seconds: float | None = None
    gone: bool = False


class ConfigNoun:
    """The reconciliation of config maps or of secrets."""

    def __init__(self, kind: Kind, envelopes: Envelopes) -> None:
        self._kind: Kind = kind
        self._resource = on_cluster.RESOURCES[kind]
        self._envelopes = envelopes

    async def load(self, store: Store, work: Work) -> Loaded | None:
        """The config as it is wanted now; None where it is gone."""
        async with store.system_read(snapshot=True) as transaction:
            config = await configs.get(transaction, self._kind, work.resource_id)
            if config is None:
                return None
            sealed = None
            if self._kind == "secret" and config.deletion_requested_at is None:
                sealed = await configs.find_sealed(transaction, config.id)
            namespace = await namespaces.get(transaction, config.namespace_id)
            ready = namespace is not None and namespace.observed_generation > 0
            return Loaded(config, ready, sealed)

    async def act(self, client: LeasedClient, loaded: Loaded) -> Result:
        """Bring the config to the cluster or away from it. Raises ClusterError, LeaseLost."""
        if loaded.config.deletion_requested_at is not None:
            return await self._take_away(client, loaded.config)
        if not loaded.namespace_ready:
            # Its own work makes it; the config follows as soon as it is there.
            return _waiting(
                "WaitingForNamespace", "its namespace is not on the cluster yet", NAMESPACE_AGAIN_SECONDS
            )
        return await self._bring(client, loaded)

    async def write_back(
        self, transaction: Transaction, work: Work, loaded: Loaded, outcome: object
    ) -> Written:
        """Write what came of it, under the config's lock and the work's epoch. Raises LeaseLost."""
        stored = await configs.get(transaction, self._kind, work.resource_id, lock=True)
        if not await queue.hold(transaction, work):
            raise LeaseLost
        if stored is None:
            return Written(self._kind, removed=True)
        if isinstance(outcome, ClusterError):
            await self._write_error(transaction, stored, loaded, outcome, work.attempts)
            return Written(self._kind)
        assert isinstance(outcome, Result)
        if outcome.gone:
            await configs.remove(transaction, self._kind, stored.id)
            transaction.emit(rules.event(self._kind, stored, "deleted", stored))
            return Written(self._kind, removed=True)
        if stored.deletion_requested_at is not None:
            again = AGAIN_SECONDS if outcome.again_seconds is None else outcome.again_seconds
            return Written(self._kind, again_seconds=again)
        condition = outcome.condition or Condition(APPLIED, "True", "Applied")
        # What waits for others comes again; what was dealt with, well or not, is dealt with.
        dealt_with = outcome.again_seconds is None or condition.status == "False"
        await self._write(transaction, stored, condition, loaded.config.generation if dealt_with else 0)
        return Written(self._kind, again_seconds=outcome.again_seconds)

    async def _bring(self, client: LeasedClient, loaded: Loaded) -> Result:
        config = loaded.config
        found = await client.find(self._resource, config.kubernetes_namespace, config.kubernetes_name)
        on_cluster.check_ours(config, found)
        if found is not None and found.metadata.deletion_timestamp is not None:
            return _waiting("Deleting", f"the {self._resource.kind} is being deleted", AGAIN_SECONDS)
        values: Values = {}
        if loaded.sealed is not None:
            try:
                values = secrets.opened(cast("Secret", config), loaded.sealed, self._envelopes)
            except PilothouseError as error:
                # Not the cluster's doing: no backoff of its own, and others of this cluster go on.
                return Result(
                    Condition(APPLIED, "False", "DecryptionFailed", error.message), again_seconds=30.0
                )
        wanted = on_cluster.manifest(config, values)
        try:
            applied = await client.apply(self._resource, wanted, force=True)
            if (patch := on_cluster.without_added_keys(wanted, applied)) is not None:
                await client.merge_patch(
                    self._resource, config.kubernetes_namespace, config.kubernetes_name, patch
                )
        except Refused as refusal:
            if found is None or not on_cluster.is_made_anew(config, refusal):
                raise on_cluster.redacted(refusal, values) from None
            await client.delete(
                self._resource,
                config.kubernetes_namespace,
                config.kubernetes_name,
                uid=found.metadata.uid,
                propagation="Background",
            )
            return _waiting("Replacing", "the immutable object differs and is made again", 0.0)
        return Result()

    async def _take_away(self, client: LeasedClient, config: Config) -> Result:
        found = await client.find(self._resource, config.kubernetes_namespace, config.kubernetes_name)
        if found is None or not on_cluster.is_ours(config, found):
            return Result(gone=True)
        if found.metadata.deletion_timestamp is None:
            await client.delete(
                self._resource,
                config.kubernetes_namespace,
                config.kubernetes_name,
                uid=found.metadata.uid,
                propagation="Background",
            )
        # Finalizers of others may hold it; it is gone when it is seen to be.
        return Result(again_seconds=0.05 if found.metadata.deletion_timestamp is None else AGAIN_SECONDS)

    async def _write_error(
        self, transaction: Transaction, stored: Config, loaded: Loaded, error: ClusterError, attempts: int
    ) -> None:
        if isinstance(error, Refused) and error.reason == "NotFound":
            # The namespace vanished behind our back.
            await queue.look_again_at_namespaces(transaction, [int(stored.namespace_id)])
        taken = isinstance(error, Conflict) and error.status_reason == "NameTaken"
        refused = taken or (isinstance(error, Refused) and not error.retryable)
        if not refused and attempts == 0:
            # Once is nothing: most of what fails in passing is over at the second attempt.
            return
        message = error.message[:_MESSAGE_LIMIT]
        condition = Condition(APPLIED, "False" if refused else "Unknown", error.reason[:100], message)
        # A refusal is an answer: the generation was dealt with. What did not get through was not.
        await self._write(transaction, stored, condition, loaded.config.generation if refused else 0)

    async def _write(
        self, transaction: Transaction, stored: Config, condition: Condition, generation: int
    ) -> None:
        seen = max(stored.observed_generation, min(generation, stored.generation))
        conditions = set_condition(stored.conditions, condition, transaction.now)
        if conditions == stored.conditions and seen == stored.observed_generation:
            return
        written = await configs.write_observed(
            transaction, self._kind, stored.id, conditions=conditions, observed_generation=seen
        )
        transaction.emit(rules.event(self._kind, written, "modified", stored))


def _waiting(reason: str, message: str, again_seconds: float) -> Result:
    return Result(Condition(APPLIED, "Unknown", reason, message), again_seconds=again_seconds)
