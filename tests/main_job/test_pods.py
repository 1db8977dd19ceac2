"""ListPods: the pods of a container with their programs, as observed, even while the cluster is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from tests.clusters.given import QUICK
from tests.conftest import Database
from tests.dashboard.watching import RULES, caller_of
from tests.harness import Server, running_server
from tests.main_job.command import logged_in
from tests.waiting import poll_until, within

NAMESPACE = "demo"


@pytest_asyncio.fixture
async def server(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(database, tmp_path, reconciler=QUICK) as started:
        await started.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
        yield started


async def pods(server: Server, name: str = "web", **page: Any) -> list[pb.Pod]:
    return [each async for each in server.admin.containers.list_pods(namespace=NAMESPACE, name=name, **page)]


async def test_list_pods_shows_nodes_and_programs_even_while_the_cluster_is_away(
    server: Server, tmp_path: Path
) -> None:
    await server.admin.containers.create(
        namespace=NAMESPACE,
        container=pb.Container(
            name="web",
            image="nginx:1.27",
            replicas=3,
            sidecars=[pb.Program(name="exporter", image="exporter:1")],
            init_containers=[pb.InitContainer(name="prepare", image="busybox:1", command=["true"])],
        ),
    )
    found = await poll_until(
        lambda: pods(server), lambda seen: len(seen) == 3 and all(pod.ready for pod in seen)
    )
    assert [pod.name for pod in found] == sorted(pod.name for pod in found)
    for pod in found:
        assert all((pod.node_name, pod.uid, pod.pod_ip, pod.HasField("create_time"))), pod
        assert (pod.phase, pod.reason, pod.restart_count) == ("Running", "", 0)
        assert [(each.name, each.kind, each.state, each.pods, each.ready_pods) for each in pod.programs] == [
            ("prepare", pb.PROGRAM_KIND_INIT, pb.PROGRAM_STATE_TERMINATED, 1, 1),
            ("main", pb.PROGRAM_KIND_MAIN, pb.PROGRAM_STATE_RUNNING, 1, 1),
            ("exporter", pb.PROGRAM_KIND_SIDECAR, pb.PROGRAM_STATE_RUNNING, 1, 1),
        ]
        assert pod.programs[1].image == "nginx:1.27"
        assert pod.programs[1].image_id
    assert await pods(server, page_size=1) == found

    shell = await logged_in(server, tmp_path)
    lines = (await shell.succeed("containers", "pods", "web", "-n", NAMESPACE)).splitlines()
    assert lines[0].split("\t") == ["NAME", "READY", "STATUS", "RESTARTS", "NODE", "AGE"]
    assert [line.split("\t")[:4] for line in lines[1:]] == [
        [pod.name, "2/2", "Running", "0"] for pod in found
    ]
    lines = (await shell.succeed("containers", "pods", "web", "-n", NAMESPACE, "--programs")).splitlines()
    assert [line.split("\t")[:4] for line in lines[1:4]] == [
        [found[0].name, "prepare", "yes", "Completed"],
        [found[0].name, "main", "yes", "running"],
        [found[0].name, "exporter", "yes", "running"],
    ]

    assert server.cluster is not None
    server.cluster.faults.refuse_connections = True
    server.cluster.faults.drop_watches()

    stale = await poll_until(
        lambda: pods(server), lambda seen: all(pod.HasField("stale_since") for pod in seen)
    )
    for pod in stale:
        pod.ClearField("stale_since")
    assert stale == found
    (line, *_) = (await shell.run("containers", "pods", "web", "-n", NAMESPACE)).errors.splitlines()
    assert line.startswith("the cluster has not responded since ")


async def test_a_watch_of_a_container_includes_its_pods(server: Server) -> None:
    """Each change and each bookmark has the pods; those that are not ready come first."""
    rule, caller = RULES["WatchContainers"], await caller_of(server)
    await server.admin.containers.create(
        namespace=NAMESPACE, container=pb.Container(name="web", image="nginx:1.27", replicas=2)
    )
    request = rule.request_class(namespace=NAMESPACE, name="web", pods=True, bookmark_period_seconds=1)
    async with caller.watching(rule, request) as stream, within(30.0):
        async for answer in stream:
            ready = [each.ready for each in answer.pods]
            assert ready == sorted(ready)
            if answer.change_type == resource_pb2.CHANGE_TYPE_SYNCED:
                assert not answer.pods
            if ready == [True, True] and answer.change_type == resource_pb2.CHANGE_TYPE_BOOKMARK:
                break
    found = await pods(server)
    assert [each.name for each in answer.pods] == [each.name for each in found]
    assert all(each.node_name for each in answer.pods)
    for fields in ({"namespace": NAMESPACE}, {"name": "web"}):
        refused = await caller.invoke(rule, rule.request_class(pods=True, **fields))
        assert refused.code == "INVALID_ARGUMENT"


async def test_pods_in_a_watch_need_the_permission_to_list_them(server: Server) -> None:
    rule = RULES["WatchContainers"]
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="watcher", display_name="Watcher", permissions=["container.watch"])
    )
    await server.user("watcher", {NAMESPACE: "watcher"})
    caller = await caller_of(server, "watcher")
    request = rule.request_class(namespace=NAMESPACE, name="web")
    async with caller.watching(rule, request) as stream, within(30.0):
        assert (await anext(stream)).change_type == resource_pb2.CHANGE_TYPE_SYNCED
    request = rule.request_class(namespace=NAMESPACE, name="web", pods=True)
    assert (await caller.invoke(rule, request)).code == "PERMISSION_DENIED"
