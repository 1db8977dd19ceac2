"""Mounting volumes into containers and taking them out again, and telling who watches volumes of it.

What mounts a volume is part of the volume as it is shown, though a container says it. So whoever changes what a
container mounts has the volumes told that begin or cease to be mounted (`tell`), each locked first: two containers
that begin to mount one at the same time are told one after the other, the later with both.

Mounting and unmounting change the container: its pods are replaced.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pilothouse_server.containers import operations as containers
from pilothouse_server.containers.model import Container, VolumeMount
from pilothouse_server.containers.privileges import May
from pilothouse_server.errors import FailedPrecondition, invalid
from pilothouse_server.storage import repository
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.operations import event, locate, refuse_deleting
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.volumes import ROOT_WORDS, canonical_mount_path


class Remounted(msgspec.Struct, frozen=True):
    """A volume after its mounts changed, the container that was changed, and how many pods are replaced for it.

    None are where it is mounted so already, or where the container has none now.
    """

    volume: Volume
    container: Container
    restarts: int


async def attach(
    transaction: Transaction, namespace: str, container: str, wanted: VolumeMount, *, may: May
) -> Remounted:
    """Mounts the volume that `wanted` names into a container; without a path, where the volume says.

    Raises:
        InvalidArgument: neither names a path.
        NotFound: the namespace, the volume or the container.
        FailedPrecondition: the path is taken, or one of the two is being deleted.
        PermissionDenied: a folder of the node, or a container with rights over it, and the caller may not.
    """
    volume = await locate(transaction, namespace, wanted.volume)
    refuse_deleting(volume)
    path = canonical_mount_path(wanted.mount_path or volume.mount_path)
    if path == "/":
        raise invalid("mount_path", ROOT_WORDS)
    if not path:
        raise invalid(
            "mount_path", f'must be set: volume "{volume.name}" has none of its own', reason="REQUIRED"
        )
    mount = msgspec.structs.replace(
        wanted, mount_path=path, read_only=wanted.read_only or volume.access_mode == "ReadOnlyMany"
    )
    return await _remount(transaction, volume, container, lambda stored: _with_mount(stored, mount), may)


async def detach(
    transaction: Transaction, namespace: str, name: str, container: str, mount_path: str
) -> Remounted:
    """Takes the mount of a volume at a path away from a container and its init containers; without a path, all.

    Raises:
        NotFound: the namespace, the volume or the container.
        FailedPrecondition: it is not mounted there, or the container is being deleted.
    """
    volume = await locate(transaction, namespace, name)
    # Whoever may detach may do so whatever else is mounted: it takes power away.
    return await _remount(
        transaction,
        volume,
        container,
        lambda stored: _without_mount(stored, name, canonical_mount_path(mount_path)),
        lambda _permission: True,
    )


async def tell(transaction: Transaction, before: Container | None, after: Container) -> None:
    """Tells watchers of the volumes that a container begins or ceases to mount; `before` is None for a new one."""
    names = _mounted(before) ^ _mounted(after)
    if not names:
        return
    for volume in await repository.lock_named(transaction, after.namespace_id, names):
        transaction.emit(event(volume, "modified", volume))


def _mounted(container: Container | None) -> set[str]:
    if container is None or container.deletion_requested_at is not None:
        return set()
    return {volume.name for volume in container.volumes}


async def _remount(
    transaction: Transaction,
    volume: Volume,
    container: str,
    merge: Callable[[Container], Container],
    may: May,
) -> Remounted:
    seen: list[Container] = []
    changed = await containers.change(
        transaction,
        volume.namespace,
        container,
        merge,
        seen.append,
        may=may,
    )
    if changed.generation == seen[0].generation:
        return Remounted(volume, changed, 0)
    await tell(transaction, seen[0], changed)
    remounted = await repository.get(transaction, volume.id)
    assert remounted is not None, "a volume in use stays"
    # A held rollout replaces pods when it is released, not for this.
    return Remounted(remounted, changed, 0 if changed.hold_rollout else changed.wanted_replicas)


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
    if mount.volume in {item.name for item in container.spec.empty_dirs}:
        raise FailedPrecondition(
            f'container "{container.name}" has an emptyDir of its own with the name "{mount.volume}"',
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

    own_dirs = {item.name for item in container.spec.empty_dirs}
    init_containers = tuple(
        msgspec.structs.replace(init, volume_mounts=kept(init.volume_mounts))
        for init in container.spec.init_containers
    )
    changed = msgspec.structs.replace(
        container,
        volume_mounts=kept(container.volume_mounts),
        spec=msgspec.structs.replace(container.spec, init_containers=init_containers),
    )
    if volume in own_dirs or changed == container:
        where = f" at {mount_path}" if mount_path else ""
        raise FailedPrecondition(
            f'container "{container.name}" does not mount volume "{volume}"{where}',
            reason="VOLUME_NOT_MOUNTED",
            metadata={"container": container.name, "volume": volume},
        )
    return changed
