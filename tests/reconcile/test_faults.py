"""The reconciler survives outages, refusals, changes by others and dropped watches."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import Container, ContainerSpec, Port
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES, SERVICE_ACCOUNTS, SERVICES
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from pilothouse_server.store.rendered import Rendered
from pilothouse_server.values.resources import NamespaceRef
from tests.kubernetes.containers import container as model
from tests.reconcile.environment import Environment
from tests.waiting import poll_until

BEHAVIOR = "simulate.pilothouse.dev/behavior"


async def cluster_row(here: Environment) -> dict[str, Any]:
    (row,) = await here.rows("SELECT status, reason, message, version, stale_since FROM clusters")
    return row


async def test_troubled_pods_are_shown_with_the_reason(here: Environment) -> None:
    troubles = {
        "crash-loop": ("crash_loop_back_off", {"CrashLoopBackOff"}),
        "oom": ("crash_loop_back_off", {"CrashLoopBackOff"}),
        "image-pull-error": ("pending", {"ErrImagePull", "ImagePullBackOff"}),
        "unschedulable": ("pending", {"Unschedulable"}),
        "readiness-failing": ("pending", {"ContainersNotReady"}),
    }

    async def shown(behavior: str) -> Container:
        status, reasons = troubles[behavior]
        return await here.until(
            lambda row: (
                row.observed.status == status
                and row.observed.reason in reasons
                # The Deployment reports its ready pods a moment after a pod has changed.
                and row.observed.ready_replicas == 0
            ),
            behavior,
        )

    async with here.reconciling():
        await here.namespace()
        for behavior in troubles:
            await here.create(behavior, annotations={BEHAVIOR: behavior})
        for row in await asyncio.gather(*map(shown, troubles)):
            assert row.observed.message
            history = "SELECT reason FROM container_status_history WHERE container_id = $1"
            told = {entry["reason"] for entry in await here.rows(history, row.id)}
            # `ContainersNotReady` is an ordinary step on the way to ready; any other reason gets a line of the history.
            assert row.name == "readiness-failing" or told & troubles[row.name][1]


async def test_alternating_reasons_are_one_line_of_the_history(here: Environment) -> None:
    # Each of the two reasons lasts at least two seconds, so that a slow machine sees it.
    for kubelet in here.cluster.kubelets.by_node.values():
        kubelet.timings = replace(kubelet.timings, show_back_off=2.0 * here.cluster.clock.speed)
    async with here.reconciling():
        await here.namespace()
        reasons, seen = {"ErrImagePull", "ImagePullBackOff"}, set[str]()

        def render(container: Container) -> Rendered:
            """Records the reason of each written change: reading the row could miss one."""
            seen.add(container.observed.reason)
            return Rendered(b"")

        async def both() -> bool:
            return reasons <= seen

        here.store.renderers["container"] = render
        row = await here.create(annotations={BEHAVIOR: "image-pull-error"})
        await poll_until(both, what="both reasons")
    history = await here.rows("SELECT reason FROM container_status_history WHERE container_id = $1", row.id)
    assert sum(entry["reason"] in reasons for entry in history) == 1


async def test_an_outage_is_shown_and_caught_up_with(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        assert (await cluster_row(here))["status"] == "healthy"
        here.cluster.faults.refuse_connections = True
        here.cluster.faults.drop_watches()
        await here.until(lambda row: row.observed.stale_since is not None)
        away = await cluster_row(here)
        assert away["status"] == "unreachable"
        assert away["stale_since"] is not None
        assert "cannot be" in away["message"]
        # Requests during the outage are accepted, and executed when the cluster is back.
        await here.create("late")
        await here.move(stop_container)
        late = await here.until(lambda row: bool(row.observed.conditions), "late")
        assert (late.observed.status, late.observed.reason) == ("pending", "Unreachable")
        here.cluster.faults.clear()
        await here.running("late")
        row = await here.until(
            lambda row: row.observed.stale_since is None and not row.observed.ready_replicas
        )
        assert row.observed.status == "stopped"
        await poll_until(lambda: cluster_row(here), lambda cluster: cluster["status"] == "healthy")


@pytest.mark.full
async def test_containers_run_on_a_cluster_that_often_fails(here: Environment) -> None:
    here.cluster.faults.error_rate = 0.3
    here.cluster.faults.error_code = 500
    async with here.reconciling():
        await here.namespace()
        for number in range(2):
            await here.create(f"web-{number}")
        for number in range(2):
            assert (await here.running(f"web-{number}")).observed.ready_replicas == 1


async def test_throttling_is_obeyed_and_survived(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        here.cluster.faults.fail_next(6, 429)
        await here.create()
        assert (await here.running()).observed.reason == ""


async def test_dropped_watches_lose_nothing(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        for number in range(8):
            await here.create(f"web-{number}")
            here.cluster.faults.drop_watches()
        for number in range(8):
            assert (await here.running(f"web-{number}")).observed.ready_replicas == 1


async def test_a_name_conflict_is_refused_until_the_other_object_is_deleted(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await poll_until(lambda: client.find(NAMESPACES, None, "shop"), lambda found: found is not None)
        foreign = manifests.workload(model(uid="0b2c3d4e-0000-4000-8000-00000000000f"))
        del foreign["metadata"]["labels"]
        taken = await client.apply(DEPLOYMENTS, foreign)
        await here.create()
        row = await here.until(lambda row: row.observed.status == "failed")
        assert row.observed.reason == "NameTaken"
        assert "exists and does not belong to this container" in row.observed.message
        assert not row.reconciling
        await client.delete(DEPLOYMENTS, "shop", "web", uid=taken.metadata.uid)
        # The status may be written before the worker's result ends the refusal.
        await here.until(lambda row: row.observed.status == "running" and not row.observed.reason)


async def test_a_refusal_shows_the_clusters_message_and_the_old_pods_keep_serving(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create(ports=(Port(container_port=80, service_name="web", service_port=80),))
        await here.running()
        taken = Port(
            container_port=80, service_name="web", service_port=80, node_port=30080, service_type="NodePort"
        )
        client = await here.connect("local")
        blocker = manifests.services(
            model(
                uid="0b2c3d4e-0000-4000-8000-00000000000e",
                ports=(
                    Port(
                        container_port=1,
                        service_name="blocker",
                        service_port=1,
                        node_port=30080,
                        service_type="NodePort",
                    ),
                ),
            )
        )[0]
        del blocker["metadata"]["labels"]
        await client.apply(SERVICES, blocker)
        await here.update(ports=(taken,))
        row = await here.until(
            lambda row: any(c.type == "Applied" and c.status == "False" for c in row.observed.conditions)
        )
        applied = next(c for c in row.observed.conditions if c.type == "Applied")
        assert applied.reason == "Invalid"
        assert "already allocated" in applied.message
        assert row.observed.status == "running"
        assert row.observed_generation == row.generation
        await here.update(ports=(Port(container_port=80, service_name="web", service_port=81),))
        await here.until(
            lambda row: any(c.type == "Applied" and c.status == "True" for c in row.observed.conditions)
        )


async def test_orphans_are_deleted_only_in_our_own_namespaces(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        home = await poll_until(
            lambda: client.find(NAMESPACES, None, "shop"), lambda found: found is not None
        )
        assert home is not None
        for namespace in ("shop", "other"):
            if namespace == "other":
                manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
                await here.apply_as("other", "/api/v1/namespaces/other", manifest)
            orphan = model(
                namespace_ref=NamespaceRef(
                    name="shop",
                    uid=home.metadata.label(NAMESPACE_UID),
                    cluster_name="local",
                    kubernetes_name=namespace,
                ),
                ports=(Port(container_port=1, service_name="orphan", service_port=1),),
            )
            await client.apply(DEPLOYMENTS, manifests.workload(orphan))
            await client.apply(SERVICES, manifests.services(orphan)[0])
        await poll_until(lambda: client.find(DEPLOYMENTS, "shop", "web"), lambda found: found is None)
        await poll_until(lambda: client.find(SERVICES, "shop", "orphan"), lambda found: found is None)
        assert await client.find(DEPLOYMENTS, "other", "web") is not None
        assert await client.find(SERVICES, "other", "orphan") is not None


async def test_a_service_account_is_deleted_when_no_container_names_it(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(spec=ContainerSpec(service_account="old"))
        await here.create("other", spec=ContainerSpec(service_account="kept"))
        await here.running()
        theirs = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "theirs", "namespace": "shop"},
        }
        await client.apply(SERVICE_ACCOUNTS, theirs)
        await here.update(spec=ContainerSpec(service_account="new"))
        await poll_until(lambda: client.find(SERVICE_ACCOUNTS, "shop", "old"), lambda found: found is None)
        await here.running()
        there = {account.metadata.name for account in (await client.list(SERVICE_ACCOUNTS, "shop")).items}
        assert there == {"default", "kept", "new", "theirs"}


async def test_usage_is_collected(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        row = await here.create(replicas=2)
        await here.running()

        async def samples() -> list[Any]:
            return [sample for batch in here.samples.batches for sample in batch if sample.pods == 2]

        found = await poll_until(samples, lambda found: len(found) >= 2)
        assert {sample.container_id for sample in found} == {row.id}
        assert all(sample.memory_bytes_used > 0 for sample in found)
