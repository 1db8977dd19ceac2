"""After a rewind, an administrator decides about objects that the database lacks.

The decisions are made by the API and by the command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from pilothouse_server.kubernetes.ownership import (
    CONTAINER_UID,
    MANAGED_BY,
    MANAGER,
    NAMESPACE,
    NAMESPACE_UID,
)
from pilothouse_server.metrics.operations import DatabaseGauges
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.reconcile.observe.sweep import SweepSettings
from pilothouse_server.storage.claims import PERSISTENT_VOLUME_CLAIMS
from pilothouse_simulator.values import resources
from tests.conftest import Database, connection
from tests.harness import QUICK, Server, running_server
from tests.main_job.command import logged_in
from tests.waiting import poll_until

EAGER = msgspec.structs.replace(QUICK, sweep=SweepSettings(period_seconds=0.4, grace_seconds=0.0))
TABLES = ("containers", "config_maps", "secrets", "volumes")
RESOURCES: dict[str, Resource[Any]] = {
    "ConfigMap": CONFIG_MAPS,
    "Deployment": DEPLOYMENTS,
    "PersistentVolumeClaim": PERSISTENT_VOLUME_CLAIMS,
    "Secret": SECRETS,
    "Service": SERVICES,
    "ServiceAccount": SERVICE_ACCOUNTS,
}
# The commands of docs/backup.md.
LIST = "pilothouse clusters orphans local"
TRY = "pilothouse clusters orphans local --import --all --validate-only"
IMPORT = "pilothouse clusters orphans local --import --all"
KEEP = "pilothouse clusters orphans local --keep --all"
UNDECIDED = set(RESOURCES) - {"PersistentVolumeClaim"}


class Restored:
    """A server whose database was restored to a point before the test's objects.

    At that point the namespace `shop` existed, and nothing in it.
    """

    def __init__(self, server: Server, database: Database, client: ClusterClient) -> None:
        self.server = server
        self.database = database
        self.client = client
        self.namespaces = server.admin.namespaces
        self.uid = ""

    async def make(self) -> None:
        """Creates a container with all kinds of related objects, and waits until it runs."""
        admin = self.server.admin
        await self.namespaces.create(namespace=pb.Namespace(name="shop"))
        await admin.config.create_config_map(
            namespace="shop", config_map=config_pb2.ConfigMap(name="settings", data={"a": "1"})
        )
        await admin.config.create_secret(
            namespace="shop", secret=config_pb2.Secret(name="password", data={"key": b"value"})
        )
        await admin.storage.create_volume(
            namespace="shop",
            volume=storage_pb2.Volume(
                name="data", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi"
            ),
        )
        container = container_pb2.Container(name="web", image="nginx:1.27", service_account="web")
        container.ports.add(container_port=80, service_name="web", service_port=80)
        container.volume_mounts.add(volume="data", mount_path="/data")
        container.env.add(
            name="A",
            value_from=container_pb2.ENV_VALUE_FROM_CONFIG_MAP,
            source_name="settings",
            source_key="a",
        )
        container.env.add(
            name="B", value_from=container_pb2.ENV_VALUE_FROM_SECRET, source_name="password", source_key="key"
        )
        self.uid = (await admin.containers.create(namespace="shop", container=container)).uid
        await self.runs()

    async def runs(self) -> container_pb2.Container:
        """Waits until the container runs in its desired state."""

        async def seen() -> Any:
            return await self.server.admin.containers.get(namespace="shop", name="web")

        return await poll_until(
            seen,
            lambda found: found.status == container_pb2.CONTAINER_STATUS_RUNNING and not found.reconciling,
            what="web runs",
        )

    async def go_back(self) -> None:
        """Deletes the rows, as in an older dump, and begins a new history; both appear as one change."""
        async with connection(self.database.admin_dsn) as admin, admin.transaction():
            for table in TABLES:
                await admin.execute(f"DELETE FROM {table}")
            await admin.execute("DELETE FROM reconcile_work WHERE resource_type <> 'namespace'")
            await admin.execute("SET ROLE pilothouse_owner")
            await admin.execute("SELECT begin_new_history('an older dump was restored')")

    async def orphans(self, filter_: str = "") -> dict[str, pb.Orphan]:
        """Returns the orphans by kind, once the sweep has found all of them."""

        async def listed() -> dict[str, pb.Orphan]:
            found = self.namespaces.list_orphans(cluster_name="local", page_size=2)
            return {orphan.kind: orphan async for orphan in found}

        found = await poll_until(listed, lambda found: found.keys() == RESOURCES.keys(), what="all orphans")
        if not filter_:
            return found
        return {
            orphan.kind: orphan
            async for orphan in self.namespaces.list_orphans(cluster_name="local", filter=filter_)
        }

    async def there(self) -> set[str]:
        """Returns the kinds of Pilothouse's objects that exist on the cluster."""
        names = {"ConfigMap": "settings", "Secret": "password", "PersistentVolumeClaim": "data"}
        return {
            kind
            for kind, resource in RESOURCES.items()
            if await self.client.find(resource, "shop", names.get(kind, "web")) is not None
        }

    async def pods(self) -> set[str]:
        return {pod.metadata.uid for pod in (await self.client.list(PODS, "shop")).items}

    async def conditions(self) -> list[tuple[str, int, str]]:
        cluster = await self.namespaces.get_cluster(name="local")
        return [(each.type, each.status, each.reason) for each in cluster.conditions]

    async def resolve(self, action: pb.OrphanAction.ValueType, **fields: Any) -> pb.ResolveOrphansResponse:
        return await self.namespaces.resolve_orphans(cluster_name="local", action=action, **fields)


def sample(name: str, **labels: str) -> float | None:
    """Returns a metric of the cluster as Prometheus reads it."""
    return REGISTRY.get_sample_value(f"pilothouse_cluster_{name}", {"cluster": "local", **labels})


HELD = [("OrphansUndecided", resource_pb2.CONDITION_STATUS_TRUE, "NewHistory")]


@pytest_asyncio.fixture
async def restored(database: Database, tmp_path: Path) -> AsyncIterator[Restored]:
    async with running_server(database, tmp_path, reconciler=EAGER) as server:
        assert server.cluster is not None
        client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="test")
        try:
            made = Restored(server, database, client)
            await made.make()
            assert await made.conditions() == []
            await made.go_back()
            yield made
        finally:
            await client.close()


async def test_an_import_restores_orphans_with_their_uids_and_restarts_no_pod(restored: Restored) -> None:
    pods = await restored.pods()
    found = await restored.orphans()
    assert {kind for kind, orphan in found.items() if orphan.state == pb.ORPHAN_STATE_UNDECIDED} == UNDECIDED
    assert found["PersistentVolumeClaim"].state == pb.ORPHAN_STATE_LEFT
    assert set(await restored.orphans('kind = "Secret" AND state = UNDECIDED')) == {"Secret"}
    assert await restored.conditions() == HELD
    await DatabaseGauges(restored.server.application.store).look()
    assert sample("orphans", state="undecided") == len(UNDECIDED)
    assert sample("orphans_held") == 1
    tried = await restored.resolve(pb.ORPHAN_ACTION_IMPORT, all=True, validate_only=True)
    assert tried.resolved == 3
    assert set(await restored.orphans()) == set(RESOURCES)

    answer = await restored.resolve(pb.ORPHAN_ACTION_IMPORT, all=True)
    assert [list(result.problems) for result in answer.results] == [[]] * 3
    assert {result.imported_as for result in answer.results} == {
        "container shop/web",
        "config map shop/settings",
        "secret shop/password",
    }
    assert (answer.undecided, answer.deletion_held) == (0, False)
    assert await restored.conditions() == []
    web = await restored.runs()
    assert web.uid == restored.uid
    assert web.labels == {}
    assert [port.service_name for port in web.ports if port.service_name] == ["web"]
    secret = await restored.server.admin.config.reveal_secret(namespace="shop", name="password")
    assert dict(secret.data) == {"key": b"value"}

    async def none_left() -> bool:
        return not [item async for item in restored.namespaces.list_orphans(cluster_name="local")]

    await poll_until(none_left, what="no orphan is listed")
    assert await restored.there() == set(RESOURCES)
    assert await restored.pods() == pods


async def test_kept_orphans_stay_and_others_are_deleted(restored: Restored) -> None:
    found = await restored.orphans()
    answer = await restored.resolve(pb.ORPHAN_ACTION_DELETE, uids=[found["Service"].uid])
    assert (answer.resolved, answer.undecided, answer.deletion_held) == (1, len(UNDECIDED) - 1, True)

    async def service_gone() -> bool:
        return "Service" not in await restored.there()

    await poll_until(service_gone, what="the Service is gone")
    answer = await restored.resolve(pb.ORPHAN_ACTION_KEEP, uids=[found["Deployment"].uid])
    assert answer.deletion_held
    assert await restored.there() == set(RESOURCES) - {"Service"}
    # The claim contains data and is refused; the other objects are deleted, and no decision is pending.
    answer = await restored.resolve(
        pb.ORPHAN_ACTION_DELETE, uids=[orphan.uid for kind, orphan in found.items() if kind != "Service"]
    )
    (refused,) = answer.results
    assert refused.orphan.kind == "PersistentVolumeClaim"
    assert "contains data" in refused.problems[0]
    assert (answer.undecided, answer.deletion_held) == (0, False)

    async def only_the_claim() -> bool:
        return await restored.there() == {"PersistentVolumeClaim"}

    await poll_until(only_the_claim, what="all but the claim is gone")


async def test_a_decision_about_no_orphans_ends_the_hold(restored: Restored) -> None:
    found = await restored.orphans()
    await restored.resolve(pb.ORPHAN_ACTION_KEEP, all=True)
    assert await restored.conditions() == []
    async with connection(restored.database.admin_dsn) as admin:
        await admin.execute("SET ROLE pilothouse_owner")
        await admin.execute("SELECT begin_new_history('again')")
    assert await restored.conditions() == HELD

    async def decided() -> str:
        """Keeps all orphans, which is refused until the cluster was swept in this history.

        Until then the listed objects may be those of an older history.
        """
        try:
            answer = await restored.resolve(pb.ORPHAN_ACTION_KEEP, all=True)
        except PilothouseError as error:
            return error.reason
        return f"{answer.resolved} resolved"

    told = await poll_until(
        decided, lambda told: told != "ORPHANS_NOT_LISTED", what="the sweep has listed the orphans"
    )
    assert told == "0 resolved"
    assert await restored.conditions() == []
    kept = await restored.orphans("state = KEPT")
    assert set(kept) == UNDECIDED
    assert kept["Secret"].uid == found["Secret"].uid


async def test_a_standalone_service_is_imported_kept_or_deleted(restored: Restored) -> None:
    assert restored.server.cluster is not None
    store, uids = restored.server.cluster.store, {name: str(uuid4()) for name in ("front", "kept", "gone")}
    home = (await restored.namespaces.get(name="shop")).uid
    for name, uid in uids.items():
        labels = {MANAGED_BY: MANAGER, NAMESPACE: "shop", NAMESPACE_UID: home, SERVICE_UID: uid, "tier": name}
        metadata = {"name": name, "namespace": "shop", "labels": labels}
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
        store.create(resources.SERVICES, {"metadata": metadata, "spec": spec})

    async def listed() -> dict[str, pb.Orphan]:
        found = restored.namespaces.list_orphans(cluster_name="local", filter='kind = "Service"')
        return {orphan.name: orphan async for orphan in found}

    found = await poll_until(listed, lambda found: found.keys() >= uids.keys(), what="the Services")
    answer = await restored.resolve(pb.ORPHAN_ACTION_IMPORT, uids=[found["front"].uid, found["web"].uid])
    results = {result.orphan.name: result for result in answer.results}
    assert (results["front"].imported_as, list(results["front"].problems)) == ("service shop/front", [])
    assert list(results["web"].problems) == ["it is imported with the workload whose pods it selects"]
    await restored.resolve(pb.ORPHAN_ACTION_KEEP, uids=[found["kept"].uid])
    await restored.resolve(pb.ORPHAN_ACTION_DELETE, uids=[found["gone"].uid])

    async def settled() -> bool:
        there = {item.metadata.name for item in (await restored.client.list(SERVICES, "shop")).items}
        front = await restored.server.admin.network.get_service(namespace="shop", name="front")
        return there == {"front", "kept", "web"} and front.uid == uids["front"] and not front.reconciling

    await poll_until(settled, what="the Services are as decided")
    front = await restored.server.admin.network.get_service(namespace="shop", name="front")
    assert (dict(front.labels), dict(front.selector)) == ({"tier": "front"}, {"app": "web"})


@pytest.mark.full
async def test_jobs_and_cron_jobs_are_imported_with_their_runs(restored: Restored) -> None:
    calls = restored.server.admin.containers
    job = container_pb2.JobSettings(backoff_limit=0)
    schedule = container_pb2.CronJobSettings(schedule="0 0 1 1 *", job=job)
    given: dict[str, dict[str, Any]] = {"once": {"job": job}, "nightly": {"cron_job": schedule}}
    uids = {}

    async def ran(name: str, *runs: str) -> None:
        async def ended() -> list[str]:
            found = [run async for run in calls.list_runs(namespace="shop", name=name)]
            return [run.name for run in found if run.status == container_pb2.CONTAINER_STATUS_SUCCEEDED]

        await poll_until(ended, lambda names: names == list(runs), what=f"the runs of {name}")

    for name, kind in given.items():
        container = container_pb2.Container(
            name=name,
            image="busybox:1.37",
            pod_annotations={"simulate.pilothouse.dev/behavior": "exit:0"},
            **kind,
        )
        uids[name] = (await calls.create(namespace="shop", container=container)).uid
    await ran("once", "once")
    await calls.run(namespace="shop", name="once")
    await ran("once", "once-2", "once")
    await calls.run(namespace="shop", name="nightly")
    await ran("nightly", "nightly-run-1")
    await restored.go_back()

    async def listed() -> set[tuple[str, str]]:
        found = restored.namespaces.list_orphans(cluster_name="local")
        return {(orphan.kind, orphan.name) async for orphan in found}

    jobs = {("Job", "once"), ("Job", "once-2"), ("Job", "nightly-run-1"), ("CronJob", "nightly")}
    await poll_until(listed, lambda found: jobs <= found, what="the Jobs as orphans")
    answer = await restored.resolve(pb.ORPHAN_ACTION_IMPORT, all=True)
    imported = {each.imported_as: list(each.problems) for each in answer.results}
    assert imported["container shop/once"] == imported["container shop/nightly"] == []
    assert not any(imported.values()), imported
    assert (answer.undecided, answer.deletion_held) == (0, False)
    for name, uid in uids.items():
        assert (await calls.get(namespace="shop", name=name)).uid == uid
    await ran("once", "once-2", "once")
    await ran("nightly", "nightly-run-1")
    for name, runs in (
        ("once", ("once-3", "once-2", "once")),
        ("nightly", ("nightly-run-2", "nightly-run-1")),
    ):
        await calls.run(namespace="shop", name=name)
        await ran(name, *runs)
    assert await listed() == set()


async def test_an_imported_service_that_selects_by_uid_names_its_container(restored: Restored) -> None:
    assert restored.server.cluster is not None
    store, uids = restored.server.cluster.store, {name: str(uuid4()) for name in ("named", "lost")}
    home = (await restored.namespaces.get(name="shop")).uid
    for name, uid in uids.items():
        labels = {MANAGED_BY: MANAGER, NAMESPACE: "shop", NAMESPACE_UID: home, SERVICE_UID: uid}
        selector = {CONTAINER_UID: restored.uid if name == "named" else str(uuid4())}
        spec = {"selector": selector, "ports": [{"port": 80}]}
        store.create(
            resources.SERVICES,
            {"metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": spec},
        )

    async def listed() -> dict[str, pb.Orphan]:
        found = restored.namespaces.list_orphans(cluster_name="local", filter='kind != "Secret"')
        return {f"{orphan.kind} {orphan.name}": orphan async for orphan in found}

    wanted = ("Service named", "Service lost", "Deployment web")
    found = await poll_until(listed, lambda found: found.keys() >= set(wanted), what="the orphans")
    answer = await restored.resolve(pb.ORPHAN_ACTION_IMPORT, uids=[found[each].uid for each in wanted])
    results = {result.orphan.name: result for result in answer.results}
    assert (results["named"].imported_as, list(results["named"].problems)) == ("service shop/named", [])
    assert "name the container in containers instead" in results["lost"].problems[0]
    await restored.runs()

    async def shown() -> Any:
        return await restored.server.admin.network.get_service(namespace="shop", name="named")

    named = await poll_until(shown, lambda found: not found.reconciling and found.ready_endpoints == 1)
    assert (named.uid, list(named.containers), dict(named.selector)) == (uids["named"], ["web"], {})
    assert named.drift_policy == resource_pb2.DRIFT_POLICY_REPAIR


async def test_a_decision_about_unlisted_orphans_is_refused(restored: Restored) -> None:
    await restored.orphans()
    for fields, reason in (
        ({"uids": ["none"]}, "ORPHAN_NOT_FOUND"),
        ({}, "INVALID_ARGUMENT"),
        ({"uids": ["none"], "all": True}, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await restored.resolve(pb.ORPHAN_ACTION_KEEP, **fields)
        assert reason in (refused.value.reason, refused.value.code.name)
    with pytest.raises(PilothouseError) as refused:
        await restored.namespaces.resolve_orphans(
            cluster_name="none", action=pb.ORPHAN_ACTION_KEEP, uids=["none"]
        )
    assert refused.value.reason == "CLUSTER_NOT_FOUND"


async def test_the_command_lists_and_resolves_orphans(restored: Restored, tmp_path: Path) -> None:
    await restored.orphans()
    shell = await logged_in(restored.server, tmp_path)
    listed = await shell.succeed(*LIST.split()[1:])
    assert "UNDECIDED" in listed
    assert "Deployment" in listed
    assert "ResolveOrphans" in await shell.succeed("clusters", "get", "local")
    assert "container shop/web" in await shell.succeed(*TRY.split()[1:])
    assert "ResolveOrphans" in await shell.succeed("clusters", "get", "local")
    assert "container shop/web" in await shell.succeed(*IMPORT.split()[1:])
    assert (await restored.runs()).uid == restored.uid
    await shell.succeed(*KEEP.split()[1:])
    assert "ResolveOrphans" not in await shell.succeed("clusters", "get", "local")
