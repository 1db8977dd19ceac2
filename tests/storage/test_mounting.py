"""Volumes in pods: the manifest of each type, attaching and detaching, and the pods that these replace."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from pilothouse_simulator.values.resources import DEPLOYMENTS
from tests.storage.conftest import Place, mount


async def attach(place: Place, name: str, container: str = "web", **fields: Any) -> pb.AttachVolumeResponse:
    return await place.client.storage.attach_volume(
        namespace=place.name, name=name, container=container, **fields
    )


async def detach(place: Place, name: str, container: str = "web", **fields: Any) -> pb.DetachVolumeResponse:
    return await place.client.storage.detach_volume(
        namespace=place.name, name=name, container=container, **fields
    )


async def test_every_type_of_volume_reaches_the_pods(place: Place) -> None:
    config = place.client.config
    await config.create_config_map(
        namespace=place.name, config_map=config_pb2.ConfigMap(name="settings", data={"a": "1"})
    )
    await config.create_secret(namespace=place.name, secret=config_pb2.Secret(name="keys", data={"k": b"1"}))
    await place.make("data")
    await place.make("shared", access_mode=pb.ACCESS_MODE_READ_ONLY_MANY, size="1Gi")
    await place.make("settings-files", type=pb.VOLUME_TYPE_CONFIG_MAP, source_name="settings")
    await place.make("key-files", type=pb.VOLUME_TYPE_SECRET, source_name="keys")
    await place.make("logs", type=pb.VOLUME_TYPE_HOST_PATH, host_path="/var/log")
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR, size="64Mi", medium="Memory")
    names = ["data", "key-files", "logs", "scratch", "settings-files", "shared"]
    await place.run(
        *(mount(name, f"/{name}") for name in names),
        mount("own", "/own"),
        empty_dirs=[container_pb2.EmptyDir(name="own")],
    )
    await place.running()
    assert place.pod_volumes(DEPLOYMENTS) == {
        "own": {"emptyDir": {}},
        "data": {"persistentVolumeClaim": {"claimName": "data"}},
        "key-files": {"secret": {"secretName": "keys", "defaultMode": 420}},
        "logs": {"hostPath": {"path": "/var/log", "type": ""}},
        "scratch": {"emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        "settings-files": {"configMap": {"name": "settings", "defaultMode": 420}},
        "shared": {"persistentVolumeClaim": {"claimName": "shared", "readOnly": True}},
    }
    await place.volume(lambda each: each.status == pb.VOLUME_STATUS_BOUND)


async def test_attaching_replaces_the_pods_and_reports_it(place: Place) -> None:
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR, mount_path="/scratch")
    await place.run(replicas=2)
    before = await place.running()
    answer = await attach(place, "scratch", read_only=True, sub_path="a/b")
    assert answer.restarts == 2
    assert list(answer.volume.mounted_by) == ["web"]
    after = await place.container(lambda each: each.pod_name != before.pod_name and each.ready_replicas == 2)
    assert list(after.volume_mounts) == [mount("scratch", "/scratch", read_only=True, sub_path="a/b")]
    again = await attach(place, "scratch", read_only=True, sub_path="a/b")
    assert again.restarts == 0
    assert (await place.running()).generation == after.generation
    answer_of_detach = await detach(place, "scratch")
    assert answer_of_detach.restarts == 2
    assert not answer_of_detach.volume.mounted_by
    await place.running()
    assert place.pod_volumes(DEPLOYMENTS) == {}


async def test_a_stopped_container_has_no_pods_to_replace(place: Place) -> None:
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR, mount_path="/scratch")
    await place.run()
    await place.client.containers.stop(namespace=place.name, name="web")
    assert (await attach(place, "scratch")).restarts == 0
    assert (await detach(place, "scratch")).restarts == 0


async def test_impossible_attachments_are_refused(place: Place) -> None:
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
    await place.make("other", type=pb.VOLUME_TYPE_EMPTY_DIR)
    await place.run(mount("own", "/own"), empty_dirs=[container_pb2.EmptyDir(name="own")])
    with pytest.raises(InvalidArgumentError, match="mount_path"):
        await attach(place, "scratch")
    with pytest.raises(NotFoundError, match="volume"):
        await attach(place, "absent", mount_path="/x")
    with pytest.raises(NotFoundError, match="container"):
        await attach(place, "scratch", "absent", mount_path="/x")
    await attach(place, "scratch", mount_path="/x")
    with pytest.raises(FailedPreconditionError) as refused:
        await attach(place, "other", mount_path="/x")
    assert refused.value.reason == "MOUNT_PATH_TAKEN"
    await place.make("own", type=pb.VOLUME_TYPE_EMPTY_DIR)
    with pytest.raises(FailedPreconditionError) as refused:
        await attach(place, "own", mount_path="/y")
    assert refused.value.reason == "VOLUME_NAME_TAKEN"


async def test_detach_removes_one_mount_or_all(place: Place) -> None:
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
    init = container_pb2.InitContainer(
        name="first", image="busybox:1", volume_mounts=[mount("scratch", "/a")]
    )
    await place.run(
        mount("scratch", "/a"), mount("scratch", "/b"), mount("scratch", "/c"), init_containers=[init]
    )
    await detach(place, "scratch", mount_path="/b")
    found = await place.client.containers.get(namespace=place.name, name="web")
    assert [each.mount_path for each in found.volume_mounts] == ["/a", "/c"]
    with pytest.raises(FailedPreconditionError) as refused:
        await detach(place, "scratch", mount_path="/b")
    assert refused.value.reason == "VOLUME_NOT_MOUNTED"
    answer = await detach(place, "scratch")
    assert not answer.volume.mounted_by
    found = await place.client.containers.get(namespace=place.name, name="web")
    assert not found.volume_mounts
    assert not found.init_containers[0].volume_mounts


async def test_a_container_may_mount_only_existing_volumes(place: Place) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await place.run(mount("absent"))
    assert refused.value.violations[0].field == "container.volume_mounts[0].volume"
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
    await place.run()
    await place.client.containers.update(
        namespace=place.name,
        name="web",
        container=container_pb2.Container(volume_mounts=[mount("scratch")]),
        update_mask=FieldMask(paths=["volume_mounts"]),
    )
    await place.running()
    assert place.pod_volumes(DEPLOYMENTS) == {"scratch": {"emptyDir": {}}}


async def test_different_spellings_of_a_directory_are_one_mount_path(place: Place) -> None:
    for name in ("scratch", "other"):
        await place.make(name, type=pb.VOLUME_TYPE_EMPTY_DIR)
    for spelled in ("/data", "/data/", "//data", "/./data", "/data/."):
        for refused in (
            place.run(mount("scratch", "/data"), mount("other", spelled)),
            place.run(
                init_containers=[
                    container_pb2.InitContainer(
                        name="first",
                        image="busybox:1",
                        volume_mounts=[mount("scratch", spelled), mount("other", "/data")],
                    )
                ]
            ),
        ):
            with pytest.raises(InvalidArgumentError, match="the mount path is duplicate"):
                await refused
    await place.run(mount("scratch", "//data/"))
    found = await place.client.containers.get(namespace=place.name, name="web")
    assert [each.mount_path for each in found.volume_mounts] == ["/data"]
    with pytest.raises(FailedPreconditionError) as taken:
        await attach(place, "other", mount_path="/./data")
    assert taken.value.reason == "MOUNT_PATH_TAKEN"
    # The same volume is already mounted at this path.
    assert (await attach(place, "scratch", mount_path="/data/")).restarts == 0
    with pytest.raises(InvalidArgumentError) as root:
        await attach(place, "other", mount_path="/./")
    assert root.value.violations[0].field == "mount_path"
    with pytest.raises(InvalidArgumentError) as root:
        await place.run(mount("scratch", "/"), name="rooted")
    assert root.value.violations[0].field == "container.volume_mounts[0].mount_path"
    await detach(place, "scratch", mount_path="/data//")
    found = await place.client.containers.get(namespace=place.name, name="web")
    assert not found.volume_mounts
    made = await place.make("third", type=pb.VOLUME_TYPE_EMPTY_DIR, mount_path="//third/")
    assert made.mount_path == "/third"
