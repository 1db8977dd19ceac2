"""Services that containers own: shown with their owner, watched, counted, and changed only through their container."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2 as pb
from pilothouse_client.errors import FailedPreconditionError, ResourceExhaustedError
from pilothouse_client.streams import ChangeKind
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.network.manifests import SERVICE_UID
from tests.network.conftest import Place
from tests.waiting import poll_until, within


def _port(number: int = 80, service: str = "") -> container_pb2.Port:
    return container_pb2.Port(container_port=number, service_name=service)


async def _publish(place: Place, name: str, *ports: container_pb2.Port) -> container_pb2.Container:
    return await place.client.containers.update(
        namespace=place.name,
        name=name,
        container=container_pb2.Container(ports=ports),
        update_mask=FieldMask(paths=["ports"]),
    )


async def _shown(place: Place, *names: str) -> None:
    async def listed() -> bool:
        found = place.client.network.list_services(namespace=place.name)
        return [each.name async for each in found] == sorted(names)

    await poll_until(listed, what=f"services {names}")


async def _limit(place: Place, services: int) -> None:
    await place.client.namespaces.update(
        name=place.name,
        namespace=namespace_pb2.Namespace(resource_quota=namespace_pb2.ResourceQuota(services=services)),
        update_mask=FieldMask(paths=["resource_quota"]),
    )


async def test_the_service_of_a_port_shows_its_owner_addresses_and_endpoints(place: Place) -> None:
    container = await place.run("shop", _port(8080), labels={"tier": "front"}, replicas=2)
    await _shown(place, "shop")
    service = await place.service(lambda each: each.ready_endpoints == 2 and bool(each.addresses), "shop")
    found = place.on_cluster("shop")
    assert (service.owner, service.status, service.created_by) == ("shop", pb.SERVICE_STATUS_ACTIVE, "admin")
    assert dict(service.selector) == {CONTAINER_UID: container.uid}
    assert dict(service.labels) == {"tier": "front"}
    assert [(port.name, port.port, port.target) for port in service.ports] == [("tcp-8080", 8080, "8080")]
    assert list(service.addresses) == [found["spec"]["clusterIP"]]
    assert found["metadata"]["labels"][SERVICE_UID] == service.uid
    assert not service.reconciling
    of_shop = place.client.network.list_services(namespace=place.name, filter='owner = "shop"')
    assert [each.uid async for each in of_shop] == [service.uid]


async def test_an_owned_service_changes_and_ends_only_through_its_container(place: Place) -> None:
    await place.run("shop", _port(), _port(81, "extra"))
    await _shown(place, "extra", "shop")
    for attempt in (
        place.change("extra", ports=[pb.ServicePort(port=82)]),
        place.client.network.delete_service(namespace=place.name, name="extra"),
    ):
        with pytest.raises(FailedPreconditionError) as refused:
            await attempt
        assert refused.value.reason == "SERVICE_OWNED"
        assert refused.value.metadata["container"] == "shop"
        assert 'belongs to container "shop"' in str(refused.value)
    kept = await place.get("extra")
    await _publish(place, "shop", _port(82, "extra"))
    await _shown(place, "extra")
    changed = await place.service(lambda each: each.ports[0].port == 82, "extra")
    assert (changed.uid, changed.generation) == (kept.uid, kept.generation + 1)
    # Its name is free again.
    await place.make("shop")
    await place.client.containers.delete(namespace=place.name, name="shop")
    await place.gone("extra")
    await _shown(place, "shop")


async def test_watchers_see_owned_services_added_changed_and_deleted(place: Place) -> None:
    async with within(10.0), place.client.network.watch_services(namespace=place.name) as changes:

        async def until(kind: ChangeKind, port: int) -> None:
            async for change in changes:
                if change.kind is kind and change.resource.ports[0].port == port:
                    assert change.resource.owner == "shop"
                    return

        await place.run("shop", _port())
        await until(ChangeKind.ADDED, 80)
        await _publish(place, "shop", _port(81))
        await until(ChangeKind.MODIFIED, 81)
        await place.client.containers.delete(namespace=place.name, name="shop")
        await until(ChangeKind.DELETED, 81)


async def test_a_change_that_does_not_affect_the_services_writes_none_of_them(place: Place) -> None:
    await place.run("shop", _port())
    await _shown(place, "shop")
    before = await place.settled("shop")
    await place.client.containers.restart(namespace=place.name, name="shop")
    await place.run("last", _port(90))
    await _shown(place, "last", "shop")
    assert (await place.get("shop")).generation == before.generation


async def test_owned_services_count_against_the_quota(place: Place) -> None:
    await _limit(place, 2)
    await place.run("shop", _port(), _port(81, "extra"))
    for attempt in (place.make("third"), place.run("third", _port())):
        with pytest.raises(ResourceExhaustedError) as exhausted:
            await attempt
        assert exhausted.value.metadata["resource"] == "services"
        assert "services 2 used, 1 requested, 2 allowed" in str(exhausted.value)
    await place.run("quiet")
    with pytest.raises(ResourceExhaustedError):
        await _publish(place, "quiet", _port())
    # Replacing one Service by another does not increase the number.
    await _publish(place, "shop", _port(), _port(81, "other"))
    await _publish(place, "shop", _port())
    await place.make("third")
    usage = await place.client.namespaces.get_quota_usage(name=place.name)
    assert usage.used.services == 2


async def test_concurrent_containers_get_no_more_services_than_the_quota_allows(
    place: Place,
) -> None:
    await _limit(place, 3)
    made = await asyncio.gather(
        *(place.run(f"web-{number}", _port()) for number in range(8)),
        *(place.make(f"own-{number}") for number in range(4)),
        return_exceptions=True,
    )
    failed = [each for each in made if isinstance(each, BaseException)]
    assert [type(each) for each in failed] == [ResourceExhaustedError] * 9
