"""Usage from metrics.k8s.io, where the kubelets refuse access.

The API server is the test's own: neither the simulated cluster nor the recorded one has a metrics-server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pilothouse_server.containers.model import Resources
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import Forbidden
from pilothouse_server.kubernetes.objects import ObjectMeta, Pod
from pilothouse_server.kubernetes.pod_metrics import read_summaries
from pilothouse_server.metrics.model import UsageSample
from pilothouse_server.reconcile.observe.container_observer import PodOwner
from pilothouse_server.reconcile.observe.usage import UsageCollector
from pilothouse_server.values.resources import NamespaceId

JsonObject = dict[str, Any]
SUMMARY = {
    "pods": [
        {"podRef": {"uid": "u-web"}, "containers": [{"name": "main", "cpu": {"usageNanoCores": 7_000_000}}]}
    ]
}


def _metrics(name: str, **programs: tuple[str, str]) -> JsonObject:
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "timestamp": "2026-12-01T00:00:00Z",
        "window": "15s",
        "containers": [
            {"name": program, "usage": {"cpu": cpu, "memory": memory}}
            for program, (cpu, memory) in programs.items()
        ],
    }


METRICS = [
    _metrics("web", main=("250000001n", "64Mi"), agent=("1500u", "1024Ki")),
    _metrics("odd", main=("much", "-1")),
    _metrics("of-nobody", main=("1", "1Gi")),
]


class ApiServer:
    """An API server with two nodes; `kubelets` says which of them may be read."""

    def __init__(self, *versions: str, kubelets: Mapping[str, bool]) -> None:
        self.versions = versions
        self.kubelets = kubelets
        self.asked: list[str] = []

    async def respond(self, request: web.Request) -> web.Response:
        path = request.path
        group, _, version = path.removesuffix("/pods").rpartition("/")
        if path == "/api/v1/nodes":
            nodes = [{"metadata": {"name": name}} for name in self.kubelets]
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": nodes})
        if path.endswith("/stats/summary"):
            readable = self.kubelets[path.split("/")[4]]
            return web.json_response(SUMMARY) if readable else _status(403, "Forbidden")
        self.asked.append(path)
        if group == "/apis/metrics.k8s.io" and version in self.versions:
            # metrics-server sends the list without a version.
            return web.json_response({"kind": "PodMetricsList", "metadata": {}, "items": METRICS})
        return _status(404, "NotFound")


def _status(code: int, reason: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return web.json_response(body, status=code)


class Sink:
    """Collects the samples of all rounds."""

    def __init__(self) -> None:
        self.samples: list[UsageSample] = []

    async def store(self, samples: list[UsageSample]) -> None:
        self.samples += samples


@asynccontextmanager
async def _served(server: ApiServer) -> AsyncIterator[ClusterClient]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.respond)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        config = {
            "current-context": "own",
            "clusters": [{"name": "own", "cluster": {"server": f"http://{host}:{port}"}}],
            "contexts": [{"name": "own", "context": {"cluster": "own"}}],
        }
        client = await ClusterClient.from_kubeconfig(config, name="own")
        try:
            yield client
        finally:
            await client.close()
    finally:
        await runner.cleanup()


async def _collected(server: ApiServer, *names: str) -> list[UsageSample]:
    """Returns the samples of one round, for containers with one pod each."""
    pods = [(name, Pod(metadata=ObjectMeta(name=name, namespace="shop", uid=f"u-{name}"))) for name in names]
    programs = (Resources(), Resources())
    owners = {
        pod.metadata.uid: PodOwner(number, NamespaceId(1), programs, Resources())
        for number, (_, pod) in enumerate(pods, start=1)
    }
    sink = Sink()
    async with _served(server) as client:
        observer: Any = SimpleNamespace(
            cluster=SimpleNamespace(name="own", client=client),
            view=SimpleNamespace(pods=lambda: iter(pods)),
            pod_owners=lambda: owners,
        )
        await UsageCollector(observer, sink, 60.0).collect()
    return sink.samples


REFUSED = {"one": False, "two": False}


@pytest.mark.parametrize(
    ("versions", "asked"),
    [
        (("v1", "v1beta1"), ["/apis/metrics.k8s.io/v1/pods"]),
        (("v1beta1",), ["/apis/metrics.k8s.io/v1/pods", "/apis/metrics.k8s.io/v1beta1/pods"]),
    ],
)
async def test_v1_is_read_before_v1beta1_if_kubelets_are_refused(
    versions: tuple[str, ...], asked: list[str]
) -> None:
    server = ApiServer(*versions, kubelets=REFUSED)
    one, odd = await _collected(server, "web", "odd")
    assert server.asked == asked
    assert one.cpu_cores_used == pytest.approx(0.251500001)
    assert one.memory_bytes_used == 65 * 1024**2
    assert one.programs is not None
    assert one.network_bytes_rx is None
    assert one.disk_bytes_used is None
    assert (odd.cpu_cores_used, odd.memory_bytes_used) == (0.0, 0)


async def test_each_pod_has_its_own_summary() -> None:
    uids = {("shop", "web"): "u-web", ("shop", "odd"): "u-odd"}
    async with _served(ApiServer("v1", kubelets=REFUSED)) as client:
        found = await read_summaries(client, uids)
    assert found is not None
    assert [[pod.pod_ref.uid for pod in each.pods] for each in found] == [["u-web"], ["u-odd"]]


async def test_a_cluster_without_any_source_raises_forbidden() -> None:
    with pytest.raises(Forbidden):
        await _collected(ApiServer(kubelets=REFUSED), "web")


async def test_a_readable_kubelet_is_the_source() -> None:
    server = ApiServer("v1", kubelets={"one": True, "two": False})
    (found,) = await _collected(server, "web")
    assert server.asked == []
    assert found.cpu_cores_used == pytest.approx(0.007)
