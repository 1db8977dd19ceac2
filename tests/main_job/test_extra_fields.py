"""Fields that the API does not name, and the token choice: applied verbatim, shown, guarded, removed."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.api import openapi
from pilothouse_simulator.api.openapi import document
from pilothouse_simulator.values.resources import DEPLOYMENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS
from tests.harness import Server
from tests.waiting import poll_until

POD = "spec.template.spec"
FIELDS = {
    f"{POD}.dnsConfig": '{"options": [{"name": "ndots", "value": "2"}]}',
    f"{POD}.topologySpreadConstraints": '[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": '
    '"ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}]',
    f"{POD}.containers[name=main].workingDir": '"/srv"',
}


def web(**fields: Any) -> pb.Container:
    return pb.Container(name="web", image="nginx:1.27", **fields)


async def make_namespace(server: Server) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))


async def change(server: Server, container: pb.Container, *paths: str) -> pb.Container:
    return await server.admin.containers.update(
        namespace="demo", name="web", container=container, update_mask=FieldMask(paths=paths)
    )


async def running_pods(server: Server) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the template's spec and a pod's spec, once the container's rollout is finished."""
    assert server.cluster is not None
    store = server.cluster.store

    async def look() -> bool:
        row = await server.admin.containers.get(namespace="demo", name="web")
        conditions = {each.type: each.status for each in row.conditions}
        return row.observed_generation == row.generation and conditions.get("RolledOut") == 1

    await poll_until(look)
    deployment = store.get(DEPLOYMENTS, "demo", "web")
    pods = [each for each in store.list(PODS, "demo") if not each["metadata"].get("deletionTimestamp")]
    assert deployment is not None
    return deployment["spec"]["template"]["spec"], max(
        pods, key=lambda each: str(each["metadata"]["creationTimestamp"])
    )["spec"]


async def test_any_field_is_applied_verbatim(server: Server) -> None:
    await make_namespace(server)
    made = await server.admin.containers.create(namespace="demo", container=web(extra_fields=FIELDS))
    assert dict(made.extra_fields) == FIELDS
    template, pod = await running_pods(server)
    assert template["dnsConfig"] == {"options": [{"name": "ndots", "value": "2"}]}
    assert template["topologySpreadConstraints"][0]["topologyKey"] == "zone"
    assert template["containers"][0]["workingDir"] == pod["containers"][0]["workingDir"] == "/srv"
    row = await server.admin.containers.get(namespace="demo", name="web")
    assert {each.reason for each in row.conditions if each.type == "Drifted"} == {"InSync"}
    await change(server, pb.Container(), "extra_fields")
    template, _ = await running_pods(server)
    assert "topologySpreadConstraints" not in template
    assert "workingDir" not in template["containers"][0]
    # A container may mount a volume that is defined by these fields.
    files = pb.Container(
        extra_fields={f"{POD}.volumes[name=files].nfs": '{"server": "files.example", "path": "/a"}'},
        volume_mounts=[pb.VolumeMount(volume="files", mount_path="/files")],
    )
    await change(server, files, "extra_fields", "volume_mounts")
    template, _ = await running_pods(server)
    assert template["volumes"] == [{"name": "files", "nfs": {"server": "files.example", "path": "/a"}}]
    assert template["containers"][0]["volumeMounts"] == [{"name": "files", "mountPath": "/files"}]


async def test_a_field_with_effects_beyond_the_pod_needs_the_permission(server: Server) -> None:
    await make_namespace(server)
    developer = await server.user("dora", {"demo": "developer"})
    for path, text in (
        (f"{POD}.hostNetwork", "true"),
        (f"{POD}.containers[name=main].securityContext.procMount", '"Unmasked"'),
        (f"{POD}.volumes[name=x].csi", '{"driver": "secrets.example.com"}'),
        (f"{POD}.fieldOfALaterRelease", "true"),
        ("spec.fieldOfALaterRelease", "true"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await developer.containers.create(namespace="demo", container=web(extra_fields={path: text}))
        assert refused.value.code.name == "PERMISSION_DENIED", path
        assert refused.value.metadata["permission"] == "container.privileged", path
    # A misspelt field is refused for its name, not for a missing permission.
    for path, meant in (
        (f"{POD}.hostNetwrk", "hostNetwork"),
        (f"{POD}.containers[name=main].securityContext.procMont", "procMount"),
    ):
        with pytest.raises(PilothouseError, match=f'did you mean "{meant}"') as refused:
            await developer.containers.create(namespace="demo", container=web(extra_fields={path: "true"}))
        assert refused.value.metadata["field"] == f'container.extra_fields["{path}"]'
    await developer.containers.create(namespace="demo", container=web(extra_fields=FIELDS))


async def test_a_schema_error_is_refused_before_anything_is_sent(server: Server) -> None:
    await make_namespace(server)
    for path, text, words in (
        (f"{POD}.hostAliases", '{"ip": "10.0.0.1"}', "must be a list, not an object"),
        (f"{POD}.affinity", '{"podAfinity": {}}', 'did you mean "podAffinity"'),
    ):
        with pytest.raises(PilothouseError, match=words) as refused:
            await server.admin.containers.create(namespace="demo", container=web(extra_fields={path: text}))
        assert refused.value.metadata["field"] == f'container.extra_fields["{path}"]'
    await server.admin.containers.create(namespace="demo", container=web())
    with pytest.raises(PilothouseError, match="must be a list"):
        await change(server, pb.Container(extra_fields={f"{POD}.hostAliases": "1"}), "extra_fields")


async def test_selector_expressions_reach_the_workload_and_cannot_change(server: Server) -> None:
    await make_namespace(server)
    path = "spec.selector.matchExpressions"
    wanted = web(extra_fields={path: '[{"key": "app", "operator": "Exists"}]'}, pod_labels={"app": "web"})
    await server.admin.containers.create(namespace=server.namespace, container=wanted)
    await running_pods(server)
    assert server.cluster is not None
    deployment = server.cluster.store.get(DEPLOYMENTS, server.namespace, "web")
    assert deployment is not None
    assert deployment["spec"]["selector"]["matchExpressions"] == [{"key": "app", "operator": "Exists"}]
    assert list(deployment["spec"]["selector"]["matchLabels"]) == ["pilothouse.dev/container-uid"]
    with pytest.raises(PilothouseError, match="cannot change") as refused:
        await change(server, pb.Container(), "extra_fields")
    assert refused.value.metadata["field"] == f'container.extra_fields["{path}"]'


async def test_a_dry_run_reads_the_schemas_of_the_cluster(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_namespace(server)
    assert server.cluster is not None

    async def is_there() -> bool:
        assert server.cluster is not None
        return server.cluster.store.get(NAMESPACES, None, "demo") is not None

    await poll_until(is_there)
    # The vendor's own enum, which no table of the server has.
    vendors = document(server.cluster.store.types, "apis/apps/v1")
    assert vendors is not None
    pod = next(each for name, each in vendors["components"]["schemas"].items() if name.endswith(".PodSpec"))
    pod["properties"]["subdomain"] = {"type": "string", "enum": ["fast", "safe"]}
    monkeypatch.setattr(openapi, "document", lambda _types, _base: vendors)
    wrong = web(extra_fields={f"{POD}.subdomain": '"slow"'})
    with pytest.raises(PilothouseError, match="must be one of fast, safe") as refused:
        await server.admin.containers.create(namespace="demo", container=wrong, validate_only=True)
    assert refused.value.metadata["field"] == f'container.extra_fields["{POD}.subdomain"]'


async def test_an_account_named_only_by_a_container_mounts_no_token(server: Server) -> None:
    await make_namespace(server)
    made = await server.admin.containers.create(namespace="demo", container=web(service_account="robot"))
    assert not made.HasField("automount_service_account_token")
    _, pod = await running_pods(server)
    assert not any("projected" in volume for volume in pod.get("volumes") or ())
    assert server.cluster is not None
    account = server.cluster.store.get(SERVICE_ACCOUNTS, "demo", "robot")
    assert account is not None
    assert account["automountServiceAccountToken"] is False
    changed = await change(
        server, pb.Container(automount_service_account_token=True), "automount_service_account_token"
    )
    assert changed.automount_service_account_token
    template, pod = await running_pods(server)
    assert template["automountServiceAccountToken"] is True
    assert any("projected" in volume for volume in pod.get("volumes") or ())
