"""One command takes over existing Deployments of a cluster, and no pod restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import PilothouseError, RetryPolicy
from pilothouse_server.kubernetes.client import ClusterClient
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.legacy import (
    DEPLOYMENTS,
    SERVICES,
    all_run,
    condition,
    deployment,
    legacy,
    running,
    service,
)
from tests.waiting import poll_until


@pytest.mark.full
async def test_a_deployment_and_its_service_are_taken_over_unchanged(server: Server, tmp_path: Path) -> None:
    kubectl = await legacy(server)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("web"))
    await kubectl.ask("POST", SERVICES, service("web"))
    await all_run(kubectl, "web", 2)
    pods = await kubectl.pods()
    there = await kubectl.ask("GET", f"{DEPLOYMENTS}/web")
    front = await kubectl.ask("GET", f"{SERVICES}/web")

    shell = await logged_in(server, tmp_path)
    said = await shell.succeed("containers", "import", "-n", "legacy", "--validate-only")
    assert "web (dry run)" in said
    assert [item async for item in server.admin.containers.list(namespace="legacy")] == []
    (result,) = await shell.read("containers", "import", "-n", "legacy")
    assert result["deployment"] == result["container"]["name"] == "web"
    assert result["problems"] == result["notes"] == []

    found = await running(server, "web")
    assert found.ready_replicas == 2
    assert found.pod_name in pods
    assert found.replica_set_name
    assert (found.image, found.replicas) == ("nginx", 2)
    assert found.drift_policy == pb.DRIFT_POLICY_REPAIR
    assert condition(found, "Drifted").message == ""
    assert condition(found, "Drifted").reason == "InSync"
    assert {port.service_name for port in found.ports} == {"web", ""}
    after = await kubectl.ask("GET", f"{DEPLOYMENTS}/web")
    assert after["spec"] == there["spec"]
    assert after["metadata"]["labels"] == there["metadata"]["labels"] | {
        "pilothouse.dev/container-uid": found.uid,
        "pilothouse.dev/namespace-uid": (await server.admin.namespaces.get(name="legacy")).uid,
    }
    assert (await kubectl.ask("GET", f"{SERVICES}/web"))["spec"] == front["spec"]
    assert await kubectl.pods() == pods

    # From here on, the container behaves like any other.
    await server.admin.containers.restart(namespace="legacy", name="web")

    async def replaced() -> bool:
        now = await kubectl.pods()
        return len(now) == 2 and not now.keys() & pods.keys()

    await poll_until(replaced)

    async def row_follows() -> bool:
        return (await running(server, "web")).pod_name not in pods

    await poll_until(row_follows)
    await server.admin.containers.stop(namespace="legacy", name="web")

    async def none_left() -> bool:
        return not await kubectl.pods()

    await poll_until(none_left)
    await server.admin.containers.delete(namespace="legacy", name="web")

    async def gone() -> bool:
        deployments = (await kubectl.ask("GET", DEPLOYMENTS))["items"]
        services = (await kubectl.ask("GET", SERVICES))["items"]
        return not deployments and not services

    await poll_until(gone)


async def test_workloads_that_cannot_be_represented_stay_and_are_reported(
    server: Server, tmp_path: Path
) -> None:
    kubectl = await legacy(server)
    two = deployment("two", replicas=1)
    two["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "envoy:1"})
    affine = deployment("affine", replicas=1, hostNetwork=True)
    affine["spec"]["strategy"] = {"type": "Recreate"}
    stored = deployment(
        "stored", replicas=1, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    )
    files = deployment("files", replicas=1, volumes=[{"name": "all", "nfs": {"server": "a", "path": "/"}}])
    (main,) = files["spec"]["template"]["spec"]["containers"]
    main["volumeMounts"] = [{"name": "all", "mountPath": "/all"}]
    for each in (two, affine, stored, files):
        await kubectl.ask("POST", DEPLOYMENTS, each)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("taken", replicas=1))
    await server.admin.containers.create(
        namespace="legacy", container=pb.Container(name="other", image="a:1")
    )
    shell = await logged_in(server, tmp_path)
    outcome = await shell.run(
        "containers",
        "import",
        "two",
        "affine",
        "stored",
        "files",
        "absent",
        "taken",
        "-n",
        "legacy",
        "-o",
        "json",
    )
    assert outcome.code == 1
    results = {item["deployment"]: item for item in json.loads(outcome.output)}
    problems = {name: " ".join(item.get("problems", [])) for name, item in results.items()}
    assert problems["two"] == ""
    assert [each["name"] for each in results["two"]["container"]["sidecars"]] == ["side"]
    assert problems["affine"] == ""
    assert results["affine"]["notes"] == ["spec.template.spec.hostNetwork: stored in extra_fields"]
    assert "volumes[data]: no container mounts it" in problems["stored"]
    assert problems["files"] == ""
    assert results["files"]["notes"] == ["spec.template.spec.volumes[name=all].nfs: stored in extra_fields"]
    assert results["files"]["container"]["drift_policy"] == "DRIFT_POLICY_REPAIR"
    assert [each["volume"] for each in results["files"]["container"]["volume_mounts"]] == ["all"]
    assert problems["absent"] == "there is no such Deployment"
    assert "container" in results["taken"]
    names = [item.name async for item in server.admin.containers.list(namespace="legacy")]
    assert sorted(names) == ["affine", "files", "other", "taken", "two"]
    untouched = await kubectl.ask("GET", f"{DEPLOYMENTS}/stored")
    assert "pilothouse.dev/container-uid" not in untouched["metadata"]["labels"]


async def test_an_import_needs_the_permission_for_each_field(server: Server) -> None:
    kubectl = await legacy(server)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("node", replicas=1, hostNetwork=True))
    await kubectl.ask("POST", DEPLOYMENTS, deployment("names", replicas=1, dnsConfig={"searches": ["a"]}))
    developer = await server.user("dora", {"legacy": "developer"})
    answer = await developer.containers.import_(namespace="legacy", names=["node", "names"])
    refused, taken = answer.results
    (told,) = refused.problems
    assert "spec.template.spec.hostNetwork" in told
    assert "permission container.privileged is needed" in told
    assert dict(taken.container.extra_fields) == {"spec.template.spec.dnsConfig": '{"searches": ["a"]}'}


async def test_pods_that_an_apply_would_change_are_left_and_reported(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = await legacy(server)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("odd", replicas=1))
    await all_run(kubectl, "odd", 1)
    pods = await kubectl.pods()
    there = await kubectl.ask("GET", f"{DEPLOYMENTS}/odd")
    real = ClusterClient.dry_run

    async def mutating(self: ClusterClient, *arguments: Any, **keywords: Any) -> Any:
        """Returns the object as an admission webhook would change it: with another image than the present one."""
        after = await real(self, *arguments, **keywords)
        after["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror/nginx"
        return after

    monkeypatch.setattr(ClusterClient, "dry_run", mutating)
    answer = await server.admin.containers.import_(namespace="legacy", names=["odd"])
    (result,) = answer.results
    assert result.container.drift_policy == pb.DRIFT_POLICY_REPORT
    assert "drift policy REPORT" in result.notes[0]
    assert 'containers[name="server"].image' in result.notes[0]
    found = await running(server, "odd")
    assert condition(found, "Drifted").status == resource_pb2.CONDITION_STATUS_TRUE
    assert (await kubectl.ask("GET", f"{DEPLOYMENTS}/odd"))["spec"] == there["spec"]
    assert await kubectl.pods() == pods


async def test_services_of_several_deployments_and_odd_services_are_left_alone(server: Server) -> None:
    kubectl = await legacy(server)
    for name in ("blue", "green"):
        await kubectl.ask("POST", DEPLOYMENTS, deployment(name, replicas=1))
    both = service("both", selector={"tier": "front"})
    lost = service("lost", selector={"app": "blue"}, ports=[{"port": 80, "targetPort": "nowhere"}])
    for each in (both, lost):
        await kubectl.ask("POST", SERVICES, each)
    answer = await server.admin.containers.import_(namespace="legacy")
    notes = {item.deployment: " ".join(item.notes) for item in answer.results}
    assert "Service both: it selects the pods of blue, green" in notes["blue"]
    assert "Service lost: port 80: the pods have no port of this protocol named nowhere" in notes["blue"]
    assert notes["green"].startswith("Service both")
    assert all(not port.service_name for item in answer.results for port in item.container.ports)


async def test_an_import_needs_its_permission_and_reports_an_unreachable_cluster(
    server: Server,
) -> None:
    await legacy(server)
    viewer = await server.user("viewer", {"legacy": "viewer"})
    with pytest.raises(PilothouseError) as refused:
        await viewer.containers.import_(namespace="legacy")
    assert refused.value.code.name == "PERMISSION_DENIED"
    assert server.cluster is not None
    server.cluster.faults.refuse_connections = True
    once = server.admin.with_options(retry=RetryPolicy(attempts=1))
    with pytest.raises(PilothouseError) as away:
        await once.containers.import_(namespace="legacy")
    assert away.value.code.name == "UNAVAILABLE"
    assert "local" in str(away.value)
    server.cluster.faults.clear()
