"""Claims on their cluster: bound, waiting with a reason, growing, refused, deleted, deleted with their namespace."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from pilothouse_server.storage.claims import VOLUME_UID
from pilothouse_simulator.controllers.claims import PROVISIONER
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    RESOURCE_QUOTAS,
    STORAGE_CLASSES,
)
from tests.storage.conftest import Place, applied, mount
from tests.waiting import poll_until

BOUND, AVAILABLE, FAILED = pb.VOLUME_STATUS_BOUND, pb.VOLUME_STATUS_AVAILABLE, pb.VOLUME_STATUS_FAILED
TRUE, FALSE = resource_pb2.CONDITION_STATUS_TRUE, resource_pb2.CONDITION_STATUS_FALSE


def on_cluster(place: Place, name: str = "data") -> dict[str, object] | None:
    return place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, name)


def make_class(place: Place, **fields: object) -> str:
    name = f"class-{place.name}"
    body = {"metadata": {"name": name}, "provisioner": PROVISIONER, **fields}
    place.store.create(STORAGE_CLASSES, body)
    return name


async def bound(place: Place, **fields: object) -> pb.Volume:
    """Returns a claim that is bound immediately."""
    await place.make(storage_class=make_class(place, **fields))
    return await place.volume(lambda each: each.status == BOUND and not each.reconciling)


async def test_a_claim_is_applied_to_its_cluster_and_bound(place: Place) -> None:
    storage_class = make_class(place)
    made = await place.make(
        storage_class=storage_class,
        access_mode=pb.ACCESS_MODE_READ_WRITE_ONCE_POD,
        labels={"tier": "db"},
        annotations={"note": "x"},
    )
    volume = await place.volume(lambda each: each.status == BOUND and not each.reconciling)
    assert (volume.capacity, volume.reason, volume.message) == ("1Gi", "", "")
    condition = applied(volume)
    assert condition is not None
    assert condition.status == TRUE
    claim = place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    assert claim is not None
    assert claim["metadata"]["labels"].items() >= {"tier": "db", VOLUME_UID: made.uid}.items()
    assert claim["metadata"]["annotations"]["note"] == "x"
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert claim["spec"]["storageClassName"] == storage_class


async def test_a_pending_claim_reports_why(place: Place) -> None:
    await place.make()
    waiting = await place.volume(lambda each: each.reason == "WaitForFirstConsumer")
    assert waiting.status == AVAILABLE
    assert waiting.message == "waiting for first consumer to be created before binding"
    await place.make("other", storage_class="missing")
    failing = await place.volume(lambda each: each.reason == "ProvisioningFailed", "other")
    assert failing.message == 'storageclass.storage.k8s.io "missing" not found'
    assert failing.status == FAILED


async def test_a_missing_class_is_reported_before_and_after_the_creation(place: Place) -> None:
    there = make_class(place)
    claim = pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM

    async def check(storage_class: str) -> pb.Volume:
        volume = pb.Volume(name="data", type=claim, size="1Gi", storage_class=storage_class)
        return await place.client.storage.create_volume(
            namespace=place.name, volume=volume, validate_only=True
        )

    with pytest.raises(InvalidArgumentError) as refused:
        await check("missing")
    assert refused.value.reason == "STORAGE_CLASS_NOT_FOUND"
    assert there in refused.value.metadata["storage_classes"].split(",")
    assert [each.field for each in refused.value.violations] == ["volume.storage_class"]
    assert (await check(there)).storage_class == there
    # Volumes that were made by hand may have a class without a StorageClass object.
    by_hand = {
        "metadata": {"name": f"pv-{place.name}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": f"by-hand-{place.name}",
            "hostPath": {"path": "/mnt"},
        },
    }
    place.store.create(PERSISTENT_VOLUMES, by_hand)
    assert (await check(f"by-hand-{place.name}")).name == "data"
    await place.make(storage_class="missing")
    await place.volume(lambda each: each.status == FAILED and each.reason == "ProvisioningFailed")


async def test_the_class_that_the_cluster_chose_is_shown(place: Place) -> None:
    made = await place.make()
    assert (made.storage_class, made.claim_storage_class) == ("", "")
    seen = await place.volume(lambda each: bool(each.claim_storage_class))
    claim = on_cluster(place)
    assert claim is not None
    assert seen.claim_storage_class == claim["spec"]["storageClassName"]  # type: ignore[index]
    assert seen.storage_class == ""


async def test_a_container_waits_for_its_claim_and_recovers_by_itself(place: Place) -> None:
    name = f"class-{place.name}"
    await place.make(storage_class=name)
    await place.run(mount())
    waiting = await place.container(lambda each: each.reason == "Unschedulable")
    assert waiting.status == container_pb2.CONTAINER_STATUS_PENDING
    assert "unbound immediate PersistentVolumeClaims" in waiting.message
    make_class(place)
    await place.running()
    await place.volume(lambda each: each.status == BOUND)


async def test_a_claim_grows_if_its_class_allows_it(place: Place) -> None:
    await bound(place, allowVolumeExpansion=True)
    changed = await place.resize("3Gi")
    assert changed.reconciling
    grown = await place.volume(lambda each: each.capacity == "3Gi" and not each.reconciling)
    assert grown.status == BOUND


async def test_a_growth_in_progress_shows_as_resizing(place: Place) -> None:
    # No controller enlarges a volume that was made by hand.
    storage_class = make_class(place, allowVolumeExpansion=True, provisioner="example.com/by-hand")
    volume = {
        "metadata": {"name": f"pv-{place.name}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "hostPath": {"path": "/mnt"},
        },
    }
    place.store.create(PERSISTENT_VOLUMES, volume)
    await place.make(storage_class=storage_class)
    await place.volume(lambda each: each.status == BOUND and not each.reconciling)
    await place.resize("3Gi")
    growing = await place.volume(lambda each: is_so(each, "Resizing", TRUE) and not each.reconciling)
    assert (growing.status, growing.size, growing.capacity) == (BOUND, "3Gi", "1Gi")
    found = place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    assert found is not None
    claim = copy_json(found)
    claim["status"]["capacity"] = {"storage": "3Gi"}
    place.store.update_status(PERSISTENT_VOLUME_CLAIMS, claim, "resizer")
    grown = await place.volume(lambda each: is_so(each, "Resizing", FALSE))
    assert grown.capacity == "3Gi"


def is_so(volume: pb.Volume, kind: str, status: resource_pb2.ConditionStatus.ValueType) -> bool:
    condition = applied(volume, kind)
    return condition is not None and condition.status == status


async def test_a_refused_growth_shows_the_clusters_message_and_can_be_reverted(place: Place) -> None:
    await bound(place)
    await place.resize("3Gi")
    refused = await place.volume(lambda each: is_so(each, "Applied", FALSE))
    words = (
        'persistentvolumeclaims "data" is forbidden: only dynamically provisioned pvc can be resized and the '
        "storageclass that provisions the pvc must support resize"
    )
    assert (refused.status, refused.capacity) == (BOUND, "1Gi")
    assert (refused.reason, refused.message) == ("Forbidden", words)
    assert is_so(refused, "Resizing", FALSE)
    assert not refused.reconciling
    await place.resize("1Gi")
    back = await place.volume(lambda each: is_so(each, "Applied", TRUE) and not each.reconciling)
    assert (back.status, back.reason, back.message) == (BOUND, "", "")
    # Nothing was resized, and no resize is requested.
    assert applied(back, "Resizing") is None


async def test_a_growth_before_the_claim_is_bound_is_refused_in_one_line(place: Place) -> None:
    await place.make()
    await place.volume(lambda each: each.reason == "WaitForFirstConsumer")
    with pytest.raises(InvalidArgumentError) as tried:
        await place.client.storage.update_volume(
            namespace=place.name,
            name="data",
            volume=pb.Volume(size="3Gi"),
            update_mask=FieldMask(paths=["size"]),
            validate_only=True,
        )
    await place.resize("3Gi")
    refused = await place.volume(lambda each: is_so(each, "Applied", FALSE))
    condition = applied(refused)
    assert condition is not None
    for message in (tried.value.message, refused.message, condition.message):
        assert "spec is immutable after creation except resources.requests" in message
        assert message.endswith("for bound claims")
    assert all("\n" not in each.description for each in tried.value.violations)


async def test_validate_only_asks_the_cluster_and_changes_nothing(place: Place) -> None:
    await bound(place)
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.storage.update_volume(
            namespace=place.name,
            name="data",
            volume=pb.Volume(size="3Gi"),
            update_mask=FieldMask(paths=["size"]),
            validate_only=True,
        )
    assert refused.value.reason == "CLUSTER_REFUSED"
    assert "only dynamically provisioned pvc can be resized" in refused.value.message
    assert (await place.get()).size == "1Gi"
    fine = await place.client.storage.create_volume(
        namespace=place.name,
        volume=pb.Volume(name="more", type=pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi"),
        validate_only=True,
    )
    assert fine.name == "more"
    assert on_cluster(place, "more") is None


async def test_a_claim_over_the_clusters_quota_is_refused_until_there_is_room(
    place: Place,
) -> None:
    quota = {
        "metadata": {"name": "no-claims", "namespace": place.name},
        "spec": {"hard": {"persistentvolumeclaims": "0"}},
    }
    place.store.create(RESOURCE_QUOTAS, quota)

    async def counted() -> bool:
        stored = place.store.get(RESOURCE_QUOTAS, place.name, "no-claims")
        return stored is not None and "hard" in stored["status"]

    await poll_until(counted, what="the quota to hold")
    await place.make()
    refused = await place.volume(lambda each: each.status == FAILED)
    assert refused.reason == "Forbidden"
    assert "exceeded quota: no-claims" in refused.message
    place.store.delete(RESOURCE_QUOTAS, place.name, "no-claims")
    changed = await place.client.storage.update_volume(
        namespace=place.name,
        name="data",
        volume=pb.Volume(size="512Mi"),
        update_mask=FieldMask(paths=["size"]),
    )
    assert changed.size == "512Mi"
    there = await place.volume(lambda each: is_so(each, "Applied", TRUE) and not each.reconciling)
    assert there.status == AVAILABLE


async def test_a_claim_of_another_owner_is_left_alone(place: Place) -> None:
    body = {
        "metadata": {"name": "data", "namespace": place.name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    place.store.create(PERSISTENT_VOLUME_CLAIMS, body)
    await place.make()
    refused = await place.volume(lambda each: each.status == FAILED)
    assert refused.reason == "NameTaken"
    await place.client.storage.delete_volume(namespace=place.name, name="data")
    await place.gone()
    assert on_cluster(place) is not None


async def test_a_deleted_claim_stays_until_no_pod_uses_it(place: Place) -> None:
    await bound(place)
    await place.run(mount())
    await place.running()
    with pytest.raises(FailedPreconditionError):
        await place.client.storage.delete_volume(namespace=place.name, name="data")
    # The mount leaves the desired state immediately, but the pod stays for a while.
    await place.client.storage.detach_volume(namespace=place.name, name="data", container="web")
    marked = await place.client.storage.delete_volume(namespace=place.name, name="data")
    assert marked.status == pb.VOLUME_STATUS_DELETED
    assert marked.HasField("delete_time")
    with pytest.raises(FailedPreconditionError):
        await place.client.storage.attach_volume(
            namespace=place.name, name="data", container="web", mount_path="/x"
        )
    await place.gone()
    assert on_cluster(place) is None
    with pytest.raises(NotFoundError):
        await place.get()


async def test_a_namespace_is_deleted_with_its_claims(place: Place) -> None:
    await bound(place)
    await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
    await place.run(mount(), mount("scratch", "/s"))
    await place.running()
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.namespaces.delete(name=place.name)
    assert refused.value.metadata["volumes"] == "2"
    await place.client.namespaces.delete(name=place.name, cascade=True)

    async def ended() -> bool:
        try:
            await place.client.namespaces.get(name=place.name)
        except NotFoundError:
            return True
        return False

    await poll_until(ended, what="the end of the namespace")
    assert on_cluster(place) is None
