"""What must be survived: outages, refusals, foreign hands, dropped watches, two servers at once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pilothouse_server.cluster import manifests
from pilothouse_server.cluster.errors import NotFound
from pilothouse_server.cluster.objects import DEPLOYMENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS, SERVICES
from pilothouse_server.containers import operations as containers
from pilothouse_server.containers.model import ContainerSpec, Port
from pilothouse_server.reconcile.repository.work import Work
from pilothouse_server.reconcile.worker import Worker
from tests.cluster.containers import container as model
from tests.cluster.waiting import eventually
from tests.reconcile.world import QUICK, World

BEHAVIOR = "simulate.pilothouse.dev/behavior"


async def cluster_row(here: World) -> dict[str, Any]:
    (row,) = await here.rows("SELECT status, reason, message, version, stale_since FROM clusters")
    return row


@pytest.mark.parametrize(
    ("behavior", "status", "reason"),
    [
        ("crash-loop", "crash_loop_back_off", "CrashLoopBackOff"),
        ("oom", "crash_loop_back_off", "CrashLoopBackOff"),
        ("image-pull-error", "pending", ("ErrImagePull", "ImagePullBackOff")),
        ("unschedulable", "pending", "Unschedulable"),
        ("readiness-failing", "pending", "ContainersNotReady"),
    ],
)
async def test_pods_in_trouble_are_shown_with_the_reason(
    here: World, behavior: str, status: str, reason: str | tuple[str, ...]
) -> None:
    reasons = (reason,) if isinstance(reason, str) else reason
    async with here.reconciling():
        await here.namespace()
        await here.create(annotations={BEHAVIOR: behavior})
        row = await here.until(lambda row: row.observed.status == status and row.observed.reason in reasons)
        assert row.observed.message
        assert row.observed.ready_replicas == 0
        # Not ready yet is the ordinary way to ready; any other reason is worth a line of the history.
        if reason != "ContainersNotReady":
            told = await here.rows("SELECT reason FROM container_status_history")
            assert {entry["reason"] for entry in told} & set(reasons)


async def test_reasons_that_take_turns_are_one_line_of_the_history(here: World) -> None:
    async with here.reconciling():
        await here.namespace()
        row = await here.create(annotations={BEHAVIOR: "image-pull-error"})
        for reason in ("ErrImagePull", "ImagePullBackOff"):
            await here.until(lambda row, reason=reason: row.observed.reason == reason)  # type: ignore[misc]
    history = await here.rows("SELECT reason FROM container_status_history WHERE container_id = $1", row.id)
    assert sum(entry["reason"] in ("ErrImagePull", "ImagePullBackOff") for entry in history) == 1


async def test_an_outage_shows_and_is_caught_up_with(here: World) -> None:
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
        assert "cannot be reached" in away["message"]
        # Asked for meanwhile: accepted, and done as soon as it can be.
        await here.create("late")
        await here.move(containers.stop)
        late = await here.until(lambda row: bool(row.observed.conditions), "late")
        assert (late.observed.status, late.observed.reason) == ("pending", "Unreachable")
        here.cluster.faults.clear()
        await here.running("late")
        row = await here.until(
            lambda row: row.observed.stale_since is None and not row.observed.ready_replicas
        )
        assert row.observed.status == "stopped"
        assert (await cluster_row(here))["status"] == "healthy"


async def test_a_cluster_that_fails_half_the_time_gets_there(here: World) -> None:
    here.cluster.faults.error_rate = 0.3
    here.cluster.faults.error_code = 500
    async with here.reconciling():
        await here.namespace()
        for number in range(2):
            await here.create(f"web-{number}")
        for number in range(2):
            assert (await here.running(f"web-{number}")).observed.ready_replicas == 1


async def test_throttling_is_obeyed_and_survived(here: World) -> None:
    async with here.reconciling():
        await here.namespace()
        here.cluster.faults.fail_next(6, 429)
        await here.create()
        assert (await here.running()).observed.reason == ""


async def test_dropped_watches_lose_nothing(here: World) -> None:
    async with here.reconciling():
        await here.namespace()
        for number in range(8):
            await here.create(f"web-{number}")
            here.cluster.faults.drop_watches()
        for number in range(8):
            assert (await here.running(f"web-{number}")).observed.ready_replicas == 1


async def test_a_name_that_is_taken_is_refused_and_free_again_when_it_goes(here: World) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await eventually(lambda: client.find(NAMESPACES, None, "shop"), lambda found: found is not None)
        foreign = manifests.deployment(model(uid="0b2c3d4e-0000-4000-8000-00000000000f"))
        del foreign["metadata"]["labels"]
        taken = await client.apply(DEPLOYMENTS, foreign)
        await here.create()
        row = await here.until(lambda row: row.observed.status == "failed")
        assert row.observed.reason == "NameTaken"
        assert "exists and does not belong to this container" in row.observed.message
        assert not row.reconciling
        await client.delete(DEPLOYMENTS, "shop", "web", uid=taken.metadata.uid)
        row = await here.running()
        assert row.observed.reason == ""


async def test_a_refusal_is_told_in_the_clusters_words_and_the_old_pods_serve_on(here: World) -> None:
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


async def test_a_deployment_deleted_by_others_comes_back(here: World) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        there = await client.get(DEPLOYMENTS, "shop", "web")
        await client.delete(DEPLOYMENTS, "shop", "web", uid=there.metadata.uid)
        again = await eventually(
            lambda: client.find(DEPLOYMENTS, "shop", "web"),
            lambda found: found is not None and found.metadata.uid != there.metadata.uid,
        )
        assert again is not None
        await here.running()


async def test_a_service_that_others_delete_or_change_comes_back(here: World) -> None:
    client = await here.connect("local")
    ports = (Port(container_port=80, service_name="web", service_port=80),)

    async def changed(uid: str) -> None:
        await eventually(
            lambda: client.find(SERVICES, "shop", "web"),
            lambda found: found is not None and found.metadata.uid != uid,
        )

    async with here.reconciling():
        await here.namespace()
        await here.create(ports=ports)
        await here.running()
        first = await client.get(SERVICES, "shop", "web")
        await client.delete(SERVICES, "shop", "web", uid=first.metadata.uid, propagation="Background")
        await changed(first.metadata.uid)
        there = await client.read(SERVICES, "shop", "web")
        theirs = {"spec": {"selector": {"app": "theirs"}}}
        await here.apply_as("meddler", "/api/v1/namespaces/shop/services/web", _service(theirs))
        await eventually(
            lambda: client.read(SERVICES, "shop", "web"),
            lambda found: found["spec"]["selector"] == there["spec"]["selector"],
        )
    # While nobody watches.
    second = await client.get(SERVICES, "shop", "web")
    await client.delete(SERVICES, "shop", "web", uid=second.metadata.uid, propagation="Background")
    async with here.reconciling():
        await changed(second.metadata.uid)


def _service(fields: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, **fields}


async def test_a_namespace_deleted_by_others_comes_back_with_its_containers(here: World) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        there = await client.get(NAMESPACES, None, "shop")
        await client.delete(NAMESPACES, None, "shop", uid=there.metadata.uid)
        await eventually(
            lambda: client.find(NAMESPACES, None, "shop"),
            lambda found: found is not None and found.metadata.uid != there.metadata.uid,
        )

        async def pods() -> int:
            try:
                return sum(
                    any(status.ready for status in pod.status.container_statuses)
                    for pod in (await client.list(PODS, "shop")).items
                )
            except NotFound:
                return 0

        await eventually(pods, lambda ready: ready == 1)
        assert (await here.running()).observed.ready_replicas == 1


@pytest.mark.parametrize(("policy", "image"), [("repair", "nginx:1.27"), ("report", "nginx:evil")])
async def test_foreign_hands_on_our_fields(here: World, policy: Any, image: str) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(drift_policy=policy)
        await here.running()
        manifest = await client.read(DEPLOYMENTS, "shop", "web")
        name = manifest["spec"]["template"]["spec"]["containers"][0]["name"]
        await here.meddle(
            {"spec": {"template": {"spec": {"containers": [{"name": name, "image": "nginx:evil"}]}}}}
        )
        row = await here.until(
            lambda row: any(c.type == "Drifted" and c.reason != "InSync" for c in row.observed.conditions)
        )
        drifted = next(c for c in row.observed.conditions if c.type == "Drifted")
        assert "image" in drifted.message
        assert "'meddler'" in drifted.message
        assert drifted.status == ("False" if policy == "repair" else "True")
        manifest = await client.read(DEPLOYMENTS, "shop", "web")
        assert manifest["spec"]["template"]["spec"]["containers"][0]["image"] == image


async def test_a_foreign_namespace_is_taken_over_only_when_asked(here: World) -> None:
    client = await here.connect("local")
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "theirs", "labels": {"team": "b"}},
    }
    await here.apply_as("team-b", "/api/v1/namespaces/theirs", manifest)
    async with here.reconciling():
        await here.namespace("theirs")
        refused = await eventually(
            lambda: here.seen_namespace("theirs"),
            lambda seen: seen is not None and seen.reason == "NameTaken",
        )
        assert refused is not None
        assert "adoption" in refused.message
        await here.create(namespace="theirs")
        assert (await client.list(DEPLOYMENTS, "theirs")).items == ()
        await here.delete_namespace("theirs")
        await eventually(lambda: here.seen_namespace("theirs"), lambda seen: seen is None)
        assert await client.find(NAMESPACES, None, "theirs") is not None

        await here.namespace("theirs", adopt=True)
        await eventually(
            lambda: here.seen_namespace("theirs"), lambda seen: seen is not None and seen.phase == "Active"
        )
        await here.delete_namespace("theirs")
        await eventually(lambda: here.seen_namespace("theirs"), lambda seen: seen is None)
        found = await client.get(NAMESPACES, None, "theirs")
        assert found.metadata.deletion_timestamp is None
        assert found.metadata.label("team") == "b"
        assert found.metadata.label(manifests.NAMESPACE_UID) == ""


async def test_orphans_are_swept_where_the_namespace_is_ours_and_nowhere_else(here: World) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        home = await eventually(
            lambda: client.find(NAMESPACES, None, "shop"), lambda found: found is not None
        )
        assert home is not None
        for namespace in ("shop", "other"):
            if namespace == "other":
                manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
                await here.apply_as("other", "/api/v1/namespaces/other", manifest)
            orphan = model(
                kubernetes_namespace=namespace,
                namespace_uid=home.metadata.label(manifests.NAMESPACE_UID),
                ports=(Port(container_port=1, service_name="orphan", service_port=1),),
            )
            await client.apply(DEPLOYMENTS, manifests.deployment(orphan))
            await client.apply(SERVICES, manifests.services(orphan)[0])
        await eventually(lambda: client.find(DEPLOYMENTS, "shop", "web"), lambda found: found is None)
        await eventually(lambda: client.find(SERVICES, "shop", "orphan"), lambda found: found is None)
        assert await client.find(DEPLOYMENTS, "other", "web") is not None
        assert await client.find(SERVICES, "other", "orphan") is not None


async def test_a_service_account_goes_when_no_container_names_it(here: World) -> None:
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
        await eventually(lambda: client.find(SERVICE_ACCOUNTS, "shop", "old"), lambda found: found is None)
        await here.running()
        there = {account.metadata.name for account in (await client.list(SERVICE_ACCOUNTS, "shop")).items}
        assert there == {"default", "kept", "new", "theirs"}


async def test_two_servers_share_the_work_and_one_observes(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed: tuple[set[Any], set[Any]] = (set(), set())
    both = asyncio.Event()

    def watch(worker: Worker, mine: set[Any]) -> None:
        reconcile = worker.reconcile

        async def when_both_have_some(work: Work, claimed_at: float | None = None) -> None:
            if work.resource_type == "container":
                mine.add(work.resource_id)
                if all(claimed):
                    both.set()
                # A server whose hands are full leaves the rest to the other; neither goes on before.
                await both.wait()
            await reconcile(work, claimed_at)

        monkeypatch.setattr(worker, "reconcile", when_both_have_some)

    few = msgspec.structs.replace(QUICK, worker=msgspec.structs.replace(QUICK.worker, workers_per_cluster=3))
    async with here.reconciling(few) as first, here.reconciling(few) as second:
        watch(first.worker, claimed[0])
        watch(second.worker, claimed[1])
        await here.namespace()
        await asyncio.gather(*(here.create(f"web-{number}") for number in range(12)))
        for number in range(12):
            await here.running(f"web-{number}")
        # Each pod once, whoever saw it.
        assert len(await here.rows("SELECT uid FROM container_pods")) == 12
    assert all(claimed)
    assert len(claimed[0] | claimed[1]) == 12
    history = await here.rows(
        "SELECT container_id, count(*) AS runs FROM container_status_history "
        "WHERE current_status = 'running' GROUP BY container_id"
    )
    assert len(history) == 12
    assert {row["runs"] for row in history} == {1}


async def test_the_next_server_observes_when_the_first_is_gone(here: World) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
    await here.move(containers.stop)
    async with here.reconciling():
        row = await here.until(lambda row: not (row.reconciling or row.observed.ready_replicas))
        assert row.observed.status == "stopped"


async def test_usage_is_collected(here: World) -> None:
    async with here.reconciling():
        await here.namespace()
        row = await here.create(replicas=2)
        await here.running()

        async def samples() -> list[Any]:
            return [sample for batch in here.samples.batches for sample in batch if sample.pods == 2]

        found = await eventually(samples, lambda found: len(found) >= 2)
        assert {sample.container_id for sample in found} == {row.id}
        assert all(sample.memory_bytes_used > 0 for sample in found)
