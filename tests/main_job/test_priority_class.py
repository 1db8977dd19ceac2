"""The priority class of pods, set by callers, by manifests, in existing Deployments, and by others on the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.legacy import DEPLOYMENTS, Kubectl, deployment, legacy, running
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
DEMO = "/apis/apps/v1/namespaces/{}/deployments"


async def make_class(kubectl: Kubectl, name: str, value: int) -> None:
    made = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
    }
    await kubectl.ask("PATCH", f"{CLASSES}/{name}", made, "apply-patch+yaml")


@pytest.fixture
async def demo(server: Server) -> Kubectl:
    kubectl = Kubectl(server)
    await make_class(kubectl, "gold.shop", 1000)
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace))
    return kubectl


def of_pods(found: dict[str, Any]) -> str | None:
    named: str | None = found["spec"]["template"]["spec"].get("priorityClassName")
    return named


async def named_on_the_cluster(server: Server, wanted: str | None) -> None:
    kubectl = Kubectl(server)

    async def there() -> bool:
        found = await kubectl.ask("GET", DEMO.format(server.namespace))
        return [of_pods(each) for each in found["items"]] == [wanted]

    await poll_until(there)


async def test_pods_have_the_priority_class_and_its_value(
    server: Server, demo: Kubectl, tmp_path: Path
) -> None:
    shell = await logged_in(server, tmp_path)
    where = ("web", "--namespace", server.namespace)
    await shell.succeed(
        "containers", "create", *where, "--image", "nginx:1.27", "--priority-class", "gold.shop"
    )
    assert (await shell.read("containers", "get", *where))["priority_class"] == "gold.shop"
    await named_on_the_cluster(server, "gold.shop")

    async def numbers() -> bool:
        pods = await demo.ask("GET", f"/api/v1/namespaces/{server.namespace}/pods")
        return [pod["spec"]["priority"] for pod in pods["items"]] == [1000]

    await poll_until(numbers)
    await shell.succeed("containers", "update", *where, "--priority-class", "")
    await named_on_the_cluster(server, None)
    changed = await server.admin.containers.update(
        namespace=server.namespace,
        name="web",
        container=pb.Container(priority_class="system-node-critical", image="ignored:1"),
        update_mask=FieldMask(paths=["priority_class"]),
    )
    assert (changed.priority_class, changed.image) == ("system-node-critical", "nginx:1.27")
    await named_on_the_cluster(server, "system-node-critical")


async def test_an_invalid_name_is_refused(server: Server, demo: Kubectl) -> None:
    with pytest.raises(PilothouseError) as refused:
        await server.admin.containers.create(
            namespace=server.namespace,
            container=pb.Container(name="web", image="a:1", priority_class="Not a name"),
        )
    assert [(each.field, each.reason) for each in refused.value.violations] == [
        ("container.priority_class", "FORMAT_DNS_SUBDOMAIN")
    ]


async def test_a_missing_class_is_reported_with_the_clusters_message(server: Server, demo: Kubectl) -> None:
    await server.admin.containers.create(
        namespace=server.namespace, container=pb.Container(name="web", image="a:1", priority_class="silver")
    )

    async def told() -> bool:
        found = await server.admin.containers.get(namespace=server.namespace, name="web")
        return "no PriorityClass with name silver was found" in found.message

    await poll_until(told)


async def test_a_class_set_by_others_is_reported_and_not_adopted(server: Server, demo: Kubectl) -> None:
    await server.admin.containers.create(
        namespace=server.namespace,
        container=pb.Container(
            name="web", image="a:1", priority_class="gold.shop", drift_policy=pb.DRIFT_POLICY_ADOPT
        ),
    )
    await named_on_the_cluster(server, "gold.shop")
    await make_class(demo, "bronze.shop", 10)
    patch = {"spec": {"template": {"spec": {"priorityClassName": "bronze.shop"}}}}
    await demo.ask("PATCH", f"{DEMO.format(server.namespace)}/web", patch, "merge-patch+json")

    async def reported() -> bool:
        found = await server.admin.containers.get(namespace=server.namespace, name="web")
        assert found.priority_class == "gold.shop"
        return any(
            each.type == "Drifted" and "priorityClassName" in each.message for each in found.conditions
        )

    await poll_until(reported)


async def test_a_class_needs_a_permission_but_a_change_of_other_fields_does_not(
    server: Server, demo: Kubectl
) -> None:
    holder = await server.user("nora", {server.namespace: "admin"})
    wanted = pb.Container(name="web", image="a:1", priority_class="gold.shop")
    with pytest.raises(PilothouseError) as refused:
        await holder.containers.create(namespace=server.namespace, container=wanted)
    assert refused.value.metadata["permission"] == "container.privileged"
    assert refused.value.metadata["field"] == "container.priority_class"
    await server.admin.containers.create(namespace=server.namespace, container=wanted)
    scaled = pb.Container(replicas=2)
    await holder.containers.update(
        namespace=server.namespace, name="web", container=scaled, update_mask=FieldMask(paths=["replicas"])
    )


async def test_an_import_and_an_apply_keep_the_class(server: Server, demo: Kubectl, tmp_path: Path) -> None:
    kubectl = await legacy(server)
    there = deployment("web", replicas=1, priorityClassName="gold.shop")
    await kubectl.ask("POST", DEPLOYMENTS, there)
    (imported,) = (await server.admin.containers.import_(namespace=server.legacy)).results
    assert imported.container.priority_class == "gold.shop"
    assert (await running(server, "web")).drift_policy == pb.DRIFT_POLICY_REPAIR

    file = tmp_path / "web.json"
    file.write_text(json.dumps(there | {"metadata": {"name": "web"}}))
    shell = await logged_in(server, tmp_path)
    await shell.succeed("apply", "-f", str(file), "--namespace", server.namespace)
    applied = await server.admin.containers.get(namespace=server.namespace, name="web")
    assert applied.priority_class == "gold.shop"
