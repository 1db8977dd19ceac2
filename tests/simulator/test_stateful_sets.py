"""StatefulSets: as recorded, and by their documented rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import (
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STATEFUL_SETS,
)
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import change, exists, pods_of, poll_cluster, stateful_set, stored
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_LIFE = "24-statefulset"


async def _make_volumes(run: Replay) -> None:
    """Creates the volumes that were created by hand for the recording."""
    for number in range(5):
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "hostPath": {"path": f"/volumes/a{number}"},
        }
        run.cluster.store.create(PERSISTENT_VOLUMES, {"metadata": {"name": f"pv-a{number}"}, "spec": spec})


@virtual_time
async def test_a_stateful_sets_life_is_as_recorded() -> None:
    options = Options(
        varying=NODE_VALUES,
        after={9: _make_volumes},
        skip=frozenset({4}),
        racing=frozenset({23, 33, 36}),
        read_deadline_seconds=0.5,
        stream_deadline_seconds=0.5,
    )
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _LIFE, options)
    check(_LIFE, differences)


def _is_rolled(cluster: SimulatedCluster, replicas: int) -> bool:
    found = stored(cluster, STATEFUL_SETS, "db")
    status = found["status"]
    counts = (status["replicas"], status.get("updatedReplicas"), status["availableReplicas"])
    return (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status["currentRevision"] == status["updateRevision"]
        and counts == (replicas,) * 3
    )


def _claims(cluster: SimulatedCluster) -> list[str]:
    return [entry["metadata"]["name"] for entry in cluster.store.list(PERSISTENT_VOLUME_CLAIMS, "default")]


@virtual_time
async def test_on_delete_updates_only_pods_that_are_deleted() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(STATEFUL_SETS, stateful_set("db", 2, updateStrategy={"type": "OnDelete"}))
        await poll_cluster(cluster, lambda: len(pods_of(cluster, "db")) == 2 and _is_rolled(cluster, 2))
        change(cluster, STATEFUL_SETS, "db", image="busybox:2")
        await poll_cluster(cluster, lambda: len(cluster.store.list(CONTROLLER_REVISIONS)) == 2)
        cluster.store.delete(PODS, "default", "db-0")
        await poll_cluster(
            cluster, lambda: stored(cluster, STATEFUL_SETS, "db")["status"].get("updatedReplicas") == 1
        )
        images = [entry["spec"]["containers"][0]["image"] for entry in pods_of(cluster, "db")]
        assert images == ["busybox:2", "busybox:1"]


@pytest.mark.parametrize(("when_deleted", "left"), [("Retain", ["data-db-0", "data-db-1"]), ("Delete", [])])
@virtual_time
async def test_the_policy_decides_about_claims_of_a_deleted_stateful_set(
    when_deleted: str, left: list[str]
) -> None:
    policy = {"whenDeleted": when_deleted, "whenScaled": "Retain"}
    body = stateful_set("db", 2, storage="1Gi", persistentVolumeClaimRetentionPolicy=policy)
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(STATEFUL_SETS, body)
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 2))
        cluster.store.delete(STATEFUL_SETS, "default", "db", propagation_policy="Foreground")
        await poll_cluster(cluster, lambda: not cluster.store.list(PODS, "default"))
        await poll_cluster(cluster, lambda: _claims(cluster) == left)


@virtual_time
async def test_orphaned_pods_are_adopted_by_a_stateful_set_of_the_same_name() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(STATEFUL_SETS, stateful_set("db", 2, storage="1Gi"))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 2))
        uids = {entry["metadata"]["uid"] for entry in pods_of(cluster, "db")}
        cluster.store.delete(STATEFUL_SETS, "default", "db", propagation_policy="Orphan")
        await poll_cluster(cluster, lambda: not exists(cluster, STATEFUL_SETS, "db"))
        cluster.store.create(STATEFUL_SETS, stateful_set("db", 2, storage="1Gi"))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 2))
        assert {entry["metadata"]["uid"] for entry in pods_of(cluster, "db")} == uids


@virtual_time
async def test_a_failed_pod_is_recreated_with_its_name() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(STATEFUL_SETS, stateful_set("db", 1))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 1))
        pod = stored(cluster, PODS, "db-0")
        failed = {**pod, "status": {**pod["status"], "phase": "Failed"}}
        cluster.store.update_status(PODS, failed, "kubelet")
        await poll_cluster(
            cluster,
            lambda: (
                exists(cluster, PODS, "db-0")
                and stored(cluster, PODS, "db-0")["metadata"]["uid"] != pod["metadata"]["uid"]
                and _is_rolled(cluster, 1)
            ),
        )


@virtual_time
async def test_old_revisions_are_kept_up_to_the_history_limit() -> None:
    async with SimulatedCluster(speed=40) as cluster:
        cluster.store.create(STATEFUL_SETS, stateful_set("db", 1, revisionHistoryLimit=1))
        for number in range(2, 5):
            await poll_cluster(cluster, lambda: _is_rolled(cluster, 1))
            change(cluster, STATEFUL_SETS, "db", image=f"busybox:{number}")
        await poll_cluster(
            cluster, lambda: _is_rolled(cluster, 1) and len(cluster.store.list(CONTROLLER_REVISIONS)) == 2
        )
        assert sorted(entry["revision"] for entry in cluster.store.list(CONTROLLER_REVISIONS)) == [3, 4]


@virtual_time
async def test_a_rollout_continues_after_a_restart_of_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "state"
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        cluster.store.create(STATEFUL_SETS, stateful_set("db", 3, storage="1Gi"))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 3))
        volumes = {entry["spec"]["volumeName"] for entry in cluster.store.list(PERSISTENT_VOLUME_CLAIMS)}
        change(cluster, STATEFUL_SETS, "db", image="busybox:2")
        await poll_cluster(
            cluster, lambda: stored(cluster, STATEFUL_SETS, "db")["status"].get("updatedReplicas") == 1
        )
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 3))
        images = {entry["spec"]["containers"][0]["image"] for entry in pods_of(cluster, "db")}
        assert images == {"busybox:2"}
        claims = cluster.store.list(PERSISTENT_VOLUME_CLAIMS)
        assert {entry["spec"]["volumeName"] for entry in claims} == volumes
