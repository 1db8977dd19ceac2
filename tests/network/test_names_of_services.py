"""A Service name belongs either to the ports of one container or to one standalone Service."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2 as pb
from pilothouse_client.errors import AlreadyExistsError, FailedPreconditionError
from tests.network.conftest import Place


def _port(
    service: str, type_: container_pb2.ServiceType.ValueType = container_pb2.SERVICE_TYPE_UNSPECIFIED
) -> container_pb2.Port:
    return container_pb2.Port(container_port=80, service_name=service, service_type=type_)


async def _publish(place: Place, container: str, *ports: container_pb2.Port) -> container_pb2.Container:
    return await place.client.containers.update(
        namespace=place.name,
        name=container,
        container=container_pb2.Container(ports=ports),
        update_mask=FieldMask(paths=["ports"]),
    )


async def test_a_container_cannot_take_the_name_of_a_standalone_service(place: Place) -> None:
    await place.make("web")
    with pytest.raises(AlreadyExistsError) as taken:
        await place.run("web", container_pb2.Port(container_port=80))
    assert taken.value.reason == "SERVICE_ALREADY_EXISTS"
    await place.run("shop")
    with pytest.raises(AlreadyExistsError):
        await _publish(place, "shop", _port("web"))
    await place.settled()
    await place.client.network.delete_service(namespace=place.name, name="web")
    await place.gone()
    published = await _publish(place, "shop", _port("web"))
    assert published.ports[0].service_name == "web"


async def test_if_a_service_and_a_container_race_for_a_name_only_one_gets_it(place: Place) -> None:
    numbers = range(6)
    await asyncio.gather(*(place.run(f"there-{number}") for number in numbers))
    made = await asyncio.gather(
        *(place.make(f"new-{number}") for number in numbers),
        *(place.make(f"old-{number}") for number in numbers),
        *(place.run(f"new-{number}", _port(f"new-{number}")) for number in numbers),
        *(_publish(place, f"there-{number}", _port(f"old-{number}")) for number in numbers),
        return_exceptions=True,
    )
    failed = [each for each in made if isinstance(each, BaseException)]
    assert [type(each) for each in failed] == [AlreadyExistsError] * 12
    for services, containers in ((made[:6], made[12:18]), (made[6:12], made[18:])):
        for service, container in zip(services, containers, strict=True):
            assert isinstance(service, pb.Service) is not isinstance(container, container_pb2.Container)


async def test_a_container_gets_no_new_service_of_a_type_no_longer_allowed(
    place: Place,
) -> None:
    node_port = container_pb2.SERVICE_TYPE_NODE_PORT
    await place.run("shop", _port("first", node_port))
    await place.client.namespaces.update(
        name=place.name,
        namespace=namespace_pb2.Namespace(service_types=[pb.SERVICE_TYPE_CLUSTER_IP]),
        update_mask=FieldMask(paths=["service_types"]),
    )
    with pytest.raises(FailedPreconditionError) as refused:
        await _publish(place, "shop", _port("first", node_port), _port("second", node_port))
    assert refused.value.metadata["field"] == "container.ports[1].service_type"
    # The existing Service stays.
    kept = await _publish(place, "shop", _port("first", node_port), _port("second"))
    assert len(kept.ports) == 2
