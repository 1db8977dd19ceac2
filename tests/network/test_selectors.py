"""The selector of a workload: the caller's labels and ours, contained in the labels of the pods, immutable."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse_client.errors import InvalidArgumentError
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_simulator.values.resources import DEPLOYMENTS
from tests.network.conftest import JsonObject, Place
from tests.waiting import poll_until

WEB = {"app": "web"}


async def _deployment(place: Place, name: str) -> JsonObject:
    async def there() -> JsonObject | None:
        return place.store.get(DEPLOYMENTS, place.name, name)

    found = await poll_until(there, what=f"Deployment {name}")
    assert found is not None
    return found


async def test_a_selector_has_the_containers_labels_and_our_label(place: Place) -> None:
    made = await place.run("web", pod_labels={**WEB, "tier": "front"}, selector=WEB)
    plain = await place.run("plain", pod_labels=WEB)
    for container, labels in ((made, WEB), (plain, {})):
        found = await _deployment(place, container.name)
        assert found["spec"]["selector"] == {"matchLabels": {**labels, CONTAINER_UID: container.uid}}
    # The object stays when the labels of its pods change.
    found = await _deployment(place, "web")
    changed = await place.client.containers.update(
        namespace=place.name,
        name="web",
        container=container_pb2.Container(pod_labels={**WEB, "tier": "back"}),
        update_mask=FieldMask(paths=["pod_labels"]),
    )
    assert dict(changed.selector) == WEB

    async def rolled() -> bool:
        there = await _deployment(place, "web")
        assert there["metadata"]["uid"] == found["metadata"]["uid"]
        return bool(there["spec"]["template"]["metadata"]["labels"]["tier"] == "back")

    await poll_until(rolled, what="the changed labels of the pods")


async def test_a_selector_must_match_the_pod_labels_and_is_immutable(place: Place) -> None:
    words = 'container.pod_labels: must have "app": "web", because selector has it and cannot change'
    with pytest.raises(InvalidArgumentError, match=words):
        await place.run("web", pod_labels={"app": "shop"}, selector=WEB)
    with pytest.raises(InvalidArgumentError, match=r"container\.selector: .* set by the platform"):
        await place.run("web", selector={CONTAINER_UID: "1"})
    await place.run("web", labels=WEB, selector=WEB)
    for fields, rule in (
        ({"pod_labels": {"app": "shop"}}, words),
        ({"selector": {}}, '"selector" never changes once it is given'),
    ):
        with pytest.raises(InvalidArgumentError, match=rule):
            await place.client.containers.update(
                namespace=place.name,
                name="web",
                container=container_pb2.Container(**fields),
                update_mask=FieldMask(paths=list(fields)),
            )
