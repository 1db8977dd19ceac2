"""Carried objects: made, applied, shown, changed, deleted, listed."""

from __future__ import annotations

import json

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse_server.kubernetes.ownership import OBJECT_UID
from pilothouse_simulator.values.resources import SERVICE_ACCOUNTS
from tests.objects.conftest import ACCOUNT, Place

ACTIVE, PENDING = pb.OBJECT_STATUS_ACTIVE, pb.OBJECT_STATUS_PENDING


async def test_an_object_comes_to_its_cluster_as_it_was_written(place: Place) -> None:
    document = {"metadata": {"labels": {"tier": "back"}}, "automountServiceAccountToken": False}
    made = await place.make(ACCOUNT, document)
    assert (made.api_version, made.kind, made.name, dict(made.labels)) == (
        *("v1", "ServiceAccount", "web"),
        {"tier": "back"},
    )
    carried = await place.settled(ACCOUNT)
    found = place.on_cluster(SERVICE_ACCOUNTS)
    assert found["metadata"]["labels"].items() >= {"tier": "back", OBJECT_UID: made.uid}.items()
    assert found["automountServiceAccountToken"] is False
    assert carried.health == pb.OBJECT_HEALTH_HEALTHY
    assert json.loads(carried.document) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "web", "labels": {"tier": "back"}},
        "automountServiceAccountToken": False,
    }
    basic = await place.get(ACCOUNT, view=pb.OBJECT_VIEW_BASIC)
    assert (basic.document, basic.document_digest) == ("", carried.document_digest)
    changed = await place.change(ACCOUNT, labels={"tier": "front"})
    assert json.loads(changed.document)["metadata"]["labels"] == {"tier": "front"}
    await place.seen(SERVICE_ACCOUNTS, lambda each: each["metadata"]["labels"].get("tier") == "front")
    await place.delete(ACCOUNT)
    await place.gone(ACCOUNT)
    assert place.store.get(SERVICE_ACCOUNTS, place.name, "web") is None
