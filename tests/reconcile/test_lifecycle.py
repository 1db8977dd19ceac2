"""A container's life from its row to the cluster and back, by the rules that services call."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilothouse_server.containers.model import ContainerSpec, Port
from pilothouse_server.containers.operations import pause as pause_container
from pilothouse_server.containers.operations import restart as restart_container
from pilothouse_server.containers.operations import resume as resume_container
from pilothouse_server.containers.operations import start as start_container
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.containers.repository import ContainerChange, write_change
from pilothouse_server.errors import Aborted
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS, SERVICES
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from tests.kubernetes.containers import replicas_of
from tests.reconcile.environment import Environment
from tests.waiting import poll_until


async def test_a_container_runs_and_is_deleted(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create(
            replicas=2,
            ports=(Port(container_port=80, service_name="web", service_port=80),),
            spec=ContainerSpec(service_account="web-account"),
        )
        row = await here.running()
        assert row.observed.ready_replicas == 2
        assert row.observed.deployment_name == "web"
        assert row.observed.pod_name.startswith(row.observed.replica_set_name)
        assert row.observed.pod_ip
        assert row.observed.started_at is not None
        assert {c.type: c.status for c in row.observed.conditions}["Applied"] == "True"
        pods = await here.rows("SELECT pod_name, ready, image_id FROM container_pods")
        assert len(pods) == 2
        assert all(pod["ready"] and pod["image_id"] for pod in pods)
        history = await here.rows(
            "SELECT previous_status, current_status, triggered_by FROM container_status_history ORDER BY id"
        )
        assert [(h["previous_status"], h["current_status"]) for h in history][-1] == ("pending", "running")
        assert history[-1]["triggered_by"] == "kubernetes"

        client = await here.connect("local")
        assert await client.find(SERVICES, "shop", "web") is not None
        assert await client.find(SERVICE_ACCOUNTS, "shop", "web-account") is not None
        await here.delete()
        await poll_until(here.seen, lambda seen: seen is None)
        assert await client.find(DEPLOYMENTS, "shop", "web") is None
        assert await client.find(SERVICES, "shop", "web") is None
        assert await client.find(SERVICE_ACCOUNTS, "shop", "web-account") is None
        assert (await client.list(PODS, "shop")).items == ()
    events = await here.rows(
        "SELECT kind, status, status_before FROM events WHERE resource_type = 'container' ORDER BY revision"
    )
    assert (events[0]["kind"], events[-1]["kind"]) == ("added", "deleted")
    assert "running" in [event["status"] for event in events]
    assert await here.rows("SELECT FROM reconcile_work WHERE resource_type = 'container'") == []


async def test_a_scaled_up_container_is_not_running_before_all_replicas_are_ready(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        asked = await here.update(replicas=3)
        assert (asked.observed.status, asked.observed.message) == ("pending", "1 of 3 replicas are ready")
        await here.until(lambda row: row.observed.status == "running" and row.observed.ready_replicas == 3)
    history = await here.rows("SELECT current_status AS status FROM container_status_history ORDER BY id")
    # It was not shown as running in between.
    assert [line["status"] for line in history].count("running") == 2, history


async def test_stop_and_start_remember_the_replicas(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(replicas=3)
        await here.running()
        await here.move(stop_container)
        row = await here.until(lambda row: not (row.reconciling or row.observed.ready_replicas))
        assert row.observed.status == "stopped"
        assert await replicas_of(client) == 0
        await here.move(start_container)
        assert (await here.running()).observed.ready_replicas == 3


async def test_pause_suspends_and_resume_runs_the_container_again(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        await here.move(lambda tx, ns, name: pause_container(tx, ns, name, "suspend"))
        row = await here.until(lambda row: not (row.reconciling or row.observed.ready_replicas))
        assert row.observed.status == "paused"
        assert "Suspended" in {condition.type for condition in row.observed.conditions}
        # A scale-up by another client is reverted: the container stays suspended.
        await client.set_scale(DEPLOYMENTS, "shop", "web", 2)
        await poll_until(lambda: replicas_of(client), lambda replicas: replicas == 0)
        await here.move(resume_container)
        await here.running()


async def test_a_held_rollout_keeps_the_old_pods_until_resume(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        before = await here.running()
        await here.move(lambda tx, ns, name: pause_container(tx, ns, name, "hold_rollout"))
        await here.update(image="nginx:1.28")
        row = await here.until(
            lambda row: not row.reconciling and "RolloutHeld" in {c.type for c in row.observed.conditions}
        )
        assert row.observed.pod_name == before.observed.pod_name
        assert row.observed.status == "running"
        await here.move(resume_container)
        row = await here.until(
            lambda row: row.observed.status == "running" and row.observed.pod_name != before.observed.pod_name
        )
        deployment = await client.read(DEPLOYMENTS, "shop", "web")
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.28"
        assert "paused" not in deployment["spec"]


async def test_restart_replaces_the_pods(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create()
        before = await here.running()
        await here.move(restart_container)
        row = await here.until(
            lambda row: row.observed.status == "running" and row.observed.pod_name != before.observed.pod_name
        )
        assert row.observed.restart_count == 0


async def test_a_container_that_never_ran_may_be_created_stopped(here: Environment) -> None:
    """No pod may start on the way: a nightly job must not run by day."""
    client = await here.connect("local")
    await here.namespace()
    await here.create()
    await here.move(stop_container)
    async with here.reconciling():
        await here.until(lambda row: row.observed.status == "stopped" and not row.reconciling)
        assert (await client.list(PODS, "shop")).items == ()
    assert await replicas_of(client) == 0


async def test_services_follow_the_ports(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(ports=(Port(container_port=80, service_name="old", service_port=80),))
        await here.running()
        await here.update(ports=(Port(container_port=80, service_name="new", service_port=8080),))
        await poll_until(lambda: client.find(SERVICES, "shop", "old"), lambda found: found is None)
        service = await client.read(SERVICES, "shop", "new")
        assert [port["port"] for port in service["spec"]["ports"]] == [8080]


async def test_scaling_by_others_is_not_reverted_under_the_report_policy(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(drift_policy="report")
        await here.running()
        await client.set_scale(DEPLOYMENTS, "shop", "web", 4)
        await here.until(lambda row: row.observed.ready_replicas == 4)
        # An update without `replicas` leaves their number; an update with `replicas` sets it.
        await here.update(annotations={"note": "a"})
        await here.until(lambda row: not row.reconciling and row.observed.ready_replicas == 4)
        assert await replicas_of(client) == 4
        await here.update(replicas=2)
        await poll_until(lambda: replicas_of(client), lambda replicas: replicas == 2)


async def test_a_namespace_is_deleted_after_its_contents(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        made = await here.namespace()
        await here.create()
        await here.running()
        found = await client.get(NAMESPACES, None, "shop")
        assert found.metadata.label(NAMESPACE_UID) == made.uid
        await here.delete_namespace()
        await poll_until(here.seen_namespace, lambda seen: seen is None)
        assert await client.find(NAMESPACES, None, "shop") is None
        # The name is free again for another namespace.
        again = await here.namespace()
        assert again.uid != made.uid
        await here.create()
        await here.running()
    kinds = await here.rows("SELECT kind FROM events WHERE resource_type = 'namespace' ORDER BY revision")
    assert "deleted" in [row["kind"] for row in kinds]


async def test_a_change_based_on_an_outdated_row_is_refused(here: Environment) -> None:
    await here.namespace()
    stored = await here.create()
    await here.change(lambda tx: stop_container(tx, "shop", "web"))
    change = ContainerChange(stored=stored, wanted=stored, moment=datetime.now(UTC))
    with pytest.raises(Aborted):
        await here.change(lambda tx: write_change(tx, change))
