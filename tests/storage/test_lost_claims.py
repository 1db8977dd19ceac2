"""Lost claims: their storage is gone, or another client deleted them."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.errors import FailedPreconditionError, InvalidArgumentError
from pilothouse_client.streams import ChangeKind
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from tests.storage.conftest import Place, mount
from tests.storage.test_claims import AVAILABLE, BOUND, FAILED, FALSE, TRUE, bound, is_so, on_cluster
from tests.waiting import patient


async def test_a_lost_claim_has_failed(place: Place) -> None:
    await bound(place)
    claim = place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    assert claim is not None
    place.store.remove(PERSISTENT_VOLUMES, None, claim["spec"]["volumeName"])
    touched = copy_json(claim)
    touched["metadata"]["annotations"]["looked-at"] = "again"
    place.store.update(PERSISTENT_VOLUME_CLAIMS, touched)
    lost = await place.volume(lambda each: each.status == FAILED)
    assert lost.reason == "Lost"


async def test_a_claim_deleted_by_others_is_lost_and_made_again_only_on_request(place: Place) -> None:
    # A new claim would be empty: such a repair would hide that the data are lost.
    seen = await bound(place)
    claim = place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    assert claim is not None
    uid, storage = claim["metadata"]["uid"], claim["spec"]["volumeName"]
    assert (seen.claim_uid, seen.persistent_volume) == (uid, storage)
    synced = asyncio.Event()

    async def told() -> pb.Volume | None:
        async for change in place.client.storage.watch_volumes(namespace=place.name):
            if change.kind is ChangeKind.SYNCED:
                synced.set()
            elif change.kind is ChangeKind.MODIFIED and change.resource.status == FAILED:
                return change.resource
        return None

    watching = asyncio.create_task(told())
    await asyncio.wait_for(synced.wait(), patient(10))
    place.store.delete(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    lost = await asyncio.wait_for(watching, patient(20))
    assert lost is not None
    assert lost.reason == "ClaimLost"
    for words in (
        f"uid {uid}",
        f"bound to PersistentVolume {storage}",
        "on the cluster",
        "replace_lost_claim",
    ):
        assert words in lost.message
    assert is_so(lost, "Applied", FALSE)
    assert lost.persistent_volume == storage
    # Neither another change nor another check makes the claim again.
    await place.client.storage.update_volume(
        namespace=place.name,
        name="data",
        volume=pb.Volume(labels={"a": "b"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    still = await place.volume(lambda each: not each.reconciling)
    assert (still.status, still.reason, on_cluster(place)) == (FAILED, "ClaimLost", None)
    await place.run(mount())
    waiting = await place.container(lambda each: each.reason == "Unschedulable")
    assert 'persistentvolumeclaim "data" not found' in waiting.message
    replaced = await place.client.storage.update_volume(
        namespace=place.name, name="data", replace_lost_claim=True
    )
    assert (replaced.status, replaced.reason, replaced.claim_uid) == (AVAILABLE, "", "")
    there = await place.volume(lambda each: each.status == BOUND and not each.reconciling)
    assert there.claim_uid not in ("", uid)
    assert is_so(there, "Applied", TRUE)
    await place.running()
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.storage.update_volume(namespace=place.name, name="data", replace_lost_claim=True)
    assert refused.value.reason == "CLAIM_NOT_LOST"
    with pytest.raises(InvalidArgumentError):
        await place.client.storage.update_volume(namespace=place.name, name="data")


async def test_a_lost_claim_that_is_restored_is_bound_again(place: Place) -> None:
    await bound(place)
    claim = place.store.get(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    assert claim is not None
    place.store.delete(PERSISTENT_VOLUME_CLAIMS, place.name, "data")
    await place.volume(lambda each: each.reason == "ClaimLost" and not each.reconciling)
    spec = {key: value for key, value in claim["spec"].items() if key != "volumeName"}
    metadata = {"name": "data", "namespace": place.name, "labels": claim["metadata"]["labels"]}
    place.store.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": metadata, "spec": spec})
    back = await place.volume(lambda each: each.status == BOUND and is_so(each, "Applied", TRUE))
    assert (back.reason, back.message) == ("", "")
