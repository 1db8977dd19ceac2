"""Mounts and unmounts volumes, for the noun storage (`storage.mounter`).

Mounting and unmounting change the container: its pods are replaced.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.containers import operations, repository
from pilothouse_server.containers.dry_run import check_on_cluster
from pilothouse_server.containers.guarding import only_takes_away, refuse_power_by_reading
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.owned_volumes import why_needed
from pilothouse_server.errors import FailedPrecondition, invalid
from pilothouse_server.guard.model import Keys
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.mounter import Remounted
from pilothouse_server.storage.operations import locate as locate_volume
from pilothouse_server.storage.operations import refuse_deleting as refuse_deleting_volume
from pilothouse_server.storage.rules import HOST_PATH_PERMISSION, refuse_host_path
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.volumes import ROOT_WORDS, VolumeMount, canonical_mount_path


class Mounter:
    """Implements `storage.mounter.VolumeMounter`, which documents each method.

    `keys`: annotation and label keys, by the permission to set them.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def attach(
        self, transaction: Transaction, namespace: str, container: str, wanted: VolumeMount, *, may: May
    ) -> Remounted:
        volume = await locate_volume(transaction, namespace, wanted.volume)
        refuse_deleting_volume(volume)
        path = canonical_mount_path(wanted.mount_path or volume.mount_path)
        if path == "/":
            raise invalid("mount_path", ROOT_WORDS)
        if not path:
            raise invalid(
                "mount_path", f'must be set: volume "{volume.name}" has no mount_path', reason="REQUIRED"
            )
        mount = msgspec.structs.replace(wanted, mount_path=path)

        def merge(stored: Container) -> Container:
            return _with_mount(stored, mount)

        return await _remount(transaction, volume, container, merge, self._keys, may)

    async def detach(
        self,
        transaction: Transaction,
        namespace: str,
        name: str,
        container: str,
        mount_path: str,
        *,
        may: May,
    ) -> Remounted:
        volume = await locate_volume(transaction, namespace, name)

        def merge(stored: Container) -> Container:
            changed = _without_mount(stored, name, canonical_mount_path(mount_path))
            if not may(HOST_PATH_PERMISSION):
                # Pods keep the folder until new pods replace them, and that rollout may be held: see `guarding`.
                refuse_host_path(namespace, volume.name, volume.type)
            self._refuse_loss(stored, volume, may)
            return changed

        # A caller that may detach needs no permission for the other mounts, because the container only loses access.
        return await _remount(transaction, volume, container, merge, self._keys, only_takes_away)

    async def refuse_deletion(self, transaction: Transaction, volume: Volume, *, may: May) -> None:
        await _refuse_needed(transaction, volume)
        if volume.is_claim and not volume.taken_over:
            users = await repository.users_of_claim(transaction, volume.namespace_id, volume.kubernetes_name)
            if users:
                names = ", ".join(users)
                raise FailedPrecondition(
                    f'volume "{volume.name}" is the existing claim of {names}: remove it from their pod_volumes first',
                    reason="VOLUME_IN_USE",
                    metadata={"containers": names},
                )
        if volume.type != "config_map" and volume.type != "secret":
            return
        readers = await repository.users_of_source(
            transaction, volume.namespace_id, volume.type, [volume.source_name], deleting=True
        )
        for each in await repository.get_many(transaction, list(readers)):
            if any(mount.volume == volume.name for mount in each.all_mounts):
                self._refuse_loss(each, volume, may)

    def _refuse_loss(self, container: Container, volume: Volume, may: May) -> None:
        """Raises PermissionDenied if pods with rights would still read the volume's source.

        The config map or secret no longer counts as read by the container, but present pods read it. A caller that
        writes the config map or secret decides what these pods do.
        """
        if volume.source_name:
            reads = f'volume "{volume.name}" until its pods are gone'
            refuse_power_by_reading(container, self._keys.guarded, may, reads)


async def _refuse_needed(transaction: Transaction, volume: Volume) -> None:
    if volume.owner_id is None:
        return
    for owner in await repository.get_many(transaction, [volume.owner_id]):
        if why := why_needed(owner, volume.kubernetes_name):
            raise FailedPrecondition(
                f'volume "{volume.name}" is {why}',
                reason="VOLUME_OWNED",
                metadata={"container": owner.name},
            )


async def _remount(
    transaction: Transaction,
    volume: Volume,
    container: str,
    merge: Callable[[Container], Container],
    keys: Keys,
    may: May,
) -> Remounted:
    seen: list[Container] = []
    changed = await operations.change(
        transaction, volume.namespace, container, merge, seen.append, keys=keys, may=may
    )
    restarts = 0
    if changed.generation != seen[-1].generation:
        volume = await locate_volume(transaction, volume.namespace, volume.name)
        # A held rollout replaces pods only when it is released.
        restarts = 0 if changed.hold_rollout else changed.wanted_replicas
    return Remounted(volume, restarts, lambda connect: check_on_cluster(connect, changed))


def _with_mount(container: Container, mount: VolumeMount) -> Container:
    for other in container.volume_mounts:
        if msgspec.structs.replace(other, mount_path=canonical_mount_path(other.mount_path)) == mount:
            return container
        if canonical_mount_path(other.mount_path) == mount.mount_path:
            raise FailedPrecondition(
                f'container "{container.name}" has volume "{other.volume}" mounted at {mount.mount_path} already',
                reason="MOUNT_PATH_TAKEN",
                metadata={
                    "container": container.name,
                    "volume": other.volume,
                    "mount_path": mount.mount_path,
                },
            )
    if mount.volume in container.spec.own_volumes:
        raise FailedPrecondition(
            f'container "{container.name}" has a volume of its own with the name "{mount.volume}"',
            reason="VOLUME_NAME_TAKEN",
            metadata={"container": container.name, "volume": mount.volume},
        )
    return msgspec.structs.replace(container, volume_mounts=(*container.volume_mounts, mount))


def _without_mount(container: Container, volume: str, mount_path: str) -> Container:
    def kept(mounts: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        return tuple(
            mount
            for mount in mounts
            if mount.volume != volume or mount_path not in ("", canonical_mount_path(mount.mount_path))
        )

    changed = container.changing_mounts(kept)
    if volume in container.spec.own_volumes or changed == container:
        where = f" at {mount_path}" if mount_path else ""
        raise FailedPrecondition(
            f'container "{container.name}" does not mount volume "{volume}"{where}',
            reason="VOLUME_NOT_MOUNTED",
            metadata={"container": container.name, "volume": volume},
        )
    return changed
