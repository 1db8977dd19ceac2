"""Volumes of one container's pods: shown, applied, protected from deletion, refused; claims of the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.executing import make_web
from tests.main_job.legacy import DEPLOYMENTS, Kubectl
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


FILES = pb.SourceFiles(source_name="keys", items=[pb.KeyFile(key="TOKEN", path="a/token", mode=0o400)])
KEYS = pb.PodVolume(name="keys", secret=FILES)
CLAIM = storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM
MOUNT = pb.VolumeMount(volume="keys", mount_path="/etc/keys", read_only=True)


FIELD, AMOUNT = pb.ENV_VALUE_FROM_FIELD_REF, pb.ENV_VALUE_FROM_RESOURCE_FIELD_REF
ONE_KEY = pb.ProjectedSource(
    secret=pb.ProjectedKeys(source_name="keys", items=[pb.KeyFile(key="TOKEN", path="token")])
)


def projected(*sources: pb.ProjectedSource) -> pb.PodVolume:
    return pb.PodVolume(name="all", projected=pb.ProjectedFiles(sources=sources))


def fields(*items: pb.DownwardFile) -> pb.PodVolume:
    return pb.PodVolume(name="podinfo", downward_api=pb.DownwardFiles(items=items))


def other(*volumes: pb.PodVolume, **more: Any) -> pb.Container:
    return pb.Container(name="other", image="nginx:1.27", pod_volumes=volumes, **more)


async def with_keys(server: Server) -> None:
    await make_web(server)
    await server.admin.config.create_secret(
        namespace=server.namespace,
        secret=config_pb2.Secret(name="keys", data={"TOKEN": b"hunter2", "OLD": b"1"}),
    )


async def test_a_volume_of_chosen_keys_is_applied_and_its_source_is_in_use(server: Server) -> None:
    await with_keys(server)
    containers, config = server.admin.containers, server.admin.config
    changed = await containers.update(
        namespace=server.namespace,
        name="web",
        container=pb.Container(pod_volumes=[KEYS], volume_mounts=[MOUNT]),
        update_mask=FieldMask(paths=["pod_volumes", "volume_mounts"]),
    )
    assert list(changed.pod_volumes) == [KEYS]
    kubectl = Kubectl(server)

    async def sent() -> list[Any]:
        found = await kubectl.ask("GET", DEPLOYMENTS.replace("legacy", server.namespace))
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
        await config.delete_secret(namespace=server.namespace, name="keys")
    assert refused.value.code.name == "FAILED_PRECONDITION"


@pytest.mark.parametrize("volume", [KEYS, projected(ONE_KEY)], ids=["secret", "projected"])
async def test_a_change_names_the_containers_that_show_a_removed_key(
    server: Server, volume: pb.PodVolume
) -> None:
    await with_keys(server)
    await server.admin.containers.create(namespace=server.namespace, container=other(volume))
    with pytest.raises(PilothouseError, match="other"):
        await server.admin.config.delete_secret(namespace=server.namespace, name="keys")

    async def missing(key: str) -> list[str]:
        answer = await server.admin.config.update_secret(
            namespace=server.namespace, name="keys", remove_keys=[key]
        )
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
    "container.pod_volumes[0].source: one of config_map, secret, projected": other(pb.PodVolume(name="a")),
    "container.pod_volumes[0].projected.sources[0].secret.source_name: there is no secret": other(
        projected(pb.ProjectedSource(secret=pb.ProjectedKeys(source_name="missing")))
    ),
    "container.pod_volumes[0].projected.sources[1].source: one of config_map": other(
        projected(ONE_KEY, pb.ProjectedSource())
    ),
    "container.pod_volumes[0].projected.sources[1].secret.items[0]: the path is duplicate": other(
        projected(ONE_KEY, ONE_KEY)
    ),
    "container.pod_volumes[0].projected.sources[0].service_account_token.path: must not begin with": other(
        projected(pb.ProjectedSource(service_account_token=pb.ServiceAccountToken(path="..token")))
    ),
    "container.pod_volumes[0].projected.sources[0].service_account_token.expiration_seconds: must be at": other(
        projected(
            pb.ProjectedSource(
                service_account_token=pb.ServiceAccountToken(path="token", expiration_seconds=599)
            )
        )
    ),
    "container.pod_volumes[0].downward_api.items[0].source_name: must be a program of the pod: none": other(
        fields(pb.DownwardFile(path="cpu", value_from=AMOUNT, source_key="limits.cpu"))
    ),
    "container.pod_volumes[0].downward_api.items[0].source_key: must be one of metadata.annotations,": other(
        fields(pb.DownwardFile(path="ip", value_from=FIELD, source_key="status.podIP"))
    ),
    "container.pod_volumes[0].downward_api.items[0].value_from: must be one of FIELD_REF": other(
        fields(pb.DownwardFile(path="a", value_from=pb.ENV_VALUE_FROM_SECRET, source_key="a"))
    ),
    'container.pod_volumes[0].existing_claim.claim_name: "data" is volume "data" of the namespace': other(
        pb.PodVolume(name="a", existing_claim=pb.ExistingClaim(claim_name="data")),
        volume_mounts=[pb.VolumeMount(volume="a", mount_path="/a")],
    ),
}


async def test_a_volume_that_breaks_a_rule_is_refused(server: Server) -> None:
    await with_keys(server)
    await server.admin.storage.create_volume(
        namespace=server.namespace, volume=storage_pb2.Volume(name="data", type=CLAIM, size="1Gi")
    )
    for words, container in REFUSED.items():
        with pytest.raises(PilothouseError) as refused:
            await server.admin.containers.create(namespace=server.namespace, container=container)
        assert refused.value.message.startswith(words)


async def test_an_optional_source_may_be_missing(server: Server) -> None:
    await with_keys(server)
    made = await server.admin.containers.create(namespace=server.namespace, container=other(WHOLE))
    assert list(made.pod_volumes) == [WHOLE]


CLAIMS = "/api/v1/namespaces/{}/persistentvolumeclaims"
MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: database, labels: {app: database}}
spec:
  selector: {matchLabels: {app: database}}
  template:
    metadata: {labels: {app: database}}
    spec:
      containers:
      - name: database
        image: postgres:17
        volumeMounts:
        - {name: storage, mountPath: /data}
        - {name: mine, mountPath: /mine}
      volumes:
      - {name: storage, persistentVolumeClaim: {claimName: restored, readOnly: true}}
      - {name: mine, persistentVolumeClaim: {claimName: data, readOnly: true}}
"""


async def test_a_claim_that_only_the_cluster_has_is_mounted_and_never_deleted(
    server: Server, tmp_path: Path
) -> None:
    await with_keys(server)
    kubectl, shell = Kubectl(server), await logged_in(server, tmp_path)
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await kubectl.ask(
        "POST", CLAIMS.format(server.namespace), {"metadata": {"name": "restored"}, "spec": spec}
    )
    await server.admin.storage.create_volume(
        namespace=server.namespace, volume=storage_pb2.Volume(name="data", type=CLAIM, size="1Gi")
    )
    file = tmp_path / "database.yaml"
    file.write_text(MANIFEST)
    applied = await shell.run("apply", "-f", str(file), "--namespace", server.namespace, "--wait")
    assert applied.code == 0, applied.errors
    assert "claim 'restored' is not a volume of the namespace" in applied.errors
    assert "'data'" not in applied.errors
    made = await server.admin.containers.get(namespace=server.namespace, name="database")
    claim = pb.ExistingClaim(claim_name="restored", read_only=True)
    assert list(made.pod_volumes) == [pb.PodVolume(name="restored", existing_claim=claim)]
    # An existing claim is read-only as a whole; a volume of the platform is read-only by its mounts.
    assert [(each.volume, each.read_only) for each in made.volume_mounts] == [
        ("restored", False),
        ("data", True),
    ]
    again = await shell.run("apply", "-f", str(file), "--namespace", server.namespace)
    assert "container/database unchanged" in again.output
    await server.admin.containers.delete(namespace=server.namespace, name="database")

    async def gone() -> bool:
        return [each.name async for each in server.admin.containers.list(namespace=server.namespace)] == [
            "web"
        ]

    await poll_until(gone)
    claims = (await kubectl.ask("GET", CLAIMS.format(server.namespace)))["items"]
    assert "restored" in [each["metadata"]["name"] for each in claims]


async def test_a_claim_of_the_cluster_needs_the_permission_to_import_it(server: Server) -> None:
    await with_keys(server)
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="runner", permissions=["container.*", "storage.attach"])
    )
    runner = await server.user("rob", {server.namespace: "runner"})
    volume = pb.PodVolume(name="a", existing_claim=pb.ExistingClaim(claim_name="restored"))
    with pytest.raises(PilothouseError, match=r"storage\.create") as refused:
        await runner.containers.create(namespace=server.namespace, container=other(volume))
    assert refused.value.metadata["field"] == "container.pod_volumes[0].existing_claim"


async def test_a_volume_is_not_deleted_while_a_container_names_its_claim(server: Server) -> None:
    await with_keys(server)
    volume = pb.PodVolume(name="a", existing_claim=pb.ExistingClaim(claim_name="data"))
    await server.admin.containers.create(namespace=server.namespace, container=other(volume))
    storage = server.admin.storage
    await storage.create_volume(
        namespace=server.namespace, volume=storage_pb2.Volume(name="data", type=CLAIM, size="1Gi")
    )
    with pytest.raises(PilothouseError, match="existing claim of other") as refused:
        await storage.delete_volume(namespace=server.namespace, name="data")
    assert refused.value.reason == "VOLUME_IN_USE"
    # An unchanged reference to the claim is accepted when other fields change.
    for changed in (pb.Container(replicas=0, pod_volumes=[volume]), pb.Container()):
        await server.admin.containers.update(
            namespace=server.namespace,
            name="other",
            container=changed,
            update_mask=FieldMask(paths=["replicas", "pod_volumes"]),
        )
    await storage.delete_volume(namespace=server.namespace, name="data")
