"""A container that an administrator made privileged lends its privileges to nobody who works in its namespace.

A user who runs a program in it, or writes the config that it reads, decides which program runs with those privileges.
"""

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
from pilothouse_server.containers import guarding
from pilothouse_simulator.admission.pod_security import ENFORCE
from tests.harness import Server
from tests.main_job.executing import make_web, run
from tests.waiting import poll_until, within

FROM_MAP = pb.EnvVar(
    name="ARGS", value_from=pb.ENV_VALUE_FROM_CONFIG_MAP, source_name="settings", source_key="args"
)
FROM_SECRET = pb.EnvVar(
    name="MORE", value_from=pb.ENV_VALUE_FROM_SECRET, source_name="settings", source_key="args", optional=True
)
LATER = [
    pb.EnvVar(name=f"LATER_{kind}", value_from=kind, source_name="later", source_key="args", optional=True)
    for kind in (pb.ENV_VALUE_FROM_CONFIG_MAP, pb.ENV_VALUE_FROM_SECRET)
]
SHELL = ["sleep", "3600"]
# The fields of each privilege, and the permission that it needs.
POWERS: dict[str, tuple[dict[str, Any], str]] = {
    "privileged": ({"security_context": pb.SecurityContext(privileged=True)}, "container.privileged"),
    "annotated": ({"annotations": {"k8s.v1.cni.cncf.io/networks": "storage"}}, "container.privileged"),
    "mounting": ({"volume_mounts": [pb.VolumeMount(volume="node", mount_path="/node")]}, "storage.host_path"),
}


@pytest_asyncio.fixture
async def operator(server: Server) -> AsyncClient:
    """Returns an operator of the one namespace, in which containers of an administrator run and read config."""
    await make_web(server)
    await server.admin.namespaces.update(
        name="demo",
        namespace=namespace_pb2.Namespace(labels={ENFORCE: "privileged"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    config = server.admin.config
    await config.create_config_map(
        namespace="demo", config_map=config_pb2.ConfigMap(name="settings", data={"args": "fine"})
    )
    await config.create_secret(
        namespace="demo", secret=config_pb2.Secret(name="settings", data={"args": b"fine"})
    )
    await server.admin.storage.create_volume(
        namespace="demo",
        volume=storage_pb2.Volume(name="node", type=storage_pb2.VOLUME_TYPE_HOST_PATH, host_path="/srv"),
    )
    return await server.user("olga", {"demo": "operator"})


async def powerful(server: Server, **fields: Any) -> None:
    made = pb.Container(
        name="agent", image="busybox:1.37", command=SHELL, env=[FROM_MAP, FROM_SECRET, *LATER], **fields
    )
    await server.admin.containers.create(namespace="demo", container=made)

    async def runs() -> bool:
        found = await server.admin.containers.get(namespace="demo", name="agent")
        return found.status == pb.CONTAINER_STATUS_RUNNING

    await poll_until(runs)


async def give(server: Server, operator: AsyncClient, permission: str) -> str:
    """Grants the operator a role with one permission over all namespaces; returns its name."""
    role = permission.replace(".", "-").replace("_", "-")
    await server.admin.identity.create_role(role=identity_pb2.Role(name=role, permissions=[permission]))
    await server.admin.identity.grant_role(username="olga", role=role)

    async def may() -> bool:
        return await operator.identity.check_permission(permission=permission, namespace="demo")

    await poll_until(may)
    return role


def program(name: str) -> list[pb.ExecRequest]:
    return [pb.ExecRequest(start=pb.ExecStart(namespace="demo", name=name, command=["echo", "here"]))]


def writes(client: Any, config_map: str = "settings") -> dict[str, Any]:
    """Returns every way to change the config, each as the function that makes the call."""
    mask = FieldMask(paths=["data"])
    config = client.config
    return {
        "config map that is done without": lambda: config.create_config_map(
            namespace="demo", config_map=config_pb2.ConfigMap(name="later", data={"args": "evil"})
        ),
        "secret that is done without": lambda: config.create_secret(
            namespace="demo", secret=config_pb2.Secret(name="later", data={"args": b"evil"})
        ),
        "config map": lambda: config.update_config_map(
            namespace="demo",
            name=config_map,
            config_map=config_pb2.ConfigMap(data={"args": "evil"}),
            update_mask=mask,
        ),
        "key of it": lambda: config.update_config_map(
            namespace="demo", name=config_map, set_data={"args": "evil"}
        ),
        "key taken away": lambda: config.update_config_map(
            namespace="demo", name=config_map, remove_keys=["args"], validate_only=True
        ),
        "secret": lambda: config.update_secret(
            namespace="demo",
            name="settings",
            secret=config_pb2.Secret(data={"args": b"evil"}),
            update_mask=mask,
        ),
        "key of that": lambda: config.update_secret(
            namespace="demo", name="settings", set_data={"args": b"evil"}
        ),
    }


def takes_away(client: Any, power: str) -> Any:
    """Returns a call after which old pods keep the privilege and the container no longer has it."""
    if power == "mounting":
        return client.storage.detach_volume(namespace="demo", name="node", container="agent")
    mask = "pod_annotations" if power == "annotated" else "security_context"
    return client.containers.update(
        namespace="demo", name="agent", container=pb.Container(), update_mask=FieldMask(paths=[mask])
    )


async def refused(made: Any, permission: str, what: str) -> PilothouseError:
    with pytest.raises(PilothouseError) as told:
        await made
    assert told.value.code.name == "PERMISSION_DENIED", what
    assert told.value.metadata["permission"] == permission, what
    assert "from a grant over all namespaces" in told.value.message, what
    return told.value


@pytest.mark.parametrize(
    "power",
    [
        "privileged",
        pytest.param("annotated", marks=pytest.mark.full),
        pytest.param("mounting", marks=pytest.mark.full),
    ],
)
async def test_users_of_a_namespace_cannot_use_a_privileged_container_in_it(
    server: Server, operator: AsyncClient, power: str
) -> None:
    fields, permission = POWERS[power]
    await powerful(server, **fields)
    # Permission to give another privilege does not allow the use of this one.
    (another,) = {permission for _, permission in POWERS.values()} - {permission}
    await give(server, operator, another)
    await refused(run(operator, program("agent")), permission, "exec")
    for what, write in writes(operator).items():
        told = await refused(write(), permission, what)
        assert told.metadata["container"] == "agent", what
    # The operator cannot remove the privilege either: old pods would keep it for as long as the rollout is held.
    await operator.containers.pause(namespace="demo", name="agent", mode=pb.PAUSE_MODE_HOLD_ROLLOUT)
    await refused(takes_away(operator, power), permission, "take away")
    # The operator may run programs in other containers, write other config, and set the labels of all config.
    assert (await run(operator, program("web")))[0] == b"here\n"
    await operator.config.create_config_map(
        namespace="demo", config_map=config_pb2.ConfigMap(name="own", data={"args": "fine"})
    )
    for what in ("config map", "key of it"):
        await writes(operator, "own")[what]()
    await operator.config.update_config_map(
        namespace="demo",
        name="settings",
        config_map=config_pb2.ConfigMap(labels={"team": "a"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    # A user who may give the privilege may use it.
    assert (await run(server.admin, program("agent")))[0] == b"here\n"
    await writes(server.admin)["config map"]()
    await give(server, operator, permission)
    assert (await run(operator, program("agent")))[0] == b"here\n"
    await writes(operator)["secret"]()


def shown(name: str) -> storage_pb2.Volume:
    """Returns a volume that shows the config map of the same name."""
    return storage_pb2.Volume(name=name, type=storage_pb2.VOLUME_TYPE_CONFIG_MAP, source_name=name)


async def test_a_container_being_deleted_keeps_its_privilege(server: Server, operator: AsyncClient) -> None:
    """Its pods have a grace period, in which they still read the config."""
    await operator.storage.create_volume(namespace="demo", volume=shown("settings"))
    privileged = pb.SecurityContext(privileged=True)
    await powerful(server, security_context=privileged)
    mounting = pb.Container(
        name="mounting",
        image="busybox:1.37",
        security_context=privileged,
        volume_mounts=[pb.VolumeMount(volume="settings", mount_path="/settings")],
    )
    await server.admin.containers.create(namespace="demo", container=mounting)
    assert server.cluster is not None
    # Without the cluster, the container stays for now.
    await server.cluster.stop()
    await operator.containers.delete(namespace="demo", name="mounting")
    # Without the volume, the container would not count as a reader of the config map.
    gone = operator.storage.delete_volume(namespace="demo", name="settings")
    told = await refused(gone, "container.privileged", "volume")
    assert told.metadata["container"] == "mounting"
    await server.admin.storage.delete_volume(namespace="demo", name="settings")
    await operator.containers.delete(namespace="demo", name="agent")
    write = writes(operator)["key of it"]
    told = await refused(write(), "container.privileged", "config map")
    assert told.metadata["container"] == "agent"


@pytest.mark.full
async def test_config_of_a_privileged_container_cannot_be_detached(
    server: Server, operator: AsyncClient
) -> None:
    """Old pods would still read it, but no container would count as its reader, so anyone could write it."""
    await operator.storage.create_volume(namespace="demo", volume=shown("settings"))
    mounts = [pb.VolumeMount(volume="settings", mount_path="/settings")]
    await powerful(server, security_context=pb.SecurityContext(privileged=True), volume_mounts=mounts)
    await operator.containers.pause(namespace="demo", name="agent", mode=pb.PAUSE_MODE_HOLD_ROLLOUT)
    detached = operator.storage.detach_volume(namespace="demo", name="settings", container="agent")
    told = await refused(detached, "container.privileged", "detach")
    assert told.metadata["container"] == "agent"
    # The operator may detach it from other containers, and an administrator from this one.
    await operator.storage.attach_volume(
        namespace="demo", name="settings", container="web", mount_path="/settings"
    )
    await operator.storage.detach_volume(namespace="demo", name="settings", container="web")
    await server.admin.storage.detach_volume(namespace="demo", name="settings", container="agent")
    await operator.storage.delete_volume(namespace="demo", name="settings")


@pytest.mark.full
async def test_a_program_ends_when_the_right_to_its_privilege_is_revoked(
    server: Server, operator: AsyncClient
) -> None:
    await powerful(server, **POWERS["privileged"][0])
    role = await give(server, operator, "container.privileged")
    start = pb.ExecStart(namespace="demo", name="agent", command=["sleep", "3600"])
    async with operator.containers.exec([pb.ExecRequest(start=start)]) as answers:
        assert (await anext(aiter(answers))).HasField("started")
        await server.admin.identity.revoke_role(username="olga", role=role)
        async with within(20.0):
            with pytest.raises(PilothouseError) as ended:
                await anext(aiter(answers))
    assert ended.value.code.name == "PERMISSION_DENIED"
    assert ended.value.metadata["permission"] == "container.privileged"


@pytest.mark.full
async def test_without_the_rule_users_of_the_namespace_could_use_it(
    server: Server, operator: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control."""
    monkeypatch.setattr(guarding, "refuse_power", lambda _container, _guarded, _may: None)
    await powerful(server, **POWERS["privileged"][0])
    assert (await run(operator, program("agent")))[0] == b"here\n"
    for write in writes(operator).values():
        await write()
