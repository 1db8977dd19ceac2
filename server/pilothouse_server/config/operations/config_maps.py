"""The rules of config maps: create and change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from pilothouse_server.config import repository
from pilothouse_server.config.model import ConfigMap
from pilothouse_server.config.operations import configs, rules
from pilothouse_server.errors import already_exists, invalid
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

Merge = Callable[[ConfigMap], ConfigMap]


async def locate(transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False) -> ConfigMap:
    """Returns the config map of this name. Raises NotFound as `configs.locate`."""
    return cast("ConfigMap", await configs.locate(transaction, "config_map", namespace, name, lock=lock))


async def create(
    transaction: Transaction, namespace_name: str, wanted: ConfigMap, effect: configs.Effect
) -> ConfigMap:
    """Creates a config map.

    Raises:
        InvalidArgument: the values exceed 1 MiB, or a key is in both maps. NotFound: the namespace. AlreadyExists: the
        name. FailedPrecondition: the namespace is inactive or being deleted. PermissionDenied: a container with rights
        that the caller may not give already refers to the missing config map; or a guarded label or annotation.
    """
    rules.check_config_map(wanted)
    effect.labelling.check("config_map", namespace_name, None, wanted)
    namespace = await locate_namespace(transaction, namespace_name, "share")
    refuse_inactive_namespace(namespace)
    taken = await repository.find(transaction, "config_map", namespace_name, wanted.name)
    if taken is not None:
        being_deleted = taken.deletion_requested_at is not None
        raise already_exists("config map", wanted.name, being_deleted=being_deleted)
    created = await repository.insert_config_map(transaction, configs.placed(wanted, namespace))
    await configs.refuse_power(transaction, "config_map", [created], effect)
    await configs.changed(transaction, "config_map", created, "added")
    return cast("ConfigMap", created)


async def create_many(
    transaction: Transaction, namespace_name: str, wanted: Sequence[ConfigMap], effect: configs.Effect
) -> dict[str, ConfigMap]:
    """Creates config maps with few statements, all or none; returns them by name. Raises as `create`."""
    namespace = await locate_namespace(transaction, namespace_name, "share")
    refuse_inactive_namespace(namespace)
    async for each in cooperatively(wanted):
        rules.check_config_map(each)
        effect.labelling.check("config_map", namespace_name, None, each)
    names = [each.name for each in wanted]
    if (taken := await repository.first_taken(transaction, "config_map", namespace.id, names)) is not None:
        raise already_exists("config map", taken)
    placed = [configs.placed(each, namespace) for each in wanted]
    created = await repository.insert_config_maps(transaction, placed)
    await configs.refuse_power(transaction, "config_map", created, effect)
    async for config in cooperatively(created):
        await configs.changed(transaction, "config_map", config, "added")
    return {each.name: cast("ConfigMap", each) for each in created}


async def take_over(transaction: Transaction, namespace: Namespace, wanted: ConfigMap) -> bool:
    """Creates a config map from one on the cluster, `wanted.taken_over`; returns False if the row exists already.

    From then on it is an ordinary config map: changes by others on the cluster are reverted, and deleting it deletes
    the ConfigMap. The caller must have locked the namespace.

    Raises:
        InvalidArgument: as `create`.
        FailedPrecondition: the config map exists, and is being deleted.
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
    effect: configs.Effect,
) -> configs.Changed[ConfigMap]:
    """Changes the desired state: `merge` returns the stored config map with the caller's fields.

    If `effect` requests it and the data changed, running containers that read the config map are restarted. Errors as
    `create`; Aborted from `check` if the etag is not the current one; FailedPrecondition if it is immutable or being
    deleted; PermissionDenied as `configs.changed_data`, and for labels as `create`.
    """
    stored = await locate(transaction, namespace, name, lock=True)
    check(stored)
    configs.refuse_deleting("config_map", stored)
    wanted = merge(stored)
    if wanted == stored:
        return configs.Changed(stored)
    same_data = _has_data_of(wanted, stored)
    _check_change(namespace, stored, wanted, effect)
    written = cast("ConfigMap", await repository.update_config_map(transaction, stored, wanted))
    await configs.changed(transaction, "config_map", written, "modified", stored)
    if same_data:
        return configs.Changed(written)
    removed = _keys(stored) - _keys(written)
    return await configs.changed_data(transaction, "config_map", written, effect, removed=removed)


async def change_many(
    transaction: Transaction, namespace: str, merges: Mapping[str, Merge], effect: configs.Effect
) -> dict[str, ConfigMap]:
    """Changes config maps with few statements, all or none; returns them by name. Restarts no container.

    Raises as `change`.
    """
    wanted: list[ConfigMap] = []
    found: dict[str, ConfigMap] = {}
    locked = await configs.locked_many(transaction, "config_map", namespace, list(merges))
    async for each in cooperatively(locked):
        stored = cast("ConfigMap", each)
        found[stored.name] = stored
        merged = merges[stored.name](stored)
        if merged != stored:
            _check_change(namespace, stored, merged, effect)
            wanted.append(merged)
    written = await repository.update_config_maps(transaction, wanted)
    with_data = [each for each in written if not _has_data_of(cast("ConfigMap", each), found[each.name])]
    await configs.refuse_power(transaction, "config_map", with_data, effect)
    async for each in cooperatively(written):
        await configs.changed(transaction, "config_map", each, "modified", found[each.name])
    return found | {each.name: cast("ConfigMap", each) for each in written}


def _has_data_of(wanted: ConfigMap, stored: ConfigMap) -> bool:
    return (wanted.data, wanted.binary_data) == (stored.data, stored.binary_data)


def _check_change(namespace: str, stored: ConfigMap, wanted: ConfigMap, effect: configs.Effect) -> None:
    if stored.immutable and not (_has_data_of(wanted, stored) and wanted.immutable):
        raise rules.refuse_immutable("config map", stored.name)
    rules.check_config_map(wanted)
    effect.labelling.check("config_map", namespace, stored, wanted)


def _keys(config_map: ConfigMap) -> set[str]:
    return {*config_map.data, *config_map.binary_data}


class SingleKeys(msgspec.Struct, frozen=True):
    """Keys to set, as text or as bytes, and keys to remove; all other keys stay."""

    data: dict[str, str] = {}
    binary_data: dict[str, bytes] = {}
    remove: tuple[str, ...] = ()


def taken_over(stored: ConfigMap, asked: ConfigMap, paths: tuple[str, ...], keys: SingleKeys) -> ConfigMap:
    """Returns the stored config map with the fields in `paths` from the requested one, and single keys changed.

    Raises:
        InvalidArgument: a key to remove does not exist, a key is named twice, or all data is given with single keys.
    """
    setting = {*keys.data, *keys.binary_data}
    if keys.data.keys() & keys.binary_data.keys():
        raise invalid("set_binary_data", "a key is in set_data, too", reason="DUPLICATE_KEY")
    rules.check_single_keys(paths, ("data", "binary_data"), setting, keys.remove)
    rules.check_removable(_keys(stored), keys.remove)
    wanted = msgspec.structs.replace(stored, **{path: getattr(asked, path) for path in paths})
    if not setting and not keys.remove:
        return wanted
    left = setting | set(keys.remove)
    return msgspec.structs.replace(
        wanted,
        data={key: text for key, text in stored.data.items() if key not in left} | keys.data,
        binary_data={key: value for key, value in stored.binary_data.items() if key not in left}
        | keys.binary_data,
    )
