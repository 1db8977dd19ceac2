"""Claims that StatefulSets make from templates: volumes with an owner, counted, enlarged, and kept or deleted."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.errors import FailedPreconditionError, ResourceExhaustedError
from pilothouse_client.streams import ChangeKind
from pilothouse_server.storage.claims import VOLUME_UID
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS
from tests.storage.conftest import Place
from tests.waiting import poll_until, within

TEMPLATE = container_pb2.ClaimTemplate(
    name="data", size="1Gi", access_modes=["ReadWriteOnce"], labels={"tier": "disk"}
)


async def _make(place: Place, name: str = "db", replicas: int = 2, **settings: Any) -> None:
    """Makes a StatefulSet, and waits until its volumes exist."""
    wanted = container_pb2.StatefulSetSettings(claim_templates=[TEMPLATE], **settings)
    await place.run(name=name, replicas=replicas, stateful_set=wanted)

    async def owned() -> int:
        found = place.client.storage.list_volumes(namespace=place.name, filter=f'owner = "{name}"')
        return len([each async for each in found])

    await poll_until(owned, lambda number: number == replicas, what=f"the volumes of {name}")


async def _scale(place: Place, replicas: int, name: str = "db") -> container_pb2.ScaleContainerResponse:
    return await place.client.containers.scale.send(
        container_pb2.ScaleContainerRequest(namespace=place.name, name=name, replicas=replicas)
    )


async def _limit(place: Place, storage: str) -> None:
    await place.client.namespaces.update(
        name=place.name,
        namespace=namespace_pb2.Namespace(resource_quota=namespace_pb2.ResourceQuota(storage=storage)),
        update_mask=FieldMask(paths=["resource_quota"]),
    )


async def _owners(place: Place, **expected: str) -> None:
    """Waits until the namespace has exactly these volumes, with these owners."""
    wanted = {name.replace("_", "-"): owner for name, owner in expected.items()}

    async def listed() -> dict[str, str]:
        found = place.client.storage.list_volumes(namespace=place.name)
        return {each.name: each.owner async for each in found}

    await poll_until(listed, lambda found: found == wanted, what=f"volumes {wanted}")


def _is_bound(volume: pb.Volume) -> bool:
    return volume.status == pb.VOLUME_STATUS_BOUND and not volume.reconciling


def _claims(place: Place) -> set[str]:
    found = place.store.list(PERSISTENT_VOLUME_CLAIMS, place.name)
    return {each["metadata"]["name"] for each in found}


async def test_each_claim_of_a_template_is_a_volume_with_an_owner(place: Place) -> None:
    async with within(20.0), place.client.storage.watch_volumes(namespace=place.name) as changes:
        await _make(place)
        seen = set()
        async for change in changes:
            if change.kind is ChangeKind.ADDED:
                assert change.resource.owner == "db"
            if _is_bound(change.resource):
                seen.add(change.resource.name)
            if len(seen) == 2:
                break
    assert seen == {"data-db-0", "data-db-1"}
    volume = await place.get("data-db-1")
    assert (volume.owner, volume.size, volume.capacity, volume.kubernetes_name) == (
        "db",
        "1Gi",
        "1Gi",
        "data-db-1",
    )
    assert (volume.access_mode, volume.created_by) == (pb.ACCESS_MODE_READ_WRITE_ONCE, "admin")
    assert dict(volume.labels) == {"tier": "disk"}
    claim = place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, "data-db-1")
    assert claim is not None
    assert claim["metadata"]["labels"][VOLUME_UID] == volume.uid
    of_db = place.client.storage.list_volumes(namespace=place.name, filter='owner = "db"')
    assert [each.name async for each in of_db] == ["data-db-0", "data-db-1"]


async def test_an_owned_volume_grows_and_is_deleted_only_when_no_pod_needs_it(place: Place) -> None:
    await _make(place)
    await place.volume(_is_bound, "data-db-1")
    await place.resize("3Gi", "data-db-1")
    await place.volume(lambda each: each.capacity == "3Gi", "data-db-1")
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.storage.delete_volume(namespace=place.name, name="data-db-1")
    assert refused.value.reason == "VOLUME_OWNED"
    assert refused.value.message == (
        'volume "data-db-1" is the claim of pod db-1 of container "db": set its replicas to at most 1, or delete the '
        "container, first"
    )
    answer = await _scale(place, 1)
    assert (list(answer.kept_claims), list(answer.deleted_claims)) == (["data-db-1"], [])
    await _owners(place, data_db_0="db", data_db_1="")
    # The claim is used again, with its size.
    await _scale(place, 2)
    await _owners(place, data_db_0="db", data_db_1="db")
    assert (await place.get("data-db-1")).size == "3Gi"
    await _scale(place, 1)
    await _owners(place, data_db_0="db", data_db_1="")
    await place.client.storage.delete_volume(namespace=place.name, name="data-db-1")
    await _owners(place, data_db_0="db")
    assert _claims(place) == {"data-db-0"}


async def test_kept_claims_have_no_owner_until_a_set_of_the_same_name_uses_them(
    place: Place,
) -> None:
    await _make(place)
    first = await place.volume(_is_bound, "data-db-1")
    answer = await place.client.containers.delete.send(
        container_pb2.DeleteContainerRequest(namespace=place.name, name="db")
    )
    assert (list(answer.kept_claims), list(answer.deleted_claims)) == (["data-db-0", "data-db-1"], [])
    await _owners(place, data_db_0="", data_db_1="")

    async def containers() -> int:
        return len([each async for each in place.client.containers.list(namespace=place.name)])

    await poll_until(containers, lambda number: number == 0)
    assert (await place.volume(_is_bound, "data-db-0")).status == pb.VOLUME_STATUS_BOUND
    await place.client.storage.delete_volume(namespace=place.name, name="data-db-0")
    await _owners(place, data_db_1="")
    await _make(place)
    await _owners(place, data_db_0="db", data_db_1="db")
    again = await place.volume(_is_bound, "data-db-1")
    assert (again.uid, again.claim_uid) == (first.uid, first.claim_uid)


async def test_claims_and_their_volumes_follow_the_retention_policy(place: Place) -> None:
    retention = container_pb2.ClaimRetention(when_deleted="Delete", when_scaled="Delete")
    await _make(place, claim_retention=retention)
    await place.volume(_is_bound, "data-db-1")
    answer = await _scale(place, 1)
    assert (list(answer.kept_claims), list(answer.deleted_claims)) == ([], ["data-db-1"])
    await _owners(place, data_db_0="db")
    gone = await place.client.containers.delete.send(
        container_pb2.DeleteContainerRequest(namespace=place.name, name="db")
    )
    assert (list(gone.kept_claims), list(gone.deleted_claims)) == ([], ["data-db-0"])
    await _owners(place)
    assert _claims(place) == set()


async def test_claims_count_against_the_quota_of_storage(place: Place) -> None:
    await _limit(place, "3Gi")
    await place.make("own")
    await _make(place)
    for attempt in (
        _scale(place, 3),
        place.resize("2Gi", "own"),
        place.make("other"),
        _make(place, "more", 1),
    ):
        with pytest.raises(ResourceExhaustedError) as exhausted:
            await attempt
        assert exhausted.value.metadata["resource"] == "storage"
        assert "storage 3Gi used, 1Gi requested, 3Gi allowed" in exhausted.value.message
    usage = await place.client.namespaces.get_quota_usage(name=place.name)
    assert (usage.used.storage, usage.quota.storage) == ("3Gi", "3Gi")
    # A kept claim still counts, so its StatefulSet uses it again without needing more quota.
    await _scale(place, 1)
    await _scale(place, 2)
    await _limit(place, "4Gi")
    await _scale(place, 3)
    await _owners(place, own="", data_db_0="db", data_db_1="db", data_db_2="db")


async def test_a_claim_with_the_name_of_another_volume_is_refused(place: Place) -> None:
    await place.make("data-db-1", type=pb.VOLUME_TYPE_EMPTY_DIR)
    with pytest.raises(FailedPreconditionError) as refused:
        await _make(place)
    assert refused.value.reason == "VOLUME_NAME_TAKEN"
    assert 'would be called "data-db-1", the name of another volume of the namespace' in refused.value.message
