"""Inputs for the tests of clusters: credentials, kubeconfigs, expiring tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import yaml

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.kubernetes.rights import RIGHTS, Right, manifest
from pilothouse_server.reconcile.observe.container_observer import ContainerObserverSettings
from pilothouse_server.reconcile.observe.health import HealthSettings
from pilothouse_server.reconcile.observe.sweep import SweepSettings
from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_server.reconcile.reconciler import ReconcilerSettings
from pilothouse_simulator import SimulatedCluster
from tests.harness import Server
from tests.waiting import poll_until

QUICK = ReconcilerSettings(
    worker=WorkerSettings(poll_seconds=0.05),
    containers=ContainerObserverSettings(gather_seconds=0.01),
    health=HealthSettings(probe_seconds=0.2, answer_seconds=8.0),
    sweep=SweepSettings(period_seconds=0.2, grace_seconds=0.5),
    clusters_period_seconds=0.1,
    lease_seconds=3.0,
)


def kubeconfig(cluster: SimulatedCluster, **user: str) -> dict[str, Any]:
    """Returns the cluster's kubeconfig, with another user if one is given."""
    document = cluster.kubeconfig()
    if user:
        document["users"][0]["user"] = user
    return document


def by_kubeconfig(document: Any, context: str = "") -> pb.ClusterCredentials:
    """Returns credentials from a kubeconfig; text is sent unchanged."""
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    return pb.ClusterCredentials(kubeconfig=pb.Kubeconfig(text=text, context=context))


def by_token(cluster: SimulatedCluster, token: str = "") -> pb.ClusterCredentials:
    """Returns credentials from an address and a token."""
    return pb.ClusterCredentials(
        address=pb.ClusterAddress(api_server=cluster.url, token=token or cluster.token)
    )


def jwt(expires: datetime) -> str:
    """Returns a token in a service account's form, with an invalid signature."""
    parts = ({"alg": "none"}, {"exp": int(expires.timestamp())})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def encoded(pem: bytes) -> str:
    """Returns PEM in the encoding of a kubeconfig."""
    return base64.b64encode(pem).decode()


def role(*without: str, rights: Iterable[Right] = RIGHTS) -> list[dict[str, Any]]:
    """Returns the rules of the required ClusterRole, without the rights in `without`."""
    kept = [right for right in rights if str(right) not in without]
    documents = list(yaml.safe_load_all(manifest(kept)))
    (found,) = [document for document in documents if document["kind"] == "ClusterRole"]
    rules: list[dict[str, Any]] = found["rules"]
    return rules


async def register(server: Server, name: str, cluster: SimulatedCluster) -> pb.Cluster:
    """Registers a cluster with its own kubeconfig."""
    answer = await server.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name=name), credentials=by_kubeconfig(kubeconfig(cluster))
    )
    return answer.cluster


async def place(server: Server, cluster: str, namespace: str, *, wait: bool = True) -> None:
    """Creates a namespace on a cluster, and in it a container `web`."""
    await server.admin.namespaces.create(namespace=pb.Namespace(name=namespace, cluster_name=cluster))
    await server.admin.containers.create(
        namespace=namespace, container=containers.Container(name="web", image="nginx:1.27")
    )
    if wait:
        await runs(server, namespace)


async def runs(server: Server, namespace: str, *, seconds: float = 60.0) -> containers.Container:
    """Returns the container `web` of a namespace once it runs."""

    async def running() -> containers.Container | None:
        found = await server.admin.containers.get(namespace=namespace, name="web")
        return found if found.status == containers.CONTAINER_STATUS_RUNNING else None

    found = await poll_until(running, seconds=seconds, what=f"{namespace}/web running")
    assert found is not None
    return found


async def has_status(server: Server, name: str, status: pb.ClusterStatus.ValueType) -> pb.Cluster:
    """Returns a cluster once it has this status."""

    async def reached() -> pb.Cluster | None:
        found = await server.admin.namespaces.get_cluster(name=name)
        return found if found.status == status else None

    found = await poll_until(reached, seconds=60.0, what=f"status of {name}")
    assert found is not None
    return found


@asynccontextmanager
async def another_cluster(**options: Any) -> AsyncIterator[SimulatedCluster]:
    """Runs a simulated cluster next to the server's own, at ten times the speed."""
    async with SimulatedCluster(speed=10.0, nodes=1, **options) as cluster:
        yield cluster
