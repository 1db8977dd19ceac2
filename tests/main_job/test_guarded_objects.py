"""Some programs fill or copy claims, config maps and secrets according to their labels and annotations.

Only holders of `namespace.security` over all namespaces may set such keys. Otherwise a tenant could have the data of
others copied to it, or its own data put among theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_server.settings.model import Settings
from pilothouse_server.values.key_patterns import KeyPatterns
from tests.conftest import Database
from tests.harness import running_server

CLAIM = storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM
Call = Callable[..., Awaitable[Any]]


class Objects:
    """Creates and changes one kind of object by a client; `noun` is its name in requests."""

    def __init__(self, noun: str, make: Call, change: Call, message: Callable[..., Any]) -> None:
        self.noun = noun
        self._make, self._change, self._message = make, change, message

    async def make(self, name: str, **fields: Any) -> Any:
        return await self._make(namespace="shop", **{self.noun: self._message(name=name, **fields)})

    async def change(self, name: str, **fields: Any) -> Any:
        given = {self.noun: self._message(**fields), "update_mask": FieldMask(paths=list(fields))}
        answer = await self._change(namespace="shop", name=name, **given)
        # Changes of config maps and secrets return more than the object.
        return getattr(answer, self.noun, answer)


def of(client: AsyncClient) -> list[Objects]:
    config, storage = client.config, client.storage

    def volume(**fields: Any) -> storage_pb2.Volume:
        return storage_pb2.Volume(**{"type": CLAIM, "size": "1Gi", **fields})

    return [
        Objects("volume", storage.create_volume, storage.update_volume, volume),
        Objects("config_map", config.create_config_map, config.update_config_map, config_pb2.ConfigMap),
        Objects("secret", config.create_secret, config.update_secret, config_pb2.Secret),
    ]


async def refused(made: Awaitable[Any]) -> PilothouseError:
    with pytest.raises(PilothouseError) as told:
        await made
    assert told.value.code.name == "PERMISSION_DENIED"
    assert told.value.metadata["permission"] == "namespace.security"
    return told.value


async def test_keys_on_which_programs_act_are_refused_to_namespace_holders(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        holder, operator = [
            of(await server.user(name, {where: "operator"}))
            for name, where in (("dora", "shop"), ("olga", ""))
        ]
        for mine, others in zip(holder, operator, strict=True):
            for key in ("k8s.io/CloneRequest", "replicator.v1.mittwald.de/replicate-to"):
                told = await refused(mine.make("one", annotations={key: "theirs/data"}))
                assert (told.metadata["field"], told.metadata["key"]) == (f"{mine.noun}.annotations", key)
                assert f'{mine.noun}.annotations would set "{key}"' in told.message
            told = await refused(mine.make("one", labels={"generate.kyverno.io/clone-source": ""}))
            assert told.metadata["field"] == f"{mine.noun}.labels"
            # Everyone may set keys on which no program acts.
            free = {"app.kubernetes.io/name": "a", "example.org/note": "b"}
            assert (await mine.make("one", annotations=free)).annotations == free
            told = await refused(mine.change("one", annotations={**free, "nfs.io/storage-path": "../theirs"}))
            assert told.metadata["key"] == "nfs.io/storage-path"

            # Existing values stay when a tenant changes the rest; a tenant may remove them, but not change them.
            set_by_others = {"cdi.kubevirt.io/storage.import.endpoint": "http://a"}
            assert (await others.make("two", annotations=set_by_others)).annotations == set_by_others
            kept = await mine.change("two", annotations={**set_by_others, **free}, labels={"team": "a"})
            assert kept.annotations == {**set_by_others, **free}
            await refused(mine.change("two", annotations=dict.fromkeys(set_by_others, "http://b")))
            assert (await mine.change("two", annotations=free)).annotations == free
            await refused(mine.change("two", annotations=set_by_others))


async def test_the_guarded_keys_are_a_setting(database: Database, tmp_path: Path) -> None:
    """The control: everyone may set a key that is not in the list."""
    async with running_server(
        database, tmp_path, with_cluster=False, guarded_object_keys="example.org"
    ) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        for mine in of(await server.user("dora", {"shop": "operator"})):
            assert (await mine.make("one", annotations={"k8s.io/CloneRequest": "theirs/data"})).annotations
            told = await refused(mine.make("two", annotations={"example.org/fill": "theirs/data"}))
            assert told.metadata["key"] == "example.org/fill"


def test_guarded_keys_and_keys_that_everyone_may_set() -> None:
    patterns = Settings().guarded_object_keys.split(",")
    inside = (
        "k8s.io/CloneRequest k8s.io/CloneOf cdi.kubevirt.io/storage.clone.token trident.netapp.io/importOriginalName"
        " stork.libopenstorage.org/snapshot-source-namespace nfs.io/storage-path openebs.io/cas-type"
        " cas.openebs.io/config"
        " pv.kubernetes.io/bind-completed volume.beta.kubernetes.io/storage-class volume.kubernetes.io/selected-node"
        " replicator.v1.mittwald.de/replicate-from reflector.v1.k8s.emberstack.com/reflects kubed.appscode.com/sync"
        " synator/sync clustersecret.io/created-by kyverno.io/kyverno generate.kyverno.io/clone-source"
        " kubernetes.io/service-account.name kubernetes.io/service-account.uid"
    )
    guarded = KeyPatterns(",".join(patterns), guarding=True)
    assert [key for key in inside.split() if key not in guarded] == []
    for pattern in patterns:
        others = KeyPatterns(",".join(each for each in patterns if each != pattern), guarding=True)
        assert [key for key in inside.split() if key not in others], f"no key is guarded by {pattern} alone"
    outside = (
        "app.kubernetes.io/name helm.sh/chart meta.helm.sh/release-name kubernetes.io/description"
        " kubectl.kubernetes.io/last-applied-configuration reloader.stakater.com/match"
        " argocd.argoproj.io/sync-wave team service.beta.openshift.io/inject-cabundle grafana_dashboard"
    )
    assert [key for key in outside.split() if key in guarded] == []
