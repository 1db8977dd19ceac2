"""PersistentVolumeClaims as recorded, and unrecorded cases: provisioning, growth, reclaiming."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import (
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    ResourceType,
)
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, check, replay
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_CLAIMS = "06c-persistentvolumeclaims"
_MISSING = "05-pod-pvc-missing"


async def _without_classes(cluster: SimulatedCluster) -> None:
    """Deletes the storage classes, because the recorded cluster has none."""
    for storage_class in cluster.store.list(STORAGE_CLASSES):
        cluster.store.delete(STORAGE_CLASSES, None, storage_class["metadata"]["name"])


@virtual_time
async def test_claims_are_as_recorded() -> None:
    async with recorded_cluster(12.0) as cluster:
        differences = await replay(cluster, _CLAIMS, Options(varying=NODE_VALUES), prepare=_without_classes)
    check(_CLAIMS, differences)


@virtual_time
async def test_a_pod_whose_claim_is_missing_is_as_recorded() -> None:
    async with recorded_cluster(12.0) as cluster:
        differences = await replay(
            cluster, _MISSING, Options(varying=NODE_VALUES, names={"0/11 nodes": "0/1 nodes"})
        )
    check(_MISSING, differences)


async def _seen(
    cluster: SimulatedCluster, resource: ResourceType, namespace: str | None, name: str, **wanted: Any
) -> JsonObject:
    """Returns the object once its status holds the wanted values."""

    def there() -> JsonObject | None:
        found = cluster.store.get(resource, namespace, name)
        held = found is not None and all(found["status"].get(key) == value for key, value in wanted.items())
        return found if held else None

    found = await poll_cluster(cluster, there)
    assert found is not None
    return found


async def _gone(cluster: SimulatedCluster, resource: ResourceType, namespace: str | None, name: str) -> None:
    await poll_cluster(cluster, lambda: cluster.store.get(resource, namespace, name) is None)


def _claim(cluster: SimulatedCluster, name: str = "data", **spec: Any) -> JsonObject:
    body = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }
    return cluster.store.create(PERSISTENT_VOLUME_CLAIMS, body)


def _pod(cluster: SimulatedCluster, claim: str = "data") -> JsonObject:
    body = {
        "metadata": {"name": "user", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [
                {"name": "main", "image": "busybox:1", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
            ],
        },
    }
    return cluster.store.create(PODS, body)


def _stored(cluster: SimulatedCluster) -> JsonObject:
    """Returns a copy of the claim that can be changed."""
    claim = cluster.store.get(PERSISTENT_VOLUME_CLAIMS, "default", "data")
    assert claim is not None
    return dict(copy_json(claim))


def _grow(cluster: SimulatedCluster, size: str) -> JsonObject:
    changed = _stored(cluster)
    changed["spec"]["resources"]["requests"]["storage"] = size
    return cluster.store.update(PERSISTENT_VOLUME_CLAIMS, changed)


def _reasons(cluster: SimulatedCluster, name: str) -> list[str]:
    events = cluster.store.list(EVENTS, "default")
    return [event["reason"] for event in events if event["involvedObject"]["name"] == name]


@virtual_time
async def test_the_default_class_provisions_on_first_use() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        created = _claim(cluster)
        assert created["spec"]["storageClassName"] == "standard"
        await poll_cluster(cluster, lambda: "WaitForFirstConsumer" in _reasons(cluster, "data"))
        _pod(cluster)
        claim = await _seen(cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data", phase="Bound")
        assert claim["status"]["capacity"] == {"storage": "1Gi"}
        await _seen(cluster, PODS, "default", "user", phase="Running")
        volume = cluster.store.get(PERSISTENT_VOLUMES, None, claim["spec"]["volumeName"])
        assert volume is not None
        assert volume["status"]["phase"] == "Bound"
        assert "ProvisioningSucceeded" in _reasons(cluster, "data")


@virtual_time
async def test_a_pod_waits_for_its_claim_and_then_runs() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        _pod(cluster)
        await poll_cluster(cluster, lambda: "FailedScheduling" in _reasons(cluster, "user"))
        _claim(cluster)
        pod = await _seen(cluster, PODS, "default", "user", phase="Running")
        assert pod["spec"]["nodeName"]


@virtual_time
async def test_a_claim_in_use_is_deleted_with_its_volume_after_its_pod() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        _claim(cluster)
        _pod(cluster)
        await _seen(cluster, PODS, "default", "user", phase="Running")
        claim = cluster.store.get(PERSISTENT_VOLUME_CLAIMS, "default", "data")
        assert claim is not None
        left = cluster.store.delete(PERSISTENT_VOLUME_CLAIMS, "default", "data")
        assert left is not None
        cluster.store.delete(PODS, "default", "user")
        await _gone(cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data")
        assert cluster.store.get(PODS, "default", "user") is None
        await _gone(cluster, PERSISTENT_VOLUMES, None, claim["spec"]["volumeName"])


@virtual_time
async def test_a_bound_claim_grows_if_its_class_allows_it() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        _claim(cluster)
        _pod(cluster)
        await _seen(cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data", phase="Bound")
        _grow(cluster, "3Gi")
        claim = await _seen(
            cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data", capacity={"storage": "3Gi"}, conditions=None
        )
        volume = cluster.store.get(PERSISTENT_VOLUMES, None, claim["spec"]["volumeName"])
        assert volume is not None
        assert volume["spec"]["capacity"] == {"storage": "3Gi"}
        with pytest.raises(ApiError, match="field can not be less than status"):
            _grow(cluster, "2Gi")


@virtual_time
async def test_the_size_of_a_pending_claim_cannot_change() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        _claim(cluster)
        with pytest.raises(ApiError, match="spec is immutable after creation"):
            _grow(cluster, "3Gi")


@virtual_time
async def test_an_immediate_class_needs_no_pod_and_can_retain_its_volume() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        standard = cluster.store.get(STORAGE_CLASSES, None, "standard")
        assert standard is not None
        cluster.store.create(
            STORAGE_CLASSES,
            {"metadata": {"name": "kept"}, "provisioner": standard["provisioner"], "reclaimPolicy": "Retain"},
        )
        _claim(cluster, storageClassName="kept")
        claim = await _seen(cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data", phase="Bound")
        with pytest.raises(ApiError, match="only dynamically provisioned pvc can be resized"):
            _grow(cluster, "3Gi")
        cluster.store.delete(PERSISTENT_VOLUME_CLAIMS, "default", "data")
        await _seen(cluster, PERSISTENT_VOLUMES, None, claim["spec"]["volumeName"], phase="Released")


@virtual_time
async def test_a_claim_whose_volume_vanished_is_lost() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(
            PERSISTENT_VOLUMES,
            {
                "metadata": {"name": "pv"},
                "spec": {
                    "capacity": {"storage": "2Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "manual",
                    "hostPath": {"path": "/mnt"},
                },
            },
        )
        _claim(cluster, storageClassName="manual")
        await _seen(cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data", phase="Bound")
        cluster.store.remove(PERSISTENT_VOLUMES, None, "pv")
        changed = _stored(cluster)
        changed["metadata"]["annotations"]["looked-at"] = "again"
        cluster.store.update(PERSISTENT_VOLUME_CLAIMS, changed)
        lost = await _seen(cluster, PERSISTENT_VOLUME_CLAIMS, "default", "data", phase="Lost")
        assert "capacity" not in lost["status"]
