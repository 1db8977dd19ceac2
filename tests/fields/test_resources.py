"""Every field of the other resources survives create, get and update, and, for those on a cluster, an import."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from pilothouse.audit.v1 import audit_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import api_keys_pb2, identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from tests.fields.exceptions import EXCEPTIONS
from tests.fields.generated import Leaf, Needs, filled, found, has, leaves
from tests.harness import PASSWORD, Server
from tests.main_job.legacy import DEPLOYMENTS, Kubectl, deployment, legacy
from tests.services import METHODS
from tests.waiting import poll_until

OURS = "pilothouse.dev/"
Call = Callable[[Server, Any], Awaitable[Any]]
Update = Callable[[Server, Any, FieldMask], Awaitable[Any]]


@dataclass(frozen=True)
class Resource:
    """How to create, get and update a resource. `base` has its required fields; `key` is the field with its name.

    `path` is its path on the cluster. `pod` returns a pod whose import includes the resource; None if it is imported by
    itself.
    """

    kind: type[Message]
    create: Call
    get: Call
    update: Update
    base: dict[str, Any] = field(default_factory=dict)
    needs: tuple[Needs, ...] = ()
    key: str = "name"
    path: str = ""
    pod: Callable[[str], dict[str, Any]] | None = None


_EXTERNAL = {"type": "SERVICE_TYPE_EXTERNAL_NAME", "external_name": "alpha.one"}
_BALANCED = {"type": "SERVICE_TYPE_LOAD_BALANCER"}
_SERVICE_NEEDS = (
    Needs("type", values=("SERVICE_TYPE_NODE_PORT", "SERVICE_TYPE_LOAD_BALANCER")),
    Needs("containers", without=("selector",)),
    Needs("ports.target", values=("alpha", "70")),
    Needs("ports.node_port", top={"type": "SERVICE_TYPE_NODE_PORT"}, values=(30100, 30200)),
    Needs("session_affinity_timeout_seconds", beside={"session_affinity": "SESSION_AFFINITY_CLIENT_IP"}),
    Needs("external_traffic_policy", beside={"type": "SERVICE_TYPE_NODE_PORT"}),
    Needs("traffic_distribution", values=("PreferClose", "PreferSameZone")),
    Needs("ip_families", values=(["IP_FAMILY_IPV4"], ["IP_FAMILY_IPV4"])),
    Needs("ip_family_policy", values=("IP_FAMILY_POLICY_PREFER_DUAL_STACK", "IP_FAMILY_POLICY_SINGLE_STACK")),
    Needs("load_balancer_source_ranges", beside=_BALANCED, values=(["10.1.0.0/16"], ["10.2.0.0/16"])),
    Needs("allocate_load_balancer_node_ports", beside=_BALANCED, values=(False, True)),
    Needs("load_balancer_class", beside=_BALANCED, values=("example.org/a", "example.org/a")),
    Needs("load_balancer_ip", beside=_BALANCED, values=("192.0.2.1", "192.0.2.2")),
    Needs("cluster_ip", values=("10.96.7.1", "10.96.7.1")),
    Needs("external_ips", values=(["192.0.2.3"], ["192.0.2.4"])),
    Needs("external_name", beside=_EXTERNAL, without=("selector", "ports")),
)


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server, with namespaces of the test's own."""
    return shared_server.for_one_test()


def volume_pod(name: str) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}


def reading(kind: str) -> Callable[[str], dict[str, Any]]:
    return lambda name: {
        "env": [{"name": "A", "valueFrom": {kind: {"name": name, "key": "alpha", "optional": True}}}]
    }


async def secret_with_values(server: Server, name: str, namespace: str = "") -> config_pb2.Secret:
    """Returns a secret with its values, which only RevealSecret returns."""
    namespace = namespace or server.namespace
    shown = await server.admin.config.get_secret(namespace=namespace, name=name)
    revealed = await server.admin.config.reveal_secret(namespace=namespace, name=name)
    shown.data.update(revealed.data)
    return shown


def _config_update(noun: str) -> Update:
    async def update(server: Server, message: Any, mask: FieldMask) -> Any:
        call = getattr(server.admin.config, f"update_{noun}")
        values = {noun: message}
        answer = await call(namespace=server.namespace, name=message.name, update_mask=mask, **values)
        changed = getattr(answer, noun)
        return await secret_with_values(server, changed.name) if noun == "secret" else changed

    return update


async def _create_secret(server: Server, message: Any) -> Any:
    await server.admin.config.create_secret(namespace=server.namespace, secret=message)
    return await secret_with_values(server, message.name)


async def _register(server: Server, message: Any) -> Any:
    assert server.cluster is not None
    text = json.dumps(server.cluster.kubeconfig())
    credentials = namespace_pb2.ClusterCredentials(kubeconfig=namespace_pb2.Kubeconfig(text=text))
    answer = await server.admin.namespaces.register_cluster(cluster=message, credentials=credentials)
    return answer.cluster


async def _update_cluster(server: Server, message: Any, mask: FieldMask) -> Any:
    answer = await server.admin.namespaces.update_cluster(
        name=message.name, cluster=message, update_mask=mask
    )
    return answer.cluster


RESOURCES = (
    Resource(
        storage_pb2.Volume,
        lambda server, message: server.admin.storage.create_volume(
            namespace=server.namespace, volume=message
        ),
        lambda server, name: server.admin.storage.get_volume(namespace=server.namespace, name=name),
        lambda server, message, mask: server.admin.storage.update_volume(
            namespace=server.namespace, name=message.name, volume=message, update_mask=mask
        ),
        base={"type": "VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM", "size": "1"},
        needs=(
            Needs(
                "type", values=("VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM", "VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM")
            ),
            Needs("host_path", beside={"type": "VOLUME_TYPE_HOST_PATH", "size": ""}),
            Needs("source_name", beside={"type": "VOLUME_TYPE_CONFIG_MAP", "size": ""}),
            Needs(
                "optional",
                beside={"type": "VOLUME_TYPE_CONFIG_MAP", "size": "", "source_name": "missing"},
                values=(True, True),
            ),
            Needs(
                "external",
                beside={"type": "VOLUME_TYPE_CONFIG_MAP", "size": "", "source_name": "missing"},
                values=(True, True),
            ),
            Needs("medium", beside={"type": "VOLUME_TYPE_EMPTY_DIR"}, values=("Memory", "Memory")),
            Needs(
                "access_modes", values=(["ReadWriteOnce", "ReadOnlyMany"], ["ReadWriteOnce", "ReadOnlyMany"])
            ),
            Needs("volume_mode", values=("Block", "Block")),
        ),
        path="/api/v1/namespaces/{}/persistentvolumeclaims",
        pod=volume_pod,
    ),
    Resource(
        config_pb2.ConfigMap,
        lambda server, message: server.admin.config.create_config_map(
            namespace=server.namespace, config_map=message
        ),
        lambda server, name: server.admin.config.get_config_map(namespace=server.namespace, name=name),
        _config_update("config_map"),
        path="/api/v1/namespaces/{}/configmaps",
        pod=reading("configMapKeyRef"),
    ),
    Resource(
        config_pb2.Secret,
        _create_secret,
        secret_with_values,
        _config_update("secret"),
        needs=(Needs("type", values=("example.org/alpha", "example.org/alpha")),),
        path="/api/v1/namespaces/{}/secrets",
        pod=reading("secretKeyRef"),
    ),
    Resource(
        network_pb2.Service,
        lambda server, message: server.admin.network.create_service(
            namespace=server.namespace, service=message
        ),
        lambda server, name: server.admin.network.get_service(namespace=server.namespace, name=name),
        lambda server, message, mask: server.admin.network.update_service(
            namespace=server.namespace, name=message.name, service=message, update_mask=mask
        ),
        base={"selector": {"app": "alpha"}, "ports": [{"name": "base", "port": 79}]},
        needs=_SERVICE_NEEDS,
        path="/api/v1/namespaces/{}/services",
    ),
    Resource(
        namespace_pb2.Namespace,
        lambda server, message: server.admin.namespaces.create(namespace=message),
        lambda server, name: server.admin.namespaces.get(name=name),
        lambda server, message, mask: server.admin.namespaces.update(
            name=message.name, namespace=message, update_mask=mask
        ),
        needs=(
            Needs("cluster_name", values=("local", "local")),
            Needs("status", values=("NAMESPACE_STATUS_INACTIVE", "NAMESPACE_STATUS_ACTIVE")),
        ),
    ),
    Resource(
        namespace_pb2.Cluster,
        _register,
        lambda server, name: server.admin.namespaces.get_cluster(name=name),
        _update_cluster,
        needs=(Needs("shared_gateways", values=(["infra/public"], ["infra/a", "infra/b"])),),
    ),
    Resource(
        identity_pb2.User,
        lambda server, message: server.admin.identity.create_user(user=message, password=PASSWORD),
        lambda server, name: server.admin.identity.get_user(username=name),
        lambda server, message, mask: server.admin.identity.update_user(
            username=message.username, user=message, update_mask=mask
        ),
        key="username",
        needs=(Needs("avatar_url", values=("https://example.org/a", "https://example.org/b")),),
    ),
    Resource(
        identity_pb2.Role,
        lambda server, message: server.admin.identity.create_role(role=message),
        lambda server, name: server.admin.identity.get_role(name=name),
        lambda server, message, mask: server.admin.identity.update_role(
            name=message.name, role=message, update_mask=mask
        ),
        base={"permissions": ["container.watch"]},
    ),
)
EXAMINED_ELSEWHERE = {
    container_pb2.Container.DESCRIPTOR.full_name,
    # Created, listed and deleted, but never updated: tests/audit/test_sinks.py.
    audit_pb2.AuditSink.DESCRIPTOR.full_name,
    # Its fields are in its document: tests/objects/.
    "pilothouse.object.v1.Object",
    # As for audit sinks: tests/identity/test_service_accounts.py.
    api_keys_pb2.ServiceAccount.DESCRIPTOR.full_name,
}
NO_RESOURCES = {
    audit_pb2.AuditSinkCredentials.DESCRIPTOR.full_name: "given to reach a receiver, and never shown again",
    namespace_pb2.ClusterCredentials.DESCRIPTOR.full_name: "given to reach a cluster, and never shown again",
}


def test_every_resource_is_examined() -> None:
    made = {
        part.message_type.full_name
        for method in METHODS
        if method.name.startswith(("Create", "Register"))
        for part in method.input_type.fields
        if part.message_type is not None and part.message_type.full_name.startswith("pilothouse.")
    }
    assert made == {each.kind.DESCRIPTOR.full_name for each in RESOURCES} | EXAMINED_ELSEWHERE | set(
        NO_RESOURCES
    )


def message(resource: Resource, leaf: Leaf, number: int, variant: int) -> tuple[Any, Any]:
    made: Any = ParseDict(resource.base, resource.kind())
    setattr(made, resource.key, f"r{number:02}")
    if resource.kind is identity_pb2.User:
        made.email = f"r{number:02}@example.org"
    for name in next((each.without for each in resource.needs if each.of(leaf)), ()):
        made.ClearField(name)
    value = filled(made, leaf, variant, resource.needs)
    if leaf.name == resource.key:
        value = f"r{number:02}-name"
        setattr(made, resource.key, value)
    return made, value


@pytest.mark.parametrize(
    "resource", [each for each in RESOURCES if each.path], ids=lambda each: each.kind.DESCRIPTOR.name
)
async def test_every_field_survives(server: Server, resource: Resource) -> None:
    await server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(name=server.namespace, external_sources=["*"])
    )
    if resource.kind is storage_pb2.Volume:
        await server.admin.config.create_config_map(
            namespace=server.namespace, config_map=config_pb2.ConfigMap(name="alpha", data={"alpha": "1"})
        )
    await check_survival(server, resource)


async def test_every_field_of_resources_outside_namespaces_survives(server: Server) -> None:
    for resource in RESOURCES:
        if not resource.path:
            await check_survival(server, resource)


async def check_survival(server: Server, resource: Resource) -> None:
    excepted = EXCEPTIONS[resource.kind.DESCRIPTOR.full_name]
    examined = [leaf for leaf in leaves(resource.kind.DESCRIPTOR) if leaf.name not in excepted["everywhere"]]
    lost: dict[str, str] = {}
    for number, leaf in enumerate(examined):
        asked, value = message(resource, leaf, number, 0)
        if problem := await created(server, resource, leaf, asked, value):
            lost[leaf.name] = problem
    there = await applied(server, resource, examined) if resource.path else {}
    for number, leaf in enumerate(examined):
        if not leaf.immutable and (problem := await updated(server, resource, leaf, number)):
            lost.setdefault(leaf.name, problem)
    if resource.path:
        lost = await imported(server, resource, examined, there) | lost
    expected = {name: step for step in ("import", "update") for name in excepted.get(step, {})}
    assert {name: problem.partition(":")[0] for name, problem in lost.items()} == expected, lost


async def created(server: Server, resource: Resource, leaf: Leaf, asked: Any, value: Any) -> str:
    try:
        made = await resource.create(server, asked)
        got = await resource.get(server, getattr(asked, resource.key))
    except PilothouseError as error:
        return f"create: {error}"
    if not has(made, leaf, value):
        return f"create: {found(made, leaf)}"
    return "" if has(got, leaf, value) else f"get: {found(got, leaf)}"


async def updated(server: Server, resource: Resource, leaf: Leaf, number: int) -> str:
    asked, value = message(resource, leaf, number, 1)
    try:
        changed = await resource.update(server, asked, FieldMask(paths=[leaf.masked]))
    except PilothouseError as error:
        return f"update: {error}"
    return "" if has(changed, leaf, value) else f"update: {found(changed, leaf)}"


async def applied(server: Server, resource: Resource, examined: list[Leaf]) -> dict[str, Any]:
    """Waits until the cluster has the objects. Returns them by name."""
    kubectl = await legacy(server)
    wanted = [message(resource, leaf, number, 0)[0] for number, leaf in enumerate(examined)]
    names = {each.name for each in wanted if resource.pod is None or is_object(each)}
    there: dict[str, Any] = {}

    async def all_there() -> bool:
        items = (await kubectl.ask("GET", resource.path.format(server.namespace)))["items"]
        there.update({item["metadata"]["name"]: item for item in items})
        return names <= set(there)

    await poll_until(all_there)
    return there


def is_object(asked: Any) -> bool:
    """Returns whether a volume, a config map or a secret has its own object on the cluster."""
    return getattr(asked, "type", 1) in (1, "", "example.org/alpha")


async def gone(server: Server, resource: Resource) -> None:
    """Deletes the original Services, because no copy may have their addresses and node ports."""
    kubectl = Kubectl(server)
    async for each in server.admin.network.list_services(namespace=server.namespace):
        await server.admin.network.delete_service(namespace=server.namespace, name=each.name)

    async def none_there() -> bool:
        return not (await kubectl.ask("GET", resource.path.format(server.namespace)))["items"]

    await poll_until(none_there)


async def imported(
    server: Server, resource: Resource, examined: list[Leaf], there: dict[str, Any]
) -> dict[str, str]:
    """Imports copies of the platform's objects. Returns the fields that the import loses."""
    kubectl = Kubectl(server)
    if resource.pod is None:
        await gone(server, resource)
    names = {}
    for number, leaf in enumerate(examined):
        asked, value = message(resource, leaf, number, 0)
        item = there.get(asked.name)
        if item is None:
            continue
        spec = {key: part for key, part in item.items() if key not in ("metadata", "status")}
        spec.get("spec", {}).pop("volumeName", None) if isinstance(spec.get("spec"), dict) else None
        metadata = {"name": asked.name} | {
            part: {
                key: word
                for key, word in item["metadata"].get(part, {}).items()
                if not key.startswith((OURS, "app.kubernetes.io/", "pv.kubernetes.io/", "volume."))
            }
            for part in ("labels", "annotations")
        }
        await kubectl.ask("POST", resource.path.format("legacy"), spec | {"metadata": metadata})
        if resource.pod is not None:
            await kubectl.ask("POST", DEPLOYMENTS, using(asked.name, resource.pod(asked.name)))
        names[leaf.name] = (leaf, asked.name, value)
    problems = await taken_over(server, resource, [name for _, name, _ in names.values()])
    lost = {leaf.name: "import" for leaf in examined if leaf.name not in names}
    for leaf, name, value in names.values():
        if name in problems:
            # It was not imported, so its field counts as lost.
            lost[leaf.name] = f"import: {problems[name]}"
        elif not has(await shown(server, resource, name), leaf, value):
            lost[leaf.name] = "import"
    return lost


def using(name: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Returns a Deployment whose import includes an object."""
    made = deployment(name, replicas=0)
    (main,) = made["spec"]["template"]["spec"]["containers"]
    main["env"] = pod.get("env", [])
    if "volumes" in pod:
        made["spec"]["template"]["spec"]["volumes"] = pod["volumes"]
        main["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    return made


async def taken_over(server: Server, resource: Resource, names: list[str]) -> dict[str, list[str]]:
    """Imports the copies. Returns the problems by name."""
    if resource.pod is None:
        services = await server.admin.network.import_services(namespace=server.legacy, names=names)
        return {each.name: list(each.problems) for each in services.results if each.problems}
    containers = await server.admin.containers.import_(namespace=server.legacy, names=names)
    return {each.deployment: list(each.problems) for each in containers.results if each.problems}


async def shown(server: Server, resource: Resource, name: str) -> Any:
    """Returns the resource that an import created from a copy."""
    if resource.kind is storage_pb2.Volume:
        return await server.admin.storage.get_volume(namespace=server.legacy, name=name)
    if resource.kind is config_pb2.ConfigMap:
        return await server.admin.config.get_config_map(namespace=server.legacy, name=name)
    if resource.kind is network_pb2.Service:
        return await server.admin.network.get_service(namespace=server.legacy, name=name)
    return await secret_with_values(server, name, server.legacy)
