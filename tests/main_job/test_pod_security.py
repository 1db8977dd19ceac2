"""A namespace under Pod Security `restricted`: accepted and refused containers, and how a refused one is corrected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.admission.pod_security import ENFORCE, WARN
from pilothouse_simulator.values import resources
from pilothouse_simulator.values.json_copy import copy_json
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      initContainers:
      - name: prepare
        image: busybox:1.37
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      containers:
      - name: main
        image: nginx:1.27
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
          seccompProfile: {type: Localhost, localhostProfile: profiles/web.json}
"""


def rights(**fields: Any) -> pb.SecurityContext:
    return pb.SecurityContext(allow_privilege_escalation=False, capabilities_drop=["ALL"], **fields)


def profile(kind: str, path: str = "") -> pb.SeccompProfile:
    return pb.SeccompProfile(type=kind, localhost_profile=path)


def good(**fields: Any) -> pb.Container:
    """Returns a container that `restricted` accepts, including its init container and its volumes."""
    return pb.Container(
        name="web",
        image="nginx:1.27",
        security_context=rights(),
        pod_security_context=pb.PodSecurityContext(
            run_as_non_root=True, run_as_user=1000, seccomp_profile=profile("RuntimeDefault")
        ),
        init_containers=[
            pb.InitContainer(
                name="prepare",
                image="busybox:1.37",
                security_context=rights(run_as_non_root=True, seccomp_profile=profile("RuntimeDefault")),
            )
        ],
        empty_dirs=[pb.EmptyDir(name="cache")],
        volume_mounts=[pb.VolumeMount(volume="cache", mount_path="/cache")],
        **fields,
    )


async def restricted(server: Server) -> None:
    """Makes the test's namespace; its own labels set the level."""
    labels = {ENFORCE: "restricted", WARN: "restricted"}
    await server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(name=server.namespace, labels=labels)
    )


async def shown(server: Server, holds: Callable[[pb.Container], bool]) -> pb.Container:
    async def look() -> pb.Container | None:
        found = await server.admin.containers.get(namespace=server.namespace, name="web")
        return found if holds(found) else None

    found = await poll_until(look, seconds=20.0)
    assert found is not None
    return found


def running(container: pb.Container) -> bool:
    return container.status == pb.CONTAINER_STATUS_RUNNING and not container.reason


def condition(container: pb.Container, kind: str) -> Any:
    return next((item for item in container.conditions if item.type == kind), None)


def pod_spec(server: Server) -> Any:
    """Returns the spec of the pods as the cluster has it."""
    assert server.cluster is not None
    deployment = server.cluster.store.get(resources.DEPLOYMENTS, server.namespace, "web")
    assert deployment is not None
    return deployment["spec"]["template"]["spec"]


async def test_a_container_without_privileges_is_accepted_and_runs(server: Server) -> None:
    await restricted(server)
    await server.admin.containers.create(namespace=server.namespace, container=good())
    found = await shown(server, running)
    assert condition(found, "ReplicaFailure") is None
    assert found.security_context == good().security_context
    assert found.pod_security_context == good().pod_security_context
    assert found.init_containers[0].security_context == good().init_containers[0].security_context
    spec = pod_spec(server)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["initContainers"][0]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "seccompProfile" not in spec["containers"][0]["securityContext"]


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        (
            {"security_context": pb.SecurityContext(allow_privilege_escalation=False)},
            'unrestricted capabilities (container "main" must set securityContext.capabilities.drop=["ALL"])',
        ),
        (
            {"pod_security_context": pb.PodSecurityContext(run_as_non_root=True)},
            'seccompProfile (pod or container "main" must set securityContext.seccompProfile.type to '
            '"RuntimeDefault" or "Localhost")',
        ),
        (
            {"security_context": rights(seccomp_profile=profile("Unconfined"))},
            'seccompProfile (container "main" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
    ],
    ids=["capabilities", "no profile", "unconfined"],
)
async def test_a_refused_container_shows_the_clusters_message_and_recovers(
    server: Server, lacking: dict[str, Any], words: str
) -> None:
    await restricted(server)
    bad = good()
    for field, value in lacking.items():
        getattr(bad, field).CopyFrom(value)
    await server.admin.containers.create(namespace=server.namespace, container=bad)
    # The apply and the watch update the container independently, in either order.
    found = await shown(
        server, lambda seen: seen.reason == "FailedCreate" and condition(seen, "Applied") is not None
    )
    assert found.status == pb.CONTAINER_STATUS_FAILED
    assert found.message.endswith(f'is forbidden: violates PodSecurity "restricted:latest": {words}')
    failure = condition(found, "ReplicaFailure")
    assert (failure.status, failure.message) == (resource_pb2.CONDITION_STATUS_TRUE, found.message)
    # The cluster accepts the Deployment, but refuses its pods.
    assert condition(found, "Applied").status == resource_pb2.CONDITION_STATUS_TRUE
    await server.admin.containers.update(
        namespace=server.namespace, name="web", container=good(), update_mask=FieldMask(paths=list(lacking))
    )
    # The failure is that of the old ReplicaSet, which stays until the new ReplicaSet has its pod.
    found = await shown(server, lambda seen: running(seen) and condition(seen, "ReplicaFailure") is None)
    assert (found.ready_replicas, found.message) == (1, "")


async def test_contradictory_profiles_and_rights_are_refused_by_field(server: Server) -> None:
    await restricted(server)

    async def refused(bad: pb.Container) -> set[str]:
        with pytest.raises(PilothouseError) as refused:
            await server.admin.containers.create(namespace=server.namespace, container=bad)
        assert refused.value.code.name == "INVALID_ARGUMENT"
        return {violation.field for violation in refused.value.violations}

    for given, field in (
        (profile(""), "security_context.seccomp_profile.type"),
        (profile("Strict"), "security_context.seccomp_profile.type"),
        (profile("Localhost"), "security_context.seccomp_profile.localhost_profile"),
        (profile("RuntimeDefault", "a.json"), "security_context.seccomp_profile.localhost_profile"),
        (profile("Localhost", "/a.json"), "security_context.seccomp_profile.localhost_profile"),
        (profile("Localhost", "../a.json"), "security_context.seccomp_profile.localhost_profile"),
    ):
        own, of_pod, of_init = good(), good(), good()
        own.security_context.seccomp_profile.CopyFrom(given)
        of_pod.pod_security_context.seccomp_profile.CopyFrom(given)
        of_init.init_containers[0].security_context.seccomp_profile.CopyFrom(given)
        for bad, place in ((own, ""), (of_pod, "pod_"), (of_init, "init_containers[0].")):
            assert await refused(bad) == {f"container.{place}{field}"}
    for contradicting in (rights(privileged=True), rights(capabilities_add=["CAP_SYS_ADMIN"])):
        bad = good()
        bad.security_context.CopyFrom(contradicting)
        bad.init_containers[0].security_context.CopyFrom(contradicting)
        assert await refused(bad) == {
            "container.security_context.allow_privilege_escalation",
            "container.init_containers[0].security_context.allow_privilege_escalation",
        }


@pytest.mark.full
async def test_a_manifest_is_applied_with_all_its_profiles(server: Server, tmp_path: Path) -> None:
    await restricted(server)
    shell = await logged_in(server, tmp_path)
    await shell.succeed(
        "apply", "-f", "-", "-n", server.namespace, "--wait", "--stable-for", "0.3", given=MANIFEST
    )
    found = await shown(server, running)
    assert found.security_context.seccomp_profile == profile("Localhost", "profiles/web.json")
    assert found.pod_security_context.seccomp_profile == profile("RuntimeDefault")
    given = {"type": "Localhost", "localhostProfile": "profiles/web.json"}
    assert pod_spec(server)["containers"][0]["securityContext"]["seccompProfile"] == given
    again = await shell.succeed("apply", "-f", "-", "-n", server.namespace, given=MANIFEST)
    assert "container/web unchanged" in again
    # A field that the manifest no longer has is removed.
    lines = [line for line in MANIFEST.splitlines() if "Localhost" not in line]
    await shell.succeed(
        "apply", "-f", "-", "-n", server.namespace, "--wait", "--stable-for", "0.3", given="\n".join(lines)
    )
    assert "seccompProfile" not in pod_spec(server)["containers"][0]["securityContext"]


async def test_a_profile_removed_by_others_is_restored(server: Server) -> None:
    await restricted(server)
    assert server.cluster is not None
    store = server.cluster.store
    await server.admin.containers.create(namespace=server.namespace, container=good())
    await shown(server, running)
    theirs = copy_json(store.get(resources.DEPLOYMENTS, server.namespace, "web"))
    assert theirs is not None
    del theirs["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    store.update(resources.DEPLOYMENTS, theirs, manager="them")

    async def put_back() -> bool:
        return bool(pod_spec(server)["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"})

    await poll_until(put_back, seconds=20.0)
    await shown(server, running)
