"""Variables of whole config maps and secrets, and of resource fields: shown, used, protected from deletion, refused."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client import PilothouseError
from tests.harness import Server
from tests.main_job.executing import make_web, run, start
from tests.waiting import poll_until

SETTINGS = pb.EnvFrom(value_from=pb.ENV_VALUE_FROM_CONFIG_MAP, source_name="settings", prefix="APP_")
KEYS = pb.EnvFrom(value_from=pb.ENV_VALUE_FROM_SECRET, source_name="keys")
MEMORY = pb.EnvVar(
    name="MEMORY",
    value_from=pb.ENV_VALUE_FROM_RESOURCE_FIELD_REF,
    source_key="limits.memory",
    divisor="1Mi",
)


async def test_a_program_gets_variables_of_whole_sources_and_resource_fields(server: Server) -> None:
    await make_web(server)
    containers, config = server.admin.containers, server.admin.config
    await config.create_config_map(
        namespace="demo", config_map=config_pb2.ConfigMap(name="settings", data={"MODE": "fast"})
    )
    await config.create_secret(
        namespace="demo", secret=config_pb2.Secret(name="keys", data={"TOKEN": b"hunter2"})
    )
    amounts = pb.Resources(cpu_request="100m", limits={"memory": "64Mi", "ephemeral-storage": "1.5Gi"})
    wanted = pb.Container(env_from=[SETTINGS, KEYS], env=[MEMORY], resources=amounts)
    changed = await containers.update(
        namespace="demo",
        name="web",
        container=wanted,
        update_mask=FieldMask(paths=["env_from", "env", "resources"]),
    )
    assert list(changed.env_from) == [SETTINGS, KEYS]
    assert list(changed.env) == [MEMORY]
    expected = pb.Resources(cpu_request="100m", limits={"memory": "64Mi", "ephemeral-storage": "1536Mi"})
    assert changed.resources == expected

    async def rolled() -> bool:
        found = await containers.get(namespace="demo", name="web")
        conditions = {each.type: each.status for each in found.conditions}
        return found.observed_generation == found.generation and conditions.get("RolledOut") == 1

    await poll_until(rolled)
    output, _, _ = await run(server.admin, [start("env")])
    variables = dict(line.partition("=")[::2] for line in output.decode().splitlines())
    assert {"APP_MODE": "fast", "TOKEN": "hunter2", "MEMORY": "64"}.items() <= variables.items()

    with pytest.raises(PilothouseError, match="web") as refused:
        await config.delete_secret(namespace="demo", name="keys")
    assert refused.value.code.name == "FAILED_PRECONDITION"


async def test_a_missing_source_is_named(server: Server) -> None:
    await make_web(server)
    with pytest.raises(PilothouseError) as refused:
        await server.admin.containers.create(
            namespace="demo", container=pb.Container(name="other", image="nginx:1.27", env_from=[KEYS])
        )
    assert refused.value.message.startswith(
        'container.env_from[0].source_name: there is no secret "keys" in the namespace'
    )
    optional = pb.EnvFrom(value_from=KEYS.value_from, source_name="keys", optional=True)
    await server.admin.containers.create(
        namespace="demo", container=pb.Container(name="other", image="nginx:1.27", env_from=[optional])
    )
