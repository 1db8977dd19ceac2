"""The rules of config maps: making and changing."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

from pilothouse_server.config import repository
from pilothouse_server.config.model import ConfigMap
from pilothouse_server.config.operations import configs, rules
from pilothouse_server.errors import already_exists
from pilothouse_server.namespaces import operations as namespaces
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

Merge = Callable[[ConfigMap], ConfigMap]


async def locate(transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False) -> ConfigMap:
    """The config map of this name; NotFound as `configs.locate`."""
    return cast("ConfigMap", await configs.locate(transaction, "config_map", namespace, name, lock=lock))


async def create(transaction: Transaction, namespace_name: str, wanted: ConfigMap) -> ConfigMap:
    """Makes a config map.

    Raises:
        InvalidArgument: over 1 MiB, or a key that stands in both maps.
        NotFound: the namespace.
        AlreadyExists: the name.
        FailedPrecondition: the namespace is inactive or being deleted.
    """
    rules.check_config_map(wanted)
    namespace = await namespaces.locate(transaction, namespace_name, "share")
    namespaces.refuse_inactive(namespace)
    if await repository.find(transaction, "config_map", namespace_name, wanted.name) is not None:
        raise already_exists("config map", wanted.name)
    created = await repository.insert_config_map(transaction, configs.placed(wanted, namespace))
    await configs.changed(transaction, "config_map", created, "added")
    return cast("ConfigMap", created)


async def take_over(transaction: Transaction, namespace: Namespace, wanted: ConfigMap) -> bool:
    """Makes a config map of one that is on the cluster, `wanted.taken_over`; answers whether there was none yet.

    From then on it is one like any other: what others change on the cluster is taken back, and deleting it deletes the
    ConfigMap. The caller holds the namespace's lock.

    Raises:
        InvalidArgument: as `create`.
        FailedPrecondition: it is there, and being deleted.
    """
    if await configs.is_there(transaction, "config_map", namespace, wanted.name):
        return False
    rules.check_config_map(wanted)
    created = await repository.insert_config_map(transaction, configs.placed(wanted, namespace))
    await configs.changed(transaction, "config_map", created, "added")
    return True


async def change(
    transaction: Transaction,
    namespace: str,
    name: str,
    merge: Merge,
    check: configs.Check,
    *,
    restart: bool,
) -> tuple[ConfigMap, list[str]]:
    """Changes what is wanted: `merge` answers the stored one with the caller's fields taken over. Answers it
    as stored, and the containers that are restarted: those that read it, if `restart` and the data changed.

    Errors as `create`; Aborted from `check` if the etag is not the current one; FailedPrecondition if it is
    immutable or being deleted.
    """
    stored = await locate(transaction, namespace, name, lock=True)
    check(stored)
    configs.refuse_deleting("config_map", stored)
    wanted = merge(stored)
    if wanted == stored:
        return stored, []
    same_data = (wanted.data, wanted.binary_data) == (stored.data, stored.binary_data)
    if stored.immutable and not (same_data and wanted.immutable):
        raise rules.refuse_immutable("config map", name)
    rules.check_config_map(wanted)
    written = await repository.update_config_map(transaction, stored, wanted)
    await configs.changed(transaction, "config_map", written, "modified", stored)
    restarted = (
        await configs.restart_users(transaction, "config_map", written) if restart and not same_data else []
    )
    return cast("ConfigMap", written), restarted


def taken_over(stored: ConfigMap, asked: ConfigMap, paths: tuple[str, ...]) -> ConfigMap:
    """The stored config map with the fields that `paths` names from the one that is asked for."""
    return msgspec.structs.replace(stored, **{path: getattr(asked, path) for path in paths})
