"""ConfigService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import cast

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.config import messages
from pilothouse_server.config.dry_run import check_on_cluster
from pilothouse_server.config.model import Config, ConfigMap, Kind, Secret
from pilothouse_server.config.operations import config_maps, configs, rotation, secrets
from pilothouse_server.config.readers import ReaderLookup
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import missing
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.cached_reads import CachedReads
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer
from pilothouse_server.rpc.interceptors.authorization import permission_denied
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.noun_tables import EnvelopeTable
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.key_patterns import KeyPatterns

RESTART = "container.restart"
_KINDS: tuple[Kind, ...] = ("config_map", "secret")

_EITHER = {kind: AnswerField(pb.Config, kind) for kind in _KINDS}
_READS = {
    "config_map": CachedReads(
        configs.CACHED["config_map"],
        messages.CACHE["config_map"],
        AnswerField(pb.GetConfigMapResponse, "config_map"),
        ListAnswer(pb.ListConfigMapsResponse, "config_maps"),
    ),
    "secret": CachedReads(
        configs.CACHED["secret"],
        messages.CACHE["secret"],
        AnswerField(pb.GetSecretResponse, "secret"),
        ListAnswer(pb.ListSecretsResponse, "secrets"),
    ),
}


class ConfigService:
    """Serves `pilothouse.config.v1.ConfigService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ConfigService"]

    def __init__(
        self,
        watches: WatchServer,
        page_key: bytes,
        connect: Connect,
        envelopes: Envelopes,
        sealed: Sequence[EnvelopeTable],
        readers: ReaderLookup,
        guarded: KeyPatterns,
    ) -> None:
        """Takes all tables with encrypted values as `sealed`, for RotateKeys."""
        self._watches = watches
        self._lists = WatchedList(watches, WATCH)
        self._page_key = page_key
        self._connect = connect
        self._envelopes = envelopes
        self._sealed = sealed
        self._readers = readers
        self._guarded = guarded

    async def CreateConfigMap(
        self, request: pb.CreateConfigMapRequest, call: Call
    ) -> pb.CreateConfigMapResponse:
        """Creates a config map."""
        _require_name("config_map", request.config_map.name)
        created = await config_maps.create(
            await call.transaction(),
            request.namespace,
            messages.CONFIG_MAP.from_proto(request.config_map),
            self._effect(request.namespace, call),
        )
        shown, told = await self._config_map_answer(call, created)
        return pb.CreateConfigMapResponse(config_map=shown, warnings=told)

    async def GetConfigMap(
        self, request: pb.GetConfigMapRequest, call: Call
    ) -> pb.GetConfigMapResponse | bytes:
        """Returns one config map."""
        stored = await _READS["config_map"].get(request, call)
        if stored is not None:
            return stored
        async with call.read() as transaction:
            found = await config_maps.locate(transaction, request.namespace, request.name)
        return pb.GetConfigMapResponse(config_map=_described_config_map(call, found))

    async def ListConfigMaps(self, request: pb.ListConfigMapsRequest, call: Call) -> bytes:
        """Lists config maps."""
        return await _READS["config_map"].list(request, call, self._page_key, self._lists)

    async def UpdateConfigMap(
        self, request: pb.UpdateConfigMapRequest, call: Call
    ) -> pb.UpdateConfigMapResponse:
        """Changes a config map."""
        paths = check_update_mask(pb.ConfigMap, request.update_mask, messages.CONFIG_MAP.updatable)
        _check_restart(request, call)
        asked, keys = messages.CONFIG_MAP.from_proto(request.config_map), messages.single_keys(request)
        if not paths and keys == config_maps.SingleKeys():
            raise missing("update_mask")
        changed = await config_maps.change(
            await call.transaction(),
            request.namespace,
            request.name,
            lambda stored: config_maps.taken_over(stored, asked, paths, keys),
            call.noting(
                wire.etag_check(request.etag or request.config_map.etag), messages.CONFIG_MAP.to_proto
            ),
            effect=self._effect(request.namespace, call, restart=request.restart_containers),
        )
        shown, told = await self._config_map_answer(call, changed.config)
        return pb.UpdateConfigMapResponse(
            config_map=shown,
            warnings=told,
            restarted=changed.restarted,
            missing_keys=changed.missing_keys,
        )

    async def DeleteConfigMap(
        self, request: pb.DeleteConfigMapRequest, call: Call
    ) -> pb.DeleteConfigMapResponse:
        """Marks a config map for deletion."""
        marked = await self._delete("config_map", request, call)
        shown, _ = await self._config_map_answer(call, cast("ConfigMap", marked))
        return pb.DeleteConfigMapResponse(config_map=shown)

    async def CreateSecret(self, request: pb.CreateSecretRequest, call: Call) -> pb.CreateSecretResponse:
        """Creates a secret."""
        _require_name("secret", request.secret.name)
        created = await secrets.create(
            await call.transaction(),
            request.namespace,
            messages.asked_secret(request.secret),
            self._envelopes,
            self._effect(request.namespace, call),
        )
        shown, told = await self._secret_answer(call, created)
        return pb.CreateSecretResponse(secret=shown, warnings=told)

    async def GetSecret(self, request: pb.GetSecretRequest, call: Call) -> pb.GetSecretResponse | bytes:
        """Returns one secret, without its values."""
        stored = await _READS["secret"].get(request, call)
        if stored is not None:
            return stored
        async with call.read() as transaction:
            found = await secrets.locate(transaction, request.namespace, request.name)
        return pb.GetSecretResponse(secret=_described_secret(call, found))

    async def ListSecrets(self, request: pb.ListSecretsRequest, call: Call) -> bytes:
        """Lists secrets, without their values."""
        return await _READS["secret"].list(request, call, self._page_key, self._lists)

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, call: Call) -> pb.UpdateSecretResponse:
        """Changes a secret."""
        paths = check_update_mask(pb.Secret, request.update_mask, messages.SECRET_UPDATABLE)
        _check_restart(request, call)
        if not paths and not request.set_data and not request.remove_keys:
            raise missing("update_mask")
        changed = await secrets.change(
            await call.transaction(),
            request.namespace,
            request.name,
            messages.asked_change(request, paths),
            self._envelopes,
            call.noting(wire.etag_check(request.etag or request.secret.etag), messages.SECRET.to_proto),
            effect=self._effect(request.namespace, call, restart=request.restart_containers),
        )
        call.facts.secrets = {f"data.{key}": there for key, there in changed.secret_keys.items()}
        shown, told = await self._secret_answer(call, changed.config)
        return pb.UpdateSecretResponse(
            secret=shown,
            warnings=told,
            restarted=changed.restarted,
            missing_keys=changed.missing_keys,
        )

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, call: Call) -> pb.DeleteSecretResponse:
        """Marks a secret for deletion."""
        marked = await self._delete("secret", request, call)
        shown, _ = await self._secret_answer(call, cast("Secret", marked))
        return pb.DeleteSecretResponse(secret=shown)

    async def PurgeSecret(self, request: pb.PurgeSecretRequest, call: Call) -> pb.PurgeSecretResponse:
        """Removes the former values of a secret."""
        found, purged = await secrets.purge(await call.transaction(), request.namespace, request.name)
        if found is not None:
            call.describe(resource_id=found.id, resource_uid=found.uid, namespace_id=found.namespace_id)
        call.describe(purged=purged)
        return pb.PurgeSecretResponse(purged=purged)

    async def RevealSecret(self, request: pb.RevealSecretRequest, call: Call) -> pb.RevealSecretResponse:
        """Returns the values of a secret; the kernel writes the audit record before the response is sent."""
        async with call.read() as transaction:
            found = await secrets.locate(transaction, request.namespace, request.name)
            call.describe(resource_id=found.id, resource_uid=found.uid, namespace_id=found.namespace_id)
            values = await secrets.reveal(transaction, found, request.keys, self._envelopes)
        return pb.RevealSecretResponse(data=values)

    async def _config_map_answer(
        self, call: Call, value: ConfigMap
    ) -> tuple[pb.ConfigMap, Iterable[resource_pb2.Warning]]:
        """Returns a mutation's response. With `validate_only` the cluster tries it first, without any lock.

        The warnings are those of the cluster.
        """
        shown = _described_config_map(call, value)
        if not call.validate_only:
            return shown, ()
        await call.leave_transaction()
        return shown, map(wire.WARNING.to_proto, await check_on_cluster(self._connect, value))

    async def _secret_answer(
        self, call: Call, value: Secret
    ) -> tuple[pb.Secret, Iterable[resource_pb2.Warning]]:
        """Returns the same for a secret. During a trial it reads the values from the uncommitted write."""
        shown = _described_secret(call, value)
        if not call.validate_only:
            return shown, ()
        values = await secrets.reveal(await call.transaction(), value, (), self._envelopes)
        await call.leave_transaction()
        return shown, map(wire.WARNING.to_proto, await check_on_cluster(self._connect, value, values))

    def WatchConfigs(self, _request: pb.WatchConfigsRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches config maps and secrets, the latter without their values."""
        return watch(self._watches, call, _WATCHED)

    async def RotateKeys(self, request: pb.RotateKeysRequest, call: Call) -> pb.RotateKeysResponse:
        """Wraps a batch of data keys with the newest key-encryption key."""
        if call.validate_only:
            await rotation.refresh(self._envelopes)
            rotated = 0
        else:
            batch = request.batch_size or rotation.DEFAULT_BATCH
            rotated = (await rotation.rotate(call.store, self._envelopes, self._sealed, batch)).rotated
        key_id, used = self._envelopes.newest_key_id, await rotation.look(call.store, self._sealed)
        remaining = sum(rows for key, rows in used.uses.items() if key != key_id)
        call.describe(resource_name=key_id, rotated=rotated, remaining=remaining, key_id=key_id)
        keys = messages.encryption_keys(used.uses, used.active, self._envelopes.key_ids)
        return pb.RotateKeysResponse(rotated=rotated, remaining=remaining, key_id=key_id, keys=keys)

    def _effect(self, namespace: str, call: Call, *, restart: bool = False) -> configs.Effect:
        return configs.Effect(self._readers, Labelling(self._guarded, call.may(namespace)), restart)

    async def _delete(
        self, kind: Kind, request: pb.DeleteConfigMapRequest | pb.DeleteSecretRequest, call: Call
    ) -> Config:
        return await configs.delete(
            await call.transaction(),
            kind,
            request.namespace,
            request.name,
            wire.etag_check(request.etag),
            self._readers,
        )


async def _resources(transaction: ReadTransaction, wanted: WatchFilter, call: Call) -> AsyncIterator[bytes]:
    for kind in _KINDS:
        async for message in _READS[kind].first_state(transaction, wanted, call):
            yield _EITHER[kind].answer(message)


_WATCHED = Watched(frozenset(_KINDS), _resources, message=pb.Config)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["ConfigService"], "WatchConfigs")


def _described_config_map(call: Call, value: ConfigMap) -> pb.ConfigMap:
    call.describe(resource_id=value.id, resource_uid=value.uid, namespace_id=value.namespace_id)
    return messages.CONFIG_MAP.to_proto(value)


def _described_secret(call: Call, value: Secret) -> pb.Secret:
    call.describe(resource_id=value.id, resource_uid=value.uid, namespace_id=value.namespace_id)
    return messages.SECRET.to_proto(value)


def _check_restart(request: pb.UpdateConfigMapRequest | pb.UpdateSecretRequest, call: Call) -> None:
    """Raises PermissionDenied if the request asks for restarts and the caller may not restart containers."""
    if request.restart_containers and not call.caller.allows(RESTART, request.namespace):
        raise permission_denied(RESTART, request.namespace)


def _require_name(field: str, name: str) -> None:
    if not name:
        raise missing(f"{field}.name")
