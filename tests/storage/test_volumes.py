"""Requests that StorageService accepts and refuses, for each type of volume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from pilothouse_client.streams import ChangeKind
from tests.storage.conftest import Place, mount
from tests.waiting import poll_until, within

CLAIM = pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM


async def make_sources(place: Place) -> None:
    config = place.client.config
    await config.create_config_map(
        namespace=place.name, config_map=config_pb2.ConfigMap(name="settings", data={"a": "1"})
    )
    await config.create_secret(namespace=place.name, secret=config_pb2.Secret(name="keys", data={"k": b"1"}))


async def test_a_claim_is_completed_and_normalised(place: Place) -> None:
    made = await place.make(size="1024Mi", labels={"tier": "db"}, mount_path="/var/lib/data")
    assert made.size == "1Gi"
    assert made.access_mode == pb.ACCESS_MODE_READ_WRITE_ONCE
    assert made.status == pb.VOLUME_STATUS_AVAILABLE
    assert made.kubernetes_name == "data"
    assert made.created_by == "admin"
    assert made.reconciling
    found = await place.get()
    assert (found.uid, dict(found.labels), found.mount_path) == (made.uid, {"tier": "db"}, "/var/lib/data")


async def test_volumes_without_an_object_on_the_cluster_are_available_immediately(place: Place) -> None:
    await make_sources(place)
    for name, fields in {
        "settings": {"type": pb.VOLUME_TYPE_CONFIG_MAP, "source_name": "settings"},
        "keys": {"type": pb.VOLUME_TYPE_SECRET, "source_name": "keys"},
        "scratch": {"type": pb.VOLUME_TYPE_EMPTY_DIR, "size": "64Mi", "medium": "Memory"},
        "logs": {"type": pb.VOLUME_TYPE_HOST_PATH, "host_path": "/var/log"},
    }.items():
        made = await place.make(name, **fields)
        assert made.status == pb.VOLUME_STATUS_AVAILABLE
        assert not made.reconciling
        assert not made.kubernetes_name


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": pb.VOLUME_TYPE_UNSPECIFIED, "size": "1Gi"}, "volume.type"),
        ({"type": CLAIM}, "volume.size"),
        ({"type": CLAIM, "size": "0"}, "volume.size"),
        ({"type": CLAIM, "size": "500m"}, "volume.size"),
        ({"type": CLAIM, "size": "lots"}, "volume.size"),
        ({"type": CLAIM, "size": "1Gi", "mount_path": "//"}, "volume.mount_path"),
        ({"type": CLAIM, "size": "1Gi", "host_path": "/x"}, "volume.host_path"),
        ({"type": CLAIM, "size": "1Gi", "source_name": "x"}, "volume.source_name"),
        ({"type": CLAIM, "size": "1Gi", "labels": {"pilothouse.dev/x": "y"}}, "volume.labels"),
        ({"type": pb.VOLUME_TYPE_CONFIG_MAP}, "volume.source_name"),
        ({"type": pb.VOLUME_TYPE_CONFIG_MAP, "source_name": "absent"}, "volume.source_name"),
        ({"type": pb.VOLUME_TYPE_SECRET, "source_name": "absent"}, "volume.source_name"),
        ({"type": pb.VOLUME_TYPE_SECRET, "source_name": "x", "size": "1Gi"}, "volume.size"),
        ({"type": pb.VOLUME_TYPE_HOST_PATH}, "volume.host_path"),
        ({"type": pb.VOLUME_TYPE_HOST_PATH, "host_path": "/a/../etc"}, "volume.host_path"),
        ({"type": pb.VOLUME_TYPE_EMPTY_DIR, "medium": "Disk"}, "volume.medium"),
        (
            {"type": pb.VOLUME_TYPE_EMPTY_DIR, "access_mode": pb.ACCESS_MODE_READ_WRITE_MANY},
            "volume.access_mode",
        ),
        ({"type": pb.VOLUME_TYPE_EMPTY_DIR, "access_modes": ["ReadWriteOnce"]}, "volume.access_modes"),
        ({"type": CLAIM, "size": "1Gi", "access_modes": ["Once"]}, "volume.access_modes"),
        ({"type": CLAIM, "size": "1Gi", "access_modes": ["ReadWriteOnce"] * 2}, "volume.access_modes"),
        (
            {"type": CLAIM, "size": "1Gi", "access_modes": ["ReadWriteOncePod", "ReadOnlyMany"]},
            "volume.access_modes",
        ),
        (
            {
                "type": CLAIM,
                "size": "1Gi",
                "access_mode": pb.ACCESS_MODE_READ_ONLY_MANY,
                "access_modes": ["ReadOnlyMany", "ReadWriteMany"],
            },
            "volume.access_mode",
        ),
        ({"type": CLAIM, "size": "1Gi", "volume_mode": "Raw"}, "volume.volume_mode"),
    ],
)
async def test_bad_volumes_are_refused_by_field(place: Place, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await place.make("bad", **fields)
    assert field in {violation.field for violation in refused.value.violations}
    with pytest.raises(NotFoundError):
        await place.get("bad")


async def test_a_name_is_used_only_once(place: Place) -> None:
    await place.make()
    with pytest.raises(AlreadyExistsError):
        await place.make(type=pb.VOLUME_TYPE_EMPTY_DIR)


async def test_updates_change_only_mutable_fields(place: Place) -> None:
    made = await place.make()
    changed = await place.client.storage.update_volume(
        namespace=place.name,
        name="data",
        volume=pb.Volume(labels={"a": "b"}, mount_path="/x"),
        update_mask=FieldMask(paths=["labels", "mount_path"]),
        etag=made.etag,
    )
    assert (dict(changed.labels), changed.mount_path, changed.size) == ({"a": "b"}, "/x", "1Gi")
    assert changed.generation == made.generation + 1
    with pytest.raises(AbortedError):
        await place.client.storage.update_volume(
            namespace=place.name,
            name="data",
            volume=pb.Volume(mount_path="/y"),
            update_mask=FieldMask(paths=["mount_path"]),
            etag=made.etag,
        )
    with pytest.raises(InvalidArgumentError):
        await place.client.storage.update_volume(
            namespace=place.name,
            name="data",
            volume=pb.Volume(storage_class="other"),
            update_mask=FieldMask(paths=["storage_class"]),
        )


async def test_a_claim_does_not_shrink(place: Place) -> None:
    await place.make(size="2Gi")
    with pytest.raises(InvalidArgumentError) as refused:
        await place.resize("1Gi")
    assert refused.value.reason == "SIZE_SMALLER"
    same = await place.resize("2048Mi")
    assert (same.size, same.generation) == ("2Gi", 1)


async def test_lists_are_filtered(place: Place) -> None:
    await place.make("a", labels={"tier": "db"})
    await place.make("b", type=pb.VOLUME_TYPE_EMPTY_DIR, labels={"tier": "web"})
    await place.make("c", type=pb.VOLUME_TYPE_EMPTY_DIR)

    async def names(**how: Any) -> list[str]:
        return [each.name async for each in place.client.storage.list_volumes(namespace=place.name, **how)]

    assert await names() == ["a", "b", "c"]
    assert await names(order_by="name desc") == ["c", "b", "a"]
    assert await names(filter="type = EMPTY_DIR") == ["b", "c"]
    assert await names(filter='labels.tier = "db"') == ["a"]
    assert await names(label_selector="tier") == ["a", "b"]
    assert await names(page_size=1) == ["a", "b", "c"]


async def test_a_mounted_volume_is_not_deleted_and_names_its_containers(place: Place) -> None:
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
    init = container_pb2.InitContainer(
        name="first", image="busybox:1", volume_mounts=[mount("scratch", "/i")]
    )
    await place.run(mount("scratch"), name="web")
    await place.run(name="worker", init_containers=[init])
    assert list((await place.get("scratch")).mounted_by) == ["web", "worker"]
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.storage.delete_volume(namespace=place.name, name="scratch")
    assert refused.value.reason == "VOLUME_IN_USE"
    assert refused.value.metadata["containers"] == "web, worker"
    with pytest.raises(FailedPreconditionError) as refused:
        await place.resize("1Gi", "scratch")
    assert refused.value.reason == "VOLUME_IN_USE"
    for name in ("web", "worker"):
        await place.client.containers.delete(namespace=place.name, name=name)
    await place.client.storage.delete_volume(namespace=place.name, name="scratch")
    await place.gone("scratch")


async def test_a_config_map_shown_by_a_volume_is_not_deleted(place: Place) -> None:
    await make_sources(place)
    await place.make("settings", type=pb.VOLUME_TYPE_CONFIG_MAP, source_name="settings")
    with pytest.raises(FailedPreconditionError):
        await place.client.config.delete_config_map(namespace=place.name, name="settings")
    await place.client.storage.delete_volume(namespace=place.name, name="settings")
    await place.client.config.delete_config_map(namespace=place.name, name="settings")


async def test_host_paths_need_their_own_permission(place: Place) -> None:
    developer = await place.server.user(f"dev-{place.name}", {place.name: "developer"})
    folder = pb.Volume(name="logs", type=pb.VOLUME_TYPE_HOST_PATH, host_path="/var/log", mount_path="/logs")
    with pytest.raises(PermissionDeniedError) as denied:
        await developer.storage.create_volume(namespace=place.name, volume=folder)
    assert denied.value.metadata["permission"] == "storage.host_path"
    await place.client.storage.create_volume(namespace=place.name, volume=folder)
    container = container_pb2.Container(name="spy", image="busybox:1", volume_mounts=[mount("logs", "/l")])
    with pytest.raises(PermissionDeniedError):
        await developer.containers.create(namespace=place.name, container=container)
    await place.run(name="web")
    with pytest.raises(PermissionDeniedError):
        await developer.storage.attach_volume(namespace=place.name, name="logs", container="web")
    await place.client.storage.attach_volume(namespace=place.name, name="logs", container="web")
    # A user who may not mount the path may change only the number of its pods, not their programs.
    with pytest.raises(PermissionDeniedError):
        await developer.containers.update(
            namespace=place.name,
            name="web",
            container=container_pb2.Container(image="evil:1"),
            update_mask=FieldMask(paths=["image"]),
        )
    await developer.containers.update(
        namespace=place.name,
        name="web",
        container=container_pb2.Container(replicas=2),
        update_mask=FieldMask(paths=["replicas"]),
    )
    # Such a user may not remove the mount either: the old pods keep it until new pods replace them.
    detach: dict[str, Any] = {"namespace": place.name, "name": "logs", "container": "web"}
    with pytest.raises(PermissionDeniedError):
        await developer.storage.detach_volume(**detach)
    with pytest.raises(PermissionDeniedError):
        await developer.containers.update(
            namespace=place.name,
            name="web",
            container=container_pb2.Container(),
            update_mask=FieldMask(paths=["volume_mounts"]),
        )
    await place.client.storage.detach_volume(**detach)
    await place.client.identity.create_role(
        role=identity_pb2.Role(name=f"mounter-{place.name}", permissions=["storage.host_path"])
    )
    await place.client.identity.grant_role(
        username=f"dev-{place.name}", role=f"mounter-{place.name}", namespace=place.name
    )
    may = {"permission": "storage.host_path", "namespace": place.name}
    assert not await developer.identity.check_permission(**may)
    # All tenants share the node, so only a grant over all namespaces counts.
    await place.client.identity.grant_role(username=f"dev-{place.name}", role=f"mounter-{place.name}")

    async def allowed() -> bool:
        # A grant takes effect within a second.
        try:
            await developer.storage.attach_volume(namespace=place.name, name="logs", container="web")
        except PermissionDeniedError:
            return False
        return True

    await poll_until(allowed)


async def test_validate_only_writes_nothing(place: Place) -> None:
    await place.client.storage.create_volume(
        namespace=place.name,
        volume=pb.Volume(name="data", type=CLAIM, size="1Gi"),
        validate_only=True,
    )
    with pytest.raises(NotFoundError):
        await place.get()


async def test_a_watch_shows_the_life_of_a_volume(place: Place) -> None:
    """A volume's event is written a moment after that of its container, so each step waits for the one before."""
    containers, storage, name = place.client.containers, place.client.storage, place.name
    first = container_pb2.InitContainer(name="first", image="busybox:1", volume_mounts=[mount("scratch")])
    changed = container_pb2.Container(init_containers=[first])
    mask = FieldMask(paths=["init_containers"])
    await place.run(name="web")
    made, modified, deleted = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED
    # Changes of containers also update the volume's mounts: made, changed, deleted.
    steps: list[tuple[Callable[[], Awaitable[object]], ChangeKind, int]] = [
        (lambda: place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR), made, 0),
        (
            lambda: storage.attach_volume(namespace=name, name="scratch", container="web", mount_path="/s"),
            modified,
            1,
        ),
        (lambda: storage.detach_volume(namespace=name, name="scratch", container="web"), modified, 0),
        (lambda: place.run(mount("scratch"), name="second"), modified, 1),
        (
            lambda: containers.update(namespace=name, name="web", container=changed, update_mask=mask),
            modified,
            2,
        ),
        (lambda: containers.delete(namespace=name, name="second"), modified, 1),
        (lambda: containers.delete(namespace=name, name="web"), modified, 0),
        (lambda: storage.delete_volume(namespace=name, name="scratch"), deleted, 0),
    ]
    async with within(30), storage.watch_volumes(namespace=name) as changes:
        while (await anext(changes)).kind is not ChangeKind.SYNCED:
            pass
        for act, kind, mounts in steps:
            await act()
            change = await anext(changes)
            assert change.resource is not None
            assert (change.kind, change.resource.name, len(change.resource.mounted_by)) == (
                kind,
                "scratch",
                mounts,
            )


async def test_volume_operations_are_recorded(place: Place) -> None:
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
    await place.run()
    await place.client.storage.attach_volume(
        namespace=place.name, name="scratch", container="web", mount_path="/s"
    )
    records = place.client.audit.list_operations(
        namespace=place.name, filter='resource_type = "volume"', order_by="start_time"
    )
    assert [(each.action, each.resource_name) async for each in records] == [
        ("create", "scratch"),
        ("attach", "scratch"),
    ]
