"""The claims, config maps and secrets in a namespace that imported containers mount and read.

    Existing      the objects that the namespace already has
    Discovered    the objects that a container needs and the cluster has (`Dependencies`, outside any transaction;
                  reads each object once)
    Created       the objects that were created for a container (`create`, in the transaction of the import)

A caller who may not create a volume, config map or secret cannot create one by an import; the values of a Secret are
then not even read. Otherwise the values go from the cluster's response to the encryption, and no response of the
platform contains them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.config.model import ConfigMap, Kind
from pilothouse_server.config.operations import config_maps, configs, secrets
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.containers.config_use import source_fields
from pilothouse_server.containers.model import Container, MountedVolume
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.importing import sources, unfit, volumes
from pilothouse_server.importing.deployments import Converted
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAP_METADATA,
    CONFIG_MAPS,
    SECRET_METADATA,
    SECRETS,
    Manifest,
    Resource,
)
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.storage.claims import PERSISTENT_VOLUME_CLAIMS
from pilothouse_server.storage.model import CLAIM, Volume
from pilothouse_server.storage.operations import stream as stream_volumes
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

VOLUME_PERMISSION = "storage.create"
CONFIG_PERMISSION = "config.create"

_RESOURCES = {"config_map": CONFIG_MAPS, "secret": SECRETS}
_METADATA = {"config_map": CONFIG_MAP_METADATA, "secret": SECRET_METADATA}


class Existing(msgspec.Struct, frozen=True):
    """The objects that the namespace already has.

    `claims`: by their names on the cluster. `showing`: volumes with a config map or secret. `containers`: their names
    by their uids, for Services that may name them.
    """

    claims: dict[str, Volume] = {}
    sources: frozenset[tuple[Kind, str]] = frozenset()
    showing: tuple[Volume, ...] = ()
    containers: dict[str, str] = {}


class Discovered(msgspec.Struct, frozen=True):
    """The needs of one container; with each volume, whether it may be created if it does not exist yet."""

    volumes: tuple[tuple[Volume, bool], ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()
    secrets: tuple[Asked, ...] = ()


class Created(msgspec.Struct, frozen=True):
    """The names of the objects that were created for one container."""

    volumes: tuple[str, ...] = ()
    config_maps: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


async def find_existing(transaction: ReadTransaction, namespace: Namespace) -> Existing:
    """Returns the volumes, config maps and secrets of a namespace."""
    claims: dict[str, Volume] = {}
    showing: list[Volume] = []
    async for volume in stream_volumes(transaction, namespace_id=namespace.id):
        if volume.is_claim:
            claims[volume.kubernetes_name] = volume
        else:
            showing.append(volume)
    kinds: tuple[Kind, ...] = ("config_map", "secret")
    made_sources = {
        (kind, each.name)
        for kind in kinds
        async for each in configs.stream(transaction, kind, namespace_id=namespace.id)
    }
    return Existing(claims, frozenset(made_sources), tuple(showing))


class Dependencies:
    """Reads the objects that containers need from the cluster, for all containers of a call."""

    def __init__(
        self,
        client: ClusterClient,
        namespace: Namespace,
        existing: Existing,
        may: May,
        orphans: Collection[str] = (),
    ) -> None:
        self.orphans = orphans
        self._client = client
        self._namespace = namespace
        self._existing = existing
        self.may = may
        self._seen: dict[tuple[str, str], Manifest | None] = {}

    async def discover(self, converted: Converted) -> tuple[Container, Discovered, tuple[str, ...]]:
        """Returns the container with its claims, the objects to create for it, and why it cannot be imported.

        Raises:
            ClusterError: the cluster does not respond, or denies reading.
        """
        container, problems = converted.container, list[str]()
        mounted: list[MountedVolume] = []
        needed: list[tuple[Volume, bool]] = []
        for volume in container.volumes:
            if volume.type == CLAIM:
                seen = await self._claim(volume, volume.name in converted.read_only, problems)
                volume = msgspec.structs.replace(volume, access_mode=seen.access_mode if seen else "")
                if seen is not None:
                    needed.append((msgspec.structs.replace(seen, name=volume.name), not seen.id))
            else:
                shows = Volume(
                    name=volume.name,
                    type=volume.type,
                    source_name=volume.source_name,
                    optional=volume.optional,
                )
                is_here = any(volumes.is_same(each, shows) for each in self._existing.showing)
                if not is_here:
                    self._allowed(VOLUME_PERMISSION, f"volume {volume.name}", problems)
                needed.append((shows, not is_here))
            mounted.append(volume)
        maps: list[ConfigMap] = []
        asked: list[Asked] = []
        for (kind, name), optional in _sources(container).items():
            if (kind, name) in self._existing.sources:
                continue
            if why := sources.source_problem(kind, name):
                if not optional:
                    problems.append(f"{_RESOURCES[kind].kind} {name}: {why}")
                continue
            if kind == "config_map":
                maps += await self._config_map(name, optional, problems)
            else:
                asked += await self._secret(name, optional, problems)
        container = msgspec.structs.replace(container, volumes=tuple(mounted))
        return container, Discovered(tuple(needed), tuple(maps), tuple(asked)), tuple(problems)

    async def source(self, kind: Kind, name: str) -> tuple[Discovered, tuple[str, ...]]:
        """Returns the config map or secret to create, or the reasons why it cannot be created.

        Raises:
            ClusterError: the cluster does not respond, or denies reading.
        """
        problems = list[str]()
        if (kind, name) in self._existing.sources:
            problems.append(f"{_RESOURCES[kind].kind} {name}: the namespace has one of this name")
        elif why := sources.source_problem(kind, name):
            problems.append(f"{_RESOURCES[kind].kind} {name}: {why}")
        elif kind == "config_map":
            return Discovered(config_maps=tuple(await self._config_map(name, False, problems))), tuple(
                problems
            )
        else:
            return Discovered(secrets=tuple(await self._secret(name, False, problems))), tuple(problems)
        return Discovered(), tuple(problems)

    async def _claim(self, mounted: MountedVolume, read_only: bool, problems: list[str]) -> Volume | None:
        name = mounted.kubernetes_name
        if (stored := self._existing.claims.get(name)) is not None:
            return stored
        if not self._allowed(VOLUME_PERMISSION, f"PersistentVolumeClaim {name}", problems):
            return None
        found = await self._read(PERSISTENT_VOLUME_CLAIMS, name)
        if found is None:
            problems.append(f"PersistentVolumeClaim {name}: it does not exist on the cluster")
            return None
        if self._fit(PERSISTENT_VOLUME_CLAIMS, found, problems) is None:
            return None
        volume, told = sources.read_claim(found, mounted, read_only=read_only, orphans=self.orphans)
        problems += told
        return volume

    async def _config_map(self, name: str, optional: bool, problems: list[str]) -> list[ConfigMap]:
        found = await self._source("config_map", name, optional, problems)
        if found is None:
            return []
        config_map, told = sources.read_config_map(found, self.orphans)
        problems += told
        return [config_map]

    async def _secret(self, name: str, optional: bool, problems: list[str]) -> list[Asked]:
        found = await self._source("secret", name, optional, problems)
        if found is None:
            return []
        secret, values, told = sources.read_secret(found, self.orphans)
        problems += told
        return [Asked(secret, values, {})]

    async def _source(self, kind: Kind, name: str, optional: bool, problems: list[str]) -> Manifest | None:
        resource = _RESOURCES[kind]
        if optional and not self.may(CONFIG_PERMISSION) and not await self._exists(kind, name):
            return None
        if not self._allowed(CONFIG_PERMISSION, f"{resource.kind} {name}", problems):
            return None
        found = await self._read(resource, name)
        if found is None and not optional:
            problems.append(f"{resource.kind} {name}: it does not exist on the cluster")
        return self._fit(resource, found, problems)

    @staticmethod
    def _fit(resource: Resource[Any], found: Manifest | None, problems: list[str]) -> Manifest | None:
        """Returns the object if database rows can store it; else adds the reasons to the problems and returns None."""
        if found is None:
            return None
        told = unfit.problems(found)
        name = str(found["metadata"]["name"])[:253]
        problems += [f"{resource.kind} {name}: {problem}" for problem in told]
        return None if told else found

    def _allowed(self, permission: str, what: str, problems: list[str]) -> bool:
        if self.may(permission):
            return True
        problems.append(
            f'{what}: permission {permission} is needed in namespace "{self._namespace.name}" to import it'
        )
        return False

    async def _exists(self, kind: Kind, name: str) -> bool:
        # Lists the metadata only, so that the values are not even transferred.
        listed = await self._client.list(
            _METADATA[kind], self._namespace.kubernetes_name, field_selector=f"metadata.name={name}"
        )
        return bool(listed.items)

    async def _read(self, resource: Resource[Any], name: str) -> Manifest | None:
        key = (resource.kind, name)
        if key not in self._seen:
            try:
                self._seen[key] = await self._client.read(resource, self._namespace.kubernetes_name, name)
            except NotFound:
                self._seen[key] = None
        return self._seen[key]


async def create(
    transaction: Transaction, namespace: Namespace, found: Discovered, envelopes: Envelopes
) -> tuple[Mapping[str, str], Created]:
    """Creates the missing objects: config maps and secrets first, then the volumes that show them.

    Returns the final names of the volumes, by their intended names, and the created objects.

    Raises:
        InvalidArgument: an object breaks a rule.
        FailedPrecondition: an object is being deleted.
        Unavailable: no key provider of this server has the active key.
    """
    maps = [
        each.name for each in found.config_maps if await config_maps.take_over(transaction, namespace, each)
    ]
    made_secrets = [
        asked.secret.name
        for asked in found.secrets
        if await secrets.take_over(transaction, namespace, asked, envelopes)
    ]
    names: dict[str, str] = {}
    made_volumes = []
    for wanted, may_make in found.volumes:
        volume, is_new = await volumes.take_over(transaction, namespace, wanted, may_make=may_make)
        names[wanted.name] = volume.name
        if is_new:
            made_volumes.append(volume.name)
    return names, Created(tuple(made_volumes), tuple(maps), tuple(made_secrets))


def _sources(container: Container) -> dict[tuple[Kind, str], bool]:
    """Returns the config maps and secrets that a container and its volumes name, and whether each is optional."""
    named: dict[tuple[Kind, str], bool] = {}
    for volume in container.volumes:
        if volume.type == "config_map" or volume.type == "secret":
            shown: tuple[Kind, str] = (volume.type, volume.source_name)
            named[shown] = named.get(shown, True) and volume.optional
    for _, variable in source_fields(container):
        if variable.value_from == "config_map" or variable.value_from == "secret":
            key: tuple[Kind, str] = (variable.value_from, variable.source_name)
            named[key] = named.get(key, True) and variable.optional
    named |= {("secret", name): False for name in container.spec.image_pull_secrets}
    return named
