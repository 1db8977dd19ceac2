"""`describe` against a server: each noun, with its events, its revisions and the calls that changed it."""

from __future__ import annotations

from pathlib import Path

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import poll_until


async def test_describe_shows_changes_of_a_container_and_no_value_of_a_secret(
    shared_server: Server, tmp_path: Path
) -> None:
    admin, namespace = shared_server.admin, "described"
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    await admin.config.create_secret(
        namespace=namespace, secret=config_pb2.Secret(name="db", string_data={"password": "hunter22"})
    )
    await admin.storage.create_volume(
        namespace=namespace,
        volume=storage_pb2.Volume(
            name="data", size="1Gi", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM
        ),
    )
    await admin.containers.create(
        namespace=namespace,
        container=pb.Container(name="web", image="nginx:1.27", ports=[pb.Port(container_port=80)]),
    )
    update = pb.UpdateContainerRequest(
        namespace=namespace, name="web", container=pb.Container(image="nginx:1.28")
    )
    update.update_mask.paths.append("image")
    await admin.containers.update.send(update)

    async def get() -> pb.Container:
        return await admin.containers.get(namespace=namespace, name="web")

    await poll_until(get, lambda seen: seen.ready_replicas == 1 and not seen.reconciling)
    shell = await logged_in(shared_server, tmp_path)

    async def page(*words: str) -> str:
        return await shell.succeed("describe", *words, "-n", namespace)

    shown = await page("container", "web")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "Name: web",
        "Image: nginx:1.28",
        "image nginx:1.27 -> nginx:1.28",
        "NAME READY STATUS RESTARTS AGE NODE",
    ):
        assert line in lines, (line, shown)
    assert any(" admin update " in line for line in lines)
    assert any("ScalingReplicaSet Deployment/web" in line for line in lines)
    again = await shell.succeed("containers", "describe", "web", "-n", namespace)
    assert again.splitlines()[:4] == shown.splitlines()[:4]
    secret = await page("secrets", "db")
    assert "password: 8 bytes" in secret
    assert "hunter22" not in secret
    for words in (("svc", "web"), ("volume", "data"), ("namespace", namespace), ("cluster", "local")):
        assert words[1] in await page(*words), words
    refused = await shell.run("describe", "frob", "web", "-n", namespace)
    assert (
        refused.code,
        refused.errors.startswith("error: there is no noun 'frob': give one of containers, "),
    ) == (
        2,
        True,
    )
    assert (await shell.run("describe", "container", "missing", "-n", namespace)).code == 6
