"""Revisions of Services, objects, volumes, config maps and secrets: each change of callers' fields makes one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.config.operations import secrets
from pilothouse_server.revisions import operations
from tests.harness import Server
from tests.waiting import poll_until

NAMESPACE = "kept"


@pytest.fixture(scope="module")
async def demo(shared_server: Server) -> Server:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
    return shared_server


async def kept(server: Server, resource_type: str, name: str) -> Sequence[Any]:
    """Returns the revisions of a resource, oldest first."""
    table = {"config_map": "config_maps"}.get(resource_type, f"{resource_type}s")
    async with server.database.system() as sql:
        return [
            (row["number"], json.loads(row["document"]), row["username"], row["operation_id"])
            for row in await sql.fetch(
                f"SELECT r.*, u.username FROM revisions AS r JOIN {table} AS t ON t.id = r.resource_id "
                "LEFT JOIN users AS u ON u.id = r.created_by "
                "WHERE r.resource_type = $1 AND t.name = $2 ORDER BY r.number",
                resource_type,
                name,
            )
        ]


async def change_service(server: Server, port: int) -> None:
    service = network_pb2.Service(
        name="web", selector={"app": "web"}, ports=[network_pb2.ServicePort(name="http", port=port)]
    )
    if port == 1:
        await server.admin.network.create_service(namespace=NAMESPACE, service=service)
    else:
        await server.admin.network.update_service(
            namespace=NAMESPACE, name="web", service=service, update_mask=FieldMask(paths=["ports"])
        )


async def change_object(server: Server, number: int) -> None:
    document = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"maxUnavailable": number, "selector": {"matchLabels": {"app": "web"}}},
    }
    carried = object_pb2.Object(
        api_version="policy/v1", kind="PodDisruptionBudget", name="web", document=json.dumps(document)
    )
    if number == 1:
        await server.admin.objects.create(namespace=NAMESPACE, object=carried)
    else:
        await server.admin.objects.update(
            namespace=NAMESPACE,
            api_version="policy/v1",
            kind="PodDisruptionBudget",
            name="web",
            object=carried,
            update_mask=FieldMask(paths=["document"]),
        )


async def change_volume(server: Server, number: int) -> None:
    volume = storage_pb2.Volume(
        name="web",
        type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        access_mode=storage_pb2.ACCESS_MODE_READ_WRITE_ONCE,
        size=f"{number}Gi",
    )
    if number == 1:
        await server.admin.storage.create_volume(namespace=NAMESPACE, volume=volume)
    else:
        await server.admin.storage.update_volume(
            namespace=NAMESPACE, name="web", volume=volume, update_mask=FieldMask(paths=["size"])
        )


async def change_config_map(server: Server, number: int, name: str = "web") -> None:
    config_map = config_pb2.ConfigMap(name=name, data={"level": str(number)})
    if number == 1:
        await server.admin.config.create_config_map(namespace=NAMESPACE, config_map=config_map)
    else:
        await server.admin.config.update_config_map(
            namespace=NAMESPACE, name=name, config_map=config_map, update_mask=FieldMask(paths=["data"])
        )


async def change_secret(server: Server, number: int, name: str = "web") -> None:
    secret = config_pb2.Secret(name=name, string_data={"password": f"value-{number}"})
    if number == 1:
        await server.admin.config.create_secret(namespace=NAMESPACE, secret=secret)
    else:
        await server.admin.config.update_secret(
            namespace=NAMESPACE, name=name, secret=secret, update_mask=FieldMask(paths=["string_data"])
        )


CASES: dict[str, tuple[Callable[[Server, int], Awaitable[None]], Callable[[Any], Any] | None]] = {
    "service": (change_service, lambda document: document["spec"]["ports"][0]["port"]),
    "object": (change_object, lambda document: json.loads(document["document"])["spec"]["maxUnavailable"]),
    "volume": (change_volume, lambda document: int(document["size"].removesuffix("Gi"))),
    "config_map": (change_config_map, lambda document: int(document["data"]["level"])),
    "secret": (change_secret, None),
}


@pytest.mark.parametrize("resource_type", CASES)
async def test_each_change_makes_a_revision(demo: Server, resource_type: str) -> None:
    change, value = CASES[resource_type]
    await change(demo, 1)
    await change(demo, 2)
    # The same values again are no change.
    await change(demo, 2)
    found = await kept(demo, resource_type, "web")
    assert [(number, username) for number, _, username, _ in found] == [(1, "admin"), (2, "admin")]
    if value is not None:
        assert [value(document) for _, document, _, _ in found] == [1, 2]
    records = [await demo.admin.audit.get_operation(operation_id=str(each[3])) for each in found]
    assert [record.action for record in records] == ["create", "update"]


async def test_the_oldest_revisions_are_deleted(demo: Server) -> None:
    for number in range(1, 23):
        await change_config_map(demo, number, "many")
    assert [each[0] for each in await kept(demo, "config_map", "many")] == list(range(3, 23))


async def test_a_row_of_an_earlier_release_gets_two_revisions_when_changed(demo: Server) -> None:
    config = demo.admin.config
    old = config_pb2.ConfigMap(name="old", data={"level": "1"})
    await config.create_config_map(namespace=NAMESPACE, config_map=old)
    async with demo.database.system() as sql:
        await sql.execute(
            "DELETE FROM revisions WHERE resource_id = (SELECT id FROM config_maps WHERE name = 'old')"
            " AND resource_type = 'config_map'"
        )
    await config.update_config_map(
        namespace=NAMESPACE,
        name="old",
        config_map=config_pb2.ConfigMap(name="old", data={"level": "2"}),
        update_mask=FieldMask(paths=["data"]),
    )
    found = await kept(demo, "config_map", "old")
    levels = [(number, document["data"]["level"], username) for number, document, username, _ in found]
    assert levels == [(1, "1", None), (2, "2", "admin")]


async def test_owned_services_have_no_revisions_and_a_deletion_makes_none(demo: Server) -> None:
    container = container_pb2.Container(
        name="owner", image="a:1", ports=[container_pb2.Port(container_port=80, service_name="owned")]
    )
    await demo.admin.containers.create(namespace=NAMESPACE, container=container)

    async def owned() -> bool:
        return [each.name async for each in demo.admin.network.list_services(namespace=NAMESPACE)].count(
            "owned"
        ) == 1

    await poll_until(owned)
    assert not await kept(demo, "service", "owned")
    gone = config_pb2.ConfigMap(name="gone", data={"a": "1"})
    made = await demo.admin.config.create_config_map(namespace=NAMESPACE, config_map=gone)
    await demo.admin.config.delete_config_map(namespace=NAMESPACE, name="gone")

    async def forgotten() -> bool:
        async with demo.database.system() as sql:
            operation = "SELECT count(*) FROM revisions WHERE document -> 'data' = '{\"a\": \"1\"}'"
            left: int = await sql.fetchval(operation)
            return left == 0

    assert made.generation == 1
    await poll_until(forgotten)


async def former_values(server: Server, name: str, number: int) -> tuple[int, bytes | None] | None:
    """Returns the values of revision `number` of a secret, if they are not the present ones."""
    store, envelopes = server.application.store, server.application.envelopes
    async with store.system_read() as transaction:
        found = await secrets.locate(transaction, NAMESPACE, name)
        return await operations.kept_values(transaction, secrets.revised(found), number, name, envelopes)


async def test_former_values_of_a_secret_are_sealed_for_their_revision(demo: Server) -> None:
    for number in (1, 2):
        await change_secret(demo, number, "sealed")
    # The revision before a change of labels has the same values.
    await demo.admin.config.update_secret(
        namespace=NAMESPACE,
        name="sealed",
        secret=config_pb2.Secret(name="sealed", labels={"tier": "back"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    await change_secret(demo, 4, "sealed")
    found = await kept(demo, "secret", "sealed")
    assert [number for number, *_ in found] == [1, 2, 3, 4]
    assert "value-" not in json.dumps([document for _, document, *_ in found])
    values = [await former_values(demo, "sealed", number) for number in (1, 2, 3, 4)]
    assert values[3] is None
    first, second, third = (each for each in values[:3] if each is not None and each[1] is not None)
    assert (first[0], second[0], third[0]) == (1, 3, 3)
    assert b"value-1" in (first[1] or b"")
    assert second[1] == third[1]
    assert b"value-2" in (third[1] or b"")
    # Values that are moved to another revision are refused.
    async with demo.database.system() as sql:
        await sql.execute(
            "UPDATE revision_values AS v SET ciphertext = w.ciphertext, data_key = w.data_key "
            "FROM revision_values AS w JOIN revisions AS r ON r.id = w.revision_id, revisions AS s "
            "WHERE v.secret_name = 'sealed' AND w.secret_name = 'sealed' AND r.number = 1 "
            "AND s.id = v.revision_id AND s.number = 3"
        )
    assert await former_values(demo, "sealed", 1) == first
    with pytest.raises(Exception, match="moved from another row"):
        await former_values(demo, "sealed", 3)
