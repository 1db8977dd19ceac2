"""The common part of the tests of unobserved changes: a namespace with every kind of object, and another client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.controllers.claims import PROVISIONER
from pilothouse_simulator.values.resources import NODES, STORAGE_CLASSES
from tests.harness import QUICK, Server
from tests.state_comparison import agree, disagreements
from tests.waiting import poll_until

SPACE = "shop"
# For a server that runs alone. Its leases do not expire on a slow machine: work that is repeated would find nothing to
# repair.
LASTING = msgspec.structs.replace(QUICK, lease_seconds=10.0, worker=WorkerSettings(lease_seconds=10.0))
TOKEN = "of-this-test"
_CORE, _APPS = f"/api/v1/namespaces/{SPACE}", f"/apis/apps/v1/namespaces/{SPACE}"
POLICIES = {
    "repaired": pb.DRIFT_POLICY_REPAIR,
    "reported": pb.DRIFT_POLICY_REPORT,
    "adopted": pb.DRIFT_POLICY_ADOPT,
}


# Containers of other kinds, all with the policy REPAIR, and the paths of their workloads.
KINDS: dict[str, dict[str, Any]] = {
    "db": {
        "stateful_set": pb.StatefulSetSettings(
            claim_templates=[pb.ClaimTemplate(name="data", size="1Gi", access_modes=["ReadWriteOnce"])]
        ),
        "replicas": 2,
    },
    "agent": {"daemon_set": pb.DaemonSetSettings()},
    "batch": {"job": pb.JobSettings(), "command": ["sleep", "3600"]},
}
CHANGED_KINDS = {"db": f"{_APPS}/statefulsets/db", "agent": f"{_APPS}/daemonsets/agent"}


def deployment(name: str) -> str:
    """Returns the path of a Deployment."""
    return f"{_APPS}/deployments/{name}"


def service(name: str) -> str:
    """Returns the path of a Service."""
    return f"{_CORE}/services/{name}"


def core(kind: str, name: str) -> str:
    """Returns the path of another object of the namespace, by the plural of its kind."""
    return f"{_CORE}/{kind}/{name}"


class Others:
    """Another client of the cluster, like a person with `kubectl`."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Patches an object."""
        await self._send("PATCH", path, body, "application/strategic-merge-patch+json")

    async def merge(self, path: str, body: Mapping[str, Any]) -> None:
        """Patches an object, and removes the fields that are null."""
        await self._send("PATCH", path, body, "application/merge-patch+json")

    async def delete(self, path: str) -> None:
        """Deletes an object, with its dependents."""
        await self._send("DELETE", path, {"propagationPolicy": "Background"}, "application/json")

    async def image(self, name: str, image: str = "evil:666") -> None:
        """Sets the image of a Deployment."""
        containers = [{"name": "main", "image": image}]
        await self.patch(deployment(name), {"spec": {"template": {"spec": {"containers": containers}}}})

    async def get(self, path: str) -> dict[str, Any]:
        """Reads an object."""
        async with self._session() as session, session.get(self._cluster.url + path) as answer:
            assert answer.status == 200, path
            return dict(orjson.loads(await answer.read()))

    async def _send(self, method: str, path: str, body: Mapping[str, Any], content_type: str) -> None:
        async with (
            self._session(content_type) as session,
            session.request(
                method,
                self._cluster.url + path,
                params={"fieldManager": "kubectl-edit"} if method == "PATCH" else {},
                data=orjson.dumps(body),
            ) as answer,
        ):
            assert answer.status < 300, f"{path}: {await answer.text()}"

    def _session(self, content_type: str = "application/json") -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._cluster.token}", "Content-Type": content_type}
        return aiohttp.ClientSession(headers=headers)


def wanted(name: str, **fields: Any) -> pb.Container:
    """Returns a container with a Service and two variables, with the drift policy after which it is named."""
    return pb.Container(
        name=name,
        **{
            "image": "nginx:1.27",
            "env": [pb.EnvVar(name="A", value="1"), pb.EnvVar(name="B", value="2")],
            "labels": {"team": "a"},
            "ports": [pb.Port(container_port=80, service_name=name, service_port=80)],
            "drift_policy": POLICIES.get(name, pb.DRIFT_POLICY_REPAIR),
            **fields,
        },
    )


async def populate(server: Server, *names: str) -> None:
    """Makes a namespace with every kind of object and these containers, and waits until all are applied."""
    admin = server.admin
    assert server.cluster is not None
    # Bound immediately, without a pod.
    quick = {"metadata": {"name": "quick"}, "provisioner": PROVISIONER}
    server.cluster.store.create(STORAGE_CLASSES, quick)
    for name in (SPACE, "idle"):
        await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name, labels={"team": "a"}))
    await admin.config.create_config_map(
        namespace=SPACE, config_map=config_pb2.ConfigMap(name="settings", data={"mode": "fast"})
    )
    await admin.config.create_secret(
        namespace=SPACE, secret=config_pb2.Secret(name="keys", data={"key": b"opens"})
    )
    claim = storage_pb2.Volume(
        name="data",
        type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        size="1Gi",
        storage_class="quick",
        labels={"team": "a"},
    )
    await admin.storage.create_volume(namespace=SPACE, volume=claim)
    for name in names:
        account = "robot" if name == "labelled" else ""
        container = wanted(name, service_account=account, **KINDS.get(name, {}))
        await admin.containers.create(namespace=SPACE, container=container)
    await agreeing(server, seconds=30.0)
    if "agent" in names:
        # The count of its pods never disagrees with the cluster, but it is one more write.
        nodes = len(server.cluster.store.list(NODES))
        await poll_until(lambda: shown(server, "agent"), lambda found: found.replicas == nodes)
    # Work that is leased when a server stops would stay leased.
    await compared(server)


async def compared(server: Server) -> None:
    """Waits until all fingerprints are written and nothing is due, after the first lists were compared."""

    async def left() -> bool:
        async with server.database.system() as sql:
            return bool(
                await sql.fetchval(
                    "SELECT count(*) FROM reconcile_work WHERE applied_objects IS NULL OR leased_until IS NOT NULL "
                    "OR due_at <= clock_timestamp() + interval '60 seconds'"
                )
            )

    await poll_until(left, lambda found: not found, what="everything noted")


async def agreeing(server: Server, *, seconds: float = 10.0) -> None:
    """Waits until the cluster and the database agree, including the status."""
    assert server.cluster is not None
    application = server.application
    await agree(
        application.store, server.cluster.kubeconfig(), envelopes=application.envelopes, seconds=seconds
    )


async def differences(server: Server) -> list[str]:
    """Returns the present differences between the cluster and the database."""
    assert server.cluster is not None
    application = server.application
    return await disagreements(
        application.store, server.cluster.kubeconfig(), envelopes=application.envelopes
    )


async def shown(server: Server, name: str) -> pb.Container:
    """Returns a container as the API shows it."""
    return await server.admin.containers.get(namespace=SPACE, name=name)


def drifted(container: pb.Container) -> str:
    """Returns the reason of the condition `Drifted`."""
    return next((each.reason for each in container.conditions if each.type == "Drifted"), "")


@contextmanager
def written(cluster: SimulatedCluster) -> Iterator[list[str]]:
    """Yields the writes to a cluster in the block: paths with their methods, including dry runs."""
    found: list[str] = []

    def note(method: str, path: str) -> None:
        if method != "GET":
            found.append(f"{method} {path}")

    cluster.faults.on_request = note
    try:
        yield found
    finally:
        cluster.faults.on_request = None


async def rows(server: Server) -> dict[str, tuple[int, int]]:
    """Returns for every resource how often its row was written, and the number of its events."""
    found = {}
    async with server.database.system() as sql:
        for table, kind in (
            ("containers", "container"),
            ("config_maps", "config_map"),
            ("secrets", "secret"),
            ("volumes", "volume"),
            ("namespaces", "namespace"),
        ):
            query = (
                f"SELECT t.name, t.row_version, count(e.revision) AS events FROM {table} AS t LEFT JOIN events AS e "
                f"ON e.resource_type = '{kind}' AND e.resource_id = t.id GROUP BY t.name, t.row_version"
            )
            for row in await sql.fetch(query):
                found[f"{kind} {row['name']}"] = (int(row["row_version"]), int(row["events"]))
    return found


def kept_cluster(path: Path, **more: Any) -> SimulatedCluster:
    """Returns a cluster that is stored in a file, and can be restored from an older copy of it."""
    return SimulatedCluster(speed=10.0, state_path=path, token=TOKEN, **more)
