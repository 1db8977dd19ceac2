"""Volumes of the pods of one container alone: shown, sent, kept from deletion, refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client import PilothouseError
from tests.harness import Server
from tests.main_job.executing import make_web
from tests.main_job.legacy import DEPLOYMENTS, Kubectl
from tests.waiting import poll_until

FILES = pb.SourceFiles(source_name="keys", items=[pb.KeyFile(key="TOKEN", path="a/token", mode=0o400)])
KEYS = pb.PodVolume(name="keys", secret=FILES)
MOUNT = pb.VolumeMount(volume="keys", mount_path="/etc/keys", read_only=True)


def other(*volumes: pb.PodVolume, **more: Any) -> pb.Container:
    return pb.Container(name="other", image="nginx:1.27", pod_volumes=volumes, **more)


async def with_keys(server: Server) -> None:
    await make_web(server)
    await server.admin.config.create_secret(
        namespace="demo", secret=config_pb2.Secret(name="keys", data={"TOKEN": b"hunter2", "OLD": b"1"})
    )


async def test_a_volume_of_chosen_keys_is_sent_and_its_source_is_in_use(server: Server) -> None:
    await with_keys(server)
    containers, config = server.admin.containers, server.admin.config
    changed = await containers.update(
        namespace="demo",
        name="web",
        container=pb.Container(pod_volumes=[KEYS], volume_mounts=[MOUNT]),
        update_mask=FieldMask(paths=["pod_volumes", "volume_mounts"]),
    )
    assert list(changed.pod_volumes) == [KEYS]
    kubectl = Kubectl(server)

    async def sent() -> list[Any]:
        found = await kubectl.ask("GET", DEPLOYMENTS.replace("legacy", "demo"))
        return [
            volume
            for each in found["items"]
            for volume in each["spec"]["template"]["spec"].get("volumes", ())
        ]

    expected = {
        "secretName": "keys",
        "defaultMode": 0o644,
        "items": [{"key": "TOKEN", "path": "a/token", "mode": 0o400}],
    }
    assert await poll_until(sent, bool) == [{"name": "keys", "secret": expected}]
    with pytest.raises(PilothouseError, match="web") as refused:
        await config.delete_secret(namespace="demo", name="keys")
    assert refused.value.code.name == "FAILED_PRECONDITION"


async def test_a_change_names_the_containers_that_show_a_removed_key(server: Server) -> None:
    await with_keys(server)
    await server.admin.containers.create(namespace="demo", container=other(KEYS))

    async def missing(key: str) -> list[str]:
        answer = await server.admin.config.update_secret(namespace="demo", name="keys", remove_keys=[key])
        return list(answer.missing_keys)

    assert await missing("OLD") == []
    assert await missing("TOKEN") == ["other"]


WHOLE = pb.PodVolume(name="keys", config_map=pb.SourceFiles(source_name="settings", optional=True))
TWICE = pb.SourceFiles(source_name="keys", items=[*FILES.items, *FILES.items])
REFUSED = {
    "container.pod_volumes[0].secret.source_name: there is no secret": other(
        pb.PodVolume(name="a", secret=pb.SourceFiles(source_name="missing"))
    ),
    "container.pod_volumes[1]: the name is duplicate": other(KEYS, WHOLE),
    "container.pod_volumes[0].name: one of empty_dirs": other(KEYS, empty_dirs=[pb.EmptyDir(name="keys")]),
    "container.pod_volumes[0].secret.items[1]: the path is duplicate": other(
        pb.PodVolume(name="a", secret=TWICE)
    ),
    "container.pod_volumes[0].source: one of config_map, secret": other(pb.PodVolume(name="a")),
}


async def test_a_volume_that_breaks_a_rule_is_refused(server: Server) -> None:
    await with_keys(server)
    for words, container in REFUSED.items():
        with pytest.raises(PilothouseError) as refused:
            await server.admin.containers.create(namespace="demo", container=container)
        assert refused.value.message.startswith(words)


async def test_an_optional_source_may_be_missing(server: Server) -> None:
    await with_keys(server)
    made = await server.admin.containers.create(namespace="demo", container=other(WHOLE))
    assert list(made.pod_volumes) == [WHOLE]
