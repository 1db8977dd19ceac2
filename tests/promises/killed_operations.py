"""The table of operations during which a server is killed.

Each has its initial state, the request, and the result. Operations on containers alone (create, update with a
Service that is deleted, stop, restart, …) are in tests/reconcile/test_kills.py. The rotation of keys, in
tests/config/test_rotation.py, writes nothing to a cluster. The registration of a cluster reads its rights and
writes nothing to it.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_simulator.controllers.claims import PROVISIONER
from pilothouse_simulator.values.resources import STORAGE_CLASSES
from tests.applications.conftest import (
    JsonObject,
    budget,
    config_map,
    deployment,
    given,
    secret,
    service,
)
from tests.clusters.given import register
from tests.harness import Server
from tests.main_job.legacy import DEPLOYMENTS, SERVICES, Kubectl
from tests.main_job.legacy_shop import prepare, shop
from tests.promises.killing import REGISTERED, SPACE, Operation, Seen, nothing_is_due
from tests.waiting import poll_until


async def make_space(server: Server, cluster: str = "") -> None:
    space = namespace_pb2.Namespace(name=SPACE, labels={"a": "1"}, cluster_name=cluster)
    await server.admin.namespaces.create(namespace=space)


async def make_filled(server: Server, cluster: str = "", **fields: Any) -> None:
    """Makes one resource of each noun.

    The container reads the config map and the secret only if `fields` has `env`. No container mounts the claim
    yet.
    """
    assert server.cluster is not None
    server.cluster.store.create(
        STORAGE_CLASSES,
        {"metadata": {"name": "quick"}, "provisioner": PROVISIONER, "allowVolumeExpansion": True},
    )
    await make_space(server, cluster)
    config_map = config_pb2.ConfigMap(name="settings", data={"a": "1"})
    await server.admin.config.create_config_map(namespace=SPACE, config_map=config_map)
    secret = config_pb2.Secret(name="keys", string_data={"a": "1"})
    await server.admin.config.create_secret(namespace=SPACE, secret=secret)
    volume = storage_pb2.Volume(
        name="data",
        type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        size="1Gi",
        storage_class="quick",
        mount_path="/data",
    )
    await server.admin.storage.create_volume(namespace=SPACE, volume=volume)
    container = container_pb2.Container(
        name="web", image="nginx:1.27", ports=[container_pb2.Port(container_port=80)], **fields
    )
    await server.admin.containers.create(namespace=SPACE, container=container)


async def make_reading(server: Server) -> None:
    kinds = container_pb2.ENV_VALUE_FROM_CONFIG_MAP, container_pb2.ENV_VALUE_FROM_SECRET
    env = [
        container_pb2.EnvVar(name=source.upper(), value_from=kind, source_name=source, source_key="a")
        for source, kind in zip(("settings", "keys"), kinds, strict=True)
    ]
    await make_filled(server, env=env)


async def make_adopting(server: Server) -> None:
    await make_filled(server, drift_policy=container_pb2.DRIFT_POLICY_ADOPT)


async def make_registered(server: Server) -> None:
    assert server.cluster is not None
    await register(server, REGISTERED, server.cluster)
    await make_filled(server, REGISTERED)


async def make_legacy(server: Server) -> None:
    kubectl = Kubectl(server)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    await kubectl.ask("POST", "/api/v1/namespaces", manifest)
    await prepare(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE), adopt=True)


async def label_space(server: Server) -> None:
    await server.admin.namespaces.update(
        name=SPACE,
        namespace=namespace_pb2.Namespace(labels={"b": "2"}),
        update_mask=FieldMask(paths=["labels"]),
    )


async def delete_space(server: Server) -> None:
    await server.admin.namespaces.delete(name=SPACE, cascade=True)


_POLICY: dict[str, Any] = {"api_version": "networking.k8s.io/v1", "kind": "NetworkPolicy"}


def policy(name: str, app: str) -> object_pb2.Object:
    """Returns a NetworkPolicy for pods; no controller reports on it."""
    document = {"spec": {"podSelector": {"matchLabels": {"app": app}}}}
    return object_pb2.Object(name=name, document=json.dumps(document), **_POLICY)


async def make_objects(server: Server) -> None:
    for name in ("changed", "deleted"):
        await server.admin.objects.create(namespace=SPACE, object=policy(name, "web"))


async def change_objects(server: Server) -> None:
    named = {"namespace": SPACE, **_POLICY}
    await server.admin.objects.update(
        **named, name="changed", object=policy("changed", "api"), update_mask=FieldMask(paths=["document"])
    )
    await server.admin.objects.delete(**named, name="deleted")
    await server.admin.objects.create(namespace=SPACE, object=policy("created", "web"))


async def change_configs(server: Server, *, restart: bool = False) -> None:
    await server.admin.config.update_config_map(
        namespace=SPACE,
        name="settings",
        config_map=config_pb2.ConfigMap(labels={"b": "2"}, data={"a": "2"}),
        update_mask=FieldMask(paths=["labels", "data"]),
        restart_containers=restart,
    )
    await server.admin.config.update_secret(
        namespace=SPACE,
        name="keys",
        secret=config_pb2.Secret(string_data={"a": "2"}),
        update_mask=FieldMask(paths=["string_data"]),
        restart_containers=restart,
    )


async def change_configs_and_restart(server: Server) -> None:
    await change_configs(server, restart=True)


async def delete_configs(server: Server) -> None:
    await server.admin.config.delete_config_map(namespace=SPACE, name="settings")
    await server.admin.config.delete_secret(namespace=SPACE, name="keys")


async def take_over(server: Server) -> None:
    answer = await server.admin.containers.import_(namespace=SPACE)
    assert [result.container.name for result in answer.results] == ["shop"]


async def attach(server: Server) -> None:
    await server.admin.storage.attach_volume(namespace=SPACE, name="data", container="web")


async def detach(server: Server) -> None:
    await server.admin.storage.detach_volume(namespace=SPACE, name="data", container="web")


async def grow(server: Server) -> None:
    mask = FieldMask(paths=["size"])
    volume = storage_pb2.Volume(size="2Gi")
    await server.admin.storage.update_volume(namespace=SPACE, name="data", volume=volume, update_mask=mask)


async def hold(server: Server) -> None:
    """Holds the rollout, then changes the container: the new state waits."""
    mode = container_pb2.PAUSE_MODE_HOLD_ROLLOUT
    await server.admin.containers.pause(namespace=SPACE, name="web", mode=mode)
    await server.admin.containers.update(
        namespace=SPACE,
        name="web",
        container=container_pb2.Container(image="nginx:1.28"),
        update_mask=FieldMask(paths=["image"]),
    )


async def roll_back(server: Server) -> None:
    """Changes the container, and rolls it back before the cluster has followed."""
    await server.admin.containers.update(
        namespace=SPACE,
        name="web",
        container=container_pb2.Container(image="nginx:1.28", labels={"app": "web", "tier": "front"}),
        update_mask=FieldMask(paths=["image", "labels"]),
    )
    await server.admin.containers.rollback(namespace=SPACE, name="web")


async def apply_shop(server: Server) -> None:
    documents = [config_map(), secret(), service(), budget(), deployment(), deployment("api")]
    await apply_documents(server, documents)


async def change_shop(server: Server) -> None:
    """Changes the application, and rolls it back before the cluster has followed.

    Then it changes the application again and prunes it.
    """
    changed = [config_map(level="debug"), secret(word="other"), deployment(image="nginx:1.28")]
    await apply_documents(server, changed, prune=False)
    await server.admin.applications.rollback(namespace=SPACE, name="shop")
    changed = [config_map(level="warn"), deployment(image="nginx:1.29")]
    await apply_documents(server, changed, prune=True)


async def apply_documents(server: Server, documents: list[JsonObject], **fields: Any) -> None:
    await server.admin.applications.apply(namespace=SPACE, name="shop", documents=given(documents), **fields)


async def resume(server: Server) -> None:
    await server.admin.containers.resume(namespace=SPACE, name="web")


async def meddle(server: Server) -> None:
    """Changes the Service and the Deployment as another tool would.

    Returns once the server has noticed the change.
    """
    kubectl, kind = Kubectl(server), "strategic-merge-patch+json"
    ports = [{"port": 80, "protocol": "TCP", "targetPort": 8080}]
    await kubectl.ask("PATCH", f"{SERVICES}/web", {"spec": {"ports": ports}}, kind)
    main = {"name": "main", "image": "nginx:1.29"}
    patch = {"spec": {"template": {"spec": {"containers": [main]}}}}
    await kubectl.ask("PATCH", f"{DEPLOYMENTS}/web", patch, kind)

    async def noticed() -> bool:
        return not await nothing_is_due(server)

    await poll_until(noticed, what="the work that the observer asks for")


async def deregister(server: Server) -> None:
    await server.admin.namespaces.deregister_cluster(
        name=REGISTERED, objects=namespace_pb2.DEREGISTERED_OBJECTS_DELETE
    )


async def let_go(server: Server) -> None:
    await server.admin.namespaces.deregister_cluster(
        name=REGISTERED, objects=namespace_pb2.DEREGISTERED_OBJECTS_ORPHAN
    )


def pods(seen: Seen) -> str:
    """Returns the description of the pods, which all are of one kind."""
    (found,) = (text for name, text in seen.cluster.items() if name.endswith(" pods"))
    return found


def is_gone(seen: Seen) -> bool:
    return not seen.cluster and is_forgotten(seen)


def is_let_go(seen: Seen) -> bool:
    return "Deployment/web" in seen.cluster and is_forgotten(seen)


def is_forgotten(seen: Seen) -> bool:
    return seen.database.keys() == {"work", "told"} and seen.database["work"] == "[]"


OPERATIONS = {
    "create all": Operation((), make_filled, 6),
    "update a namespace": Operation((make_space,), label_space, 1),
    "delete a namespace": Operation((make_filled,), delete_space, 6, is_gone),
    "change configs": Operation((make_filled,), change_configs, 2),
    "change configs and restart": Operation(
        (make_reading,), change_configs_and_restart, 3, lambda seen: '"restarted":true' in pods(seen)
    ),
    "change objects": Operation(
        (make_space, make_objects),
        change_objects,
        3,
        lambda seen: (
            '"app":"api"' in seen.cluster["NetworkPolicy/changed"]
            and "NetworkPolicy/deleted" not in seen.cluster
        ),
    ),
    "delete configs": Operation((make_filled,), delete_configs, 2),
    "import": Operation((make_legacy,), take_over, 5),
    "attach a volume": Operation((make_filled,), attach, 1, lambda seen: '"claimName":"data"' in pods(seen)),
    "detach a volume": Operation(
        (make_filled, attach), detach, 1, lambda seen: '"claimName"' not in pods(seen)
    ),
    "expand a volume": Operation(
        (make_filled,), grow, 1, lambda seen: '"capacity":"2Gi"' in seen.database["volume/data"]
    ),
    "hold a rollout": Operation(
        (make_filled,),
        hold,
        1,
        lambda seen: "1.28" in seen.cluster["Deployment/web"] and "1.27" in pods(seen),
    ),
    "roll back": Operation((make_filled,), roll_back, 1, lambda seen: "1.27" in pods(seen)),
    "apply, roll back and prune": Operation(
        (make_space, apply_shop),
        change_shop,
        4,
        lambda seen: (
            "1.29" in seen.cluster["Deployment/web"]
            and "Deployment/api" not in seen.cluster
            and not seen.cluster.keys() & {"Service/web", "Secret/password", "PodDisruptionBudget/web"}
        ),
    ),
    "resume a rollout": Operation((make_filled, hold), resume, 1, lambda seen: "1.28" in pods(seen)),
    "repair drift": Operation(
        (make_filled,),
        meddle,
        2,
        lambda seen: "1.27" in pods(seen) and "8080" not in seen.cluster["Service/web"],
    ),
    "adopt drift": Operation(
        (make_adopting,),
        meddle,
        2,
        lambda seen: "1.29" in pods(seen) and "1.29" in seen.database["container/web"],
    ),
    "deregister, deleting": Operation((make_registered,), deregister, 6, is_gone, registered=True),
    "deregister, leaving": Operation((make_registered,), let_go, 0, is_let_go, registered=True),
}
