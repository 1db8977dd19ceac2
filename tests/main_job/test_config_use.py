"""A caller who gives a container a secret needs `config.use`; literal values are masked only in audit records."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import AsyncClient, PilothouseError
from tests.harness import Server
from tests.waiting import poll_until

SECRET = pb.EnvVar(name="PW", value_from=pb.ENV_VALUE_FROM_SECRET, source_name="db", source_key="password")
SETTING = pb.EnvVar(
    name="MODE", value_from=pb.ENV_VALUE_FROM_CONFIG_MAP, source_name="settings", source_key="mode"
)
WHOLE = pb.EnvFrom(value_from=pb.ENV_VALUE_FROM_SECRET, source_name="db")
CANARY = "CANARY-51d0"


def web(name: str = "web", **fields: Any) -> pb.Container:
    return pb.Container(**{"name": name, "image": "nginx:1.27", **fields})


@pytest_asyncio.fixture
async def runner(server: Server) -> AsyncClient:
    """Returns a user who may run containers and mount volumes, but may not use config."""
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    config = server.admin.config
    await config.create_secret(
        namespace="demo", secret=config_pb2.Secret(name="db", data={"password": b"hunter2"})
    )
    await config.create_secret(
        namespace="demo",
        secret=config_pb2.Secret(
            name="registry", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": b"{}"}
        ),
    )
    await config.create_config_map(
        namespace="demo", config_map=config_pb2.ConfigMap(name="settings", data={"mode": "fast"})
    )
    for name, type_ in (
        ("db", storage_pb2.VOLUME_TYPE_SECRET),
        ("settings", storage_pb2.VOLUME_TYPE_CONFIG_MAP),
    ):
        await server.admin.storage.create_volume(
            namespace="demo",
            volume=storage_pb2.Volume(name=name, type=type_, source_name=name, mount_path=f"/{name}"),
        )
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="runner", permissions=["container.*", "storage.*", "config.list"])
    )
    return await server.user("rob", {"demo": "runner"})


async def refused(made: Any, field: str) -> None:
    with pytest.raises(PilothouseError) as told:
        await made
    assert told.value.code.name == "PERMISSION_DENIED"
    assert told.value.metadata == {
        "permission": "config.use",
        "namespace": "demo",
        "field": field,
        "why": "NO_GRANT",
    }
    assert field in told.value.message


GIVEN: dict[str, dict[str, Any]] = {
    "container.env[0].source_name": {"env": [SECRET]},
    "container.env[1].source_name": {"env": [pb.EnvVar(name="A", value="b"), SETTING]},
    "container.volume_mounts[0].volume": {"volume_mounts": [pb.VolumeMount(volume="db", mount_path="/db")]},
    "container.init_containers[0].env[0].source_name": {
        "init_containers": [pb.InitContainer(name="init", image="busybox:1", env=[SECRET])]
    },
    "container.init_containers[0].volume_mounts[0].volume": {
        "init_containers": [
            pb.InitContainer(
                name="init",
                image="busybox:1",
                volume_mounts=[pb.VolumeMount(volume="settings", mount_path="/s")],
            )
        ]
    },
    "container.sidecars[0].env[0].source_name": {
        "sidecars": [pb.Program(name="side", image="busybox:1", env=[SECRET])]
    },
    "container.sidecars[1].volume_mounts[0].volume": {
        "sidecars": [
            pb.Program(name="one", image="busybox:1"),
            pb.Program(
                name="two",
                image="busybox:1",
                volume_mounts=[pb.VolumeMount(volume="settings", mount_path="/s")],
            ),
        ]
    },
    "container.pod_volumes[0].projected.sources[1].secret.source_name": {
        "pod_volumes": [
            pb.PodVolume(
                name="all",
                projected=pb.ProjectedFiles(
                    sources=[
                        pb.ProjectedSource(config_map=pb.ProjectedKeys(source_name="kube-root-ca.crt")),
                        pb.ProjectedSource(secret=pb.ProjectedKeys(source_name="db")),
                    ]
                ),
            )
        ]
    },
    "container.image_pull_secrets[0]": {"image_pull_secrets": ["registry"]},
    "container.env_from[0].source_name": {"env_from": [WHOLE]},
    "container.init_containers[0].env_from[0].source_name": {
        "init_containers": [pb.InitContainer(name="init", image="busybox:1", env_from=[WHOLE])]
    },
}


@pytest.mark.full
async def test_only_a_caller_with_config_use_may_give_a_container_a_secret(
    server: Server, runner: AsyncClient
) -> None:
    developer = await server.user("dora", {"demo": "developer"})
    for number, (field, fields) in enumerate(GIVEN.items()):
        await refused(runner.containers.create(namespace="demo", container=web(**fields)), field)
        await developer.containers.create(namespace="demo", container=web(f"web-{number}", **fields))
    await runner.containers.create(namespace="demo", container=web("plain"))
    mask = FieldMask(paths=["env"])
    await refused(
        runner.containers.update(
            namespace="demo", name="plain", container=pb.Container(env=[SECRET]), update_mask=mask
        ),
        "container.env[0].source_name",
    )

    def attach() -> Any:
        return runner.storage.attach_volume(namespace="demo", name="db", container="plain")

    await refused(attach(), "container.volume_mounts[0].volume")
    # A container with the secret may be scaled; its program may not be replaced, because another one could read it.
    scaled = await runner.containers.update(
        namespace="demo",
        name="web-0",
        container=pb.Container(replicas=2),
        update_mask=FieldMask(paths=["replicas"]),
    )
    assert scaled.replicas == 2
    await refused(
        runner.containers.update(
            namespace="demo",
            name="web-0",
            container=pb.Container(args=["env"]),
            update_mask=FieldMask(paths=["args"]),
        ),
        "container.env[0].source_name",
    )
    await runner.storage.detach_volume(namespace="demo", name="db", container="web-2")
    # The control: with the permission in this namespace the call succeeds.
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="user-of-config", permissions=["config.use"])
    )
    await server.admin.identity.grant_role(username="rob", role="user-of-config", namespace="demo")

    async def attached() -> bool:
        try:
            await attach()
        except PilothouseError as error:
            return error.code.name != "PERMISSION_DENIED"
        return True

    await poll_until(attached)
    for role, may in (("operator", True), ("developer", True), ("viewer", False)):
        client = await server.user(f"some-{role}", {"demo": role})
        assert await client.identity.check_permission(permission="config.use", namespace="demo") is may


async def test_nothing_about_a_secret_is_revealed_before_the_permission_check(
    server: Server, runner: AsyncClient
) -> None:
    """Neither its type nor whether it exists."""
    given: list[tuple[str, dict[str, Any]]] = [
        ("container.image_pull_secrets[0]", {"image_pull_secrets": [name]}) for name in ("db", "none")
    ]
    for kind in (pb.ENV_VALUE_FROM_SECRET, pb.ENV_VALUE_FROM_CONFIG_MAP):
        missing = pb.EnvVar(name="A", value_from=kind, source_name="none", source_key="a")
        given.append(("container.env[0].source_name", {"env": [missing]}))
    await runner.containers.create(namespace="demo", container=web("plain"))
    for field, fields in given:
        await refused(runner.containers.create(namespace="demo", container=web(**fields)), field)
        change = runner.containers.update(
            namespace="demo",
            name="plain",
            container=pb.Container(**fields),
            update_mask=FieldMask(paths=[*fields]),
        )
        await refused(change, field)
    # The control: a caller with the permission gets the detail.
    with pytest.raises(PilothouseError, match="is of type Opaque"):
        await server.admin.containers.create(namespace="demo", container=web(image_pull_secrets=["db"]))


async def test_credentials_are_masked_in_records_and_nowhere_else(server: Server) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    wanted = web(
        env=[pb.EnvVar(name="DB_PASSWORD", value=CANARY), pb.EnvVar(name="MODE", value="fast")],
        args=["serve", "--token", CANARY, f"--api-key={CANARY}", "--verbose"],
        init_containers=[
            pb.InitContainer(
                name="init",
                image="busybox:1",
                command=["sh", "-c", f"PGPASSWORD={CANARY} psql"],
                env=[pb.EnvVar(name="apiToken", value=CANARY)],
            )
        ],
    )
    made = await server.admin.containers.create(namespace="demo", container=wanted)
    assert (made.env[0].value, list(made.args)) == (CANARY, list(wanted.args))
    # Reads return the true value, so that writing it back changes nothing.
    read = await server.admin.containers.get(namespace="demo", name="web")
    assert [variable.value for variable in read.env] == [CANARY, "fast"]
    assert (list(read.args), list(read.init_containers[0].command)) == (
        list(wanted.args),
        list(wanted.init_containers[0].command),
    )
    async with server.admin.containers.watch(namespace="demo") as changes:
        async for change in changes:
            assert change.resource.env[0].value == CANARY
            break

    async def recorded() -> list[Any]:
        listed = server.admin.audit.list_operations(filter='resource_name = "web" AND action = "create"')
        return [operation async for operation in listed]

    (operation,) = await poll_until(recorded) or [None]
    text = str(operation)
    assert CANARY not in text
    for shown in (
        "DB_PASSWORD",
        "[redacted]",
        "fast",
        "--verbose",
        "--api-key=[redacted]",
        "PGPASSWORD=[redacted] psql",
    ):
        assert shown in text, shown
