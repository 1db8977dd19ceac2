"""Objects that an apply creates together are as those created one by one, and refused as those."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.applications.conftest import JsonObject, Place, actions, config_map, deployment, service

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.errors import InvalidArgumentError

_NAMES = ("cart", "front", "pay")
_ROWS = """
SELECT c.name, c.spec::text, c.labels::text, c.cpu_request, c.memory_request, c.quota_cpu_millicores,
    c.quota_memory_bytes, c.desired_state, c.kubernetes_name, c.created_by, c.revision_number, i.name AS image,
    r.number, r.document::text, r.created_by AS reviser,
    (SELECT count(*) FROM environment_variables AS e WHERE e.container_id = c.id) AS variables,
    (SELECT count(*) FROM container_status_history AS h
     WHERE h.container_id = c.id AND h.triggered_by = 'user' AND h.current_status = 'pending') AS lines
FROM containers AS c JOIN container_images AS i ON i.id = c.image_id JOIN namespaces AS n ON n.id = c.namespace_id
JOIN revisions AS r ON r.resource_type = 'container' AND r.resource_id = c.id
WHERE n.name = $1 ORDER BY c.name
"""
# Revisions are written with their rows, and stay as they are.
_WRITES = """
SELECT r.resource_type, count(*) AS rows, count(DISTINCT r.xmin::text) AS writes
FROM revisions AS r JOIN namespaces AS n ON n.id = r.namespace_id
WHERE n.name = $1 AND r.resource_type IN ('container', 'service') GROUP BY r.resource_type
"""


def _documents() -> list[JsonObject]:
    documents: list[JsonObject] = [config_map()]
    for name in _NAMES:
        web = deployment(name)
        (program,) = web["spec"]["template"]["spec"]["containers"]
        program["env"] = [
            {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}
        ]
        program["resources"] = {"requests": {"cpu": "100m", "memory": "64Mi"}}
        documents += [web, service(name)]
    return documents


async def _query(place: Place, query: str, namespace: str) -> list[dict[str, Any]]:
    async with place.server.database.owner() as connection:
        return [dict(each) for each in await connection.fetch(query, namespace)]


async def _limit(place: Place, **quota: Any) -> None:
    await place.client.namespaces.update(
        namespace=namespace_pb2.Namespace(
            name=place.name, resource_quota=namespace_pb2.ResourceQuota(**quota)
        ),
        update_mask=FieldMask(paths=["resource_quota"]),
    )


async def test_containers_and_services_that_are_created_together_are_as_single_ones(place: Place) -> None:
    single = Place(place.server, place.cluster, f"{place.name}-single")
    await place.client.namespaces.create(namespace=namespace_pb2.Namespace(name=single.name))
    await _limit(place, containers=3, services=3, cpu="300m")
    applied = await place.apply(_documents())
    assert set(actions(applied.changes).values()) == {"create"}
    for document in _documents():
        await single.apply([document], name="")
    together, alone = [await _query(place, _ROWS, each) for each in (place.name, single.name)]
    assert [each["name"] for each in together] == list(_NAMES)
    assert together == alone
    for name in _NAMES:
        made, other = [
            await place.client.network.get_service(namespace=each, name=name)
            for each in (place.name, single.name)
        ]
        assert (made.ports, made.selector) == (other.ports, other.selector)
    writes = {each["resource_type"]: each for each in await _query(place, _WRITES, place.name)}
    assert {name: (each["rows"], each["writes"]) for name, each in writes.items()} == {
        "container": (3, 1),
        "service": (3, 1),
    }


@pytest.mark.parametrize(
    ("quota", "reason", "names"),
    [
        ({"containers": 2}, "QUOTA_EXCEEDED", {"pay"}),
        ({"cpu": "250m"}, "QUOTA_EXCEEDED", {"pay"}),
        ({"services": 1}, "QUOTA_EXCEEDED", {"front", "pay"}),
    ],
)
async def test_objects_beyond_a_quota_are_named_and_nothing_is_written(
    place: Place, quota: dict[str, Any], reason: str, names: set[str]
) -> None:
    await _limit(place, **quota)
    tried = await place.apply(_documents(), validate_only=True)
    assert {(each.name, each.reason) for each in tried.problems} == {(name, reason) for name in names}
    with pytest.raises(InvalidArgumentError) as refused:
        await place.apply(_documents())
    assert refused.value.metadata["problems"] == str(len(names))
    assert not await _query(place, _WRITES, place.name)


async def test_each_of_many_containers_without_its_source_is_named(place: Place) -> None:
    documents = [each for each in _documents() if each["kind"] != "ConfigMap"]
    tried = await place.apply(documents, validate_only=True)
    assert {each.name for each in tried.problems} == set(_NAMES)
    assert {each.path for each in tried.problems} == {"container.env[0].source_name"}
