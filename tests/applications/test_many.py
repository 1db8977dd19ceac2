"""Objects that an apply writes together are as those written one by one, and refused as those."""

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
WHERE n.name = $1 ORDER BY c.name, r.number
"""
# Revisions are written with their rows, and stay as they are.
_WRITES = """
SELECT r.resource_type, r.number, count(DISTINCT r.xmin::text) AS writes
FROM revisions AS r JOIN namespaces AS n ON n.id = r.namespace_id
WHERE n.name = $1 AND r.resource_type IN ('config_map', 'container', 'service') GROUP BY 1, 2
"""


def _documents(cpu: str = "100m", image: str = "nginx:1.27") -> list[JsonObject]:
    documents: list[JsonObject] = [config_map(), config_map("words", b="é")]
    for name in _NAMES:
        web = deployment(name, image)
        (program,) = web["spec"]["template"]["spec"]["containers"]
        program["env"] = [
            {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}
        ]
        program["resources"] = {"requests": {"cpu": cpu, "memory": "64Mi"}}
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


async def _compare(place: Place, single: Place, number: int) -> None:
    """Compares the containers of both, and counts the writes of their revisions of this number."""
    together, alone = [await _query(place, _ROWS, each) for each in (place.name, single.name)]
    assert [each["name"] for each in together if each["number"] == number] == list(_NAMES)
    assert together == alone
    writes = await _query(place, _WRITES, place.name)
    found = {each["resource_type"]: each["writes"] for each in writes if each["number"] == number}
    assert found["container"] == 1


async def test_containers_and_services_that_are_written_together_are_as_single_ones(place: Place) -> None:
    single = Place(place.server, place.cluster, f"{place.name}-single")
    await place.client.namespaces.create(namespace=namespace_pb2.Namespace(name=single.name))
    await _limit(place, containers=3, services=3, cpu="300m")
    applied = await place.apply(_documents())
    assert set(actions(applied.changes).values()) == {"create"}
    for document in _documents():
        await single.apply([document], name="")
    await _compare(place, single, 1)
    for name in _NAMES:
        made, other = [
            await place.client.network.get_service(namespace=each, name=name)
            for each in (place.name, single.name)
        ]
        assert (made.ports, made.selector) == (other.ports, other.selector)
        assert made.labels == other.labels
    for name in ("settings", "words"):
        found = [
            await place.client.config.get_config_map(namespace=each, name=name)
            for each in (place.name, single.name)
        ]
        assert found[0].data == found[1].data
        assert found[0].created_by == found[1].created_by == "admin"
    writes = await _query(place, _WRITES, place.name)
    assert {each["resource_type"]: each["writes"] for each in writes} == {
        "config_map": 1,
        "container": 1,
        "service": 1,
    }
    changed = _documents(cpu="50m", image="nginx:1.28")
    applied = await place.apply(changed)
    assert sorted(actions(applied.changes).values()) == [*["unchanged"] * 5, *["update"] * 3]
    for document in changed:
        await single.apply([document], name="")
    await _compare(place, single, 2)


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


async def test_changes_beyond_a_quota_are_named_and_nothing_is_written(place: Place) -> None:
    await _limit(place, cpu="500m")
    await place.apply(_documents())
    tried = await place.apply(_documents(cpu="200m"), validate_only=True)
    assert [(each.name, each.reason) for each in tried.problems] == [("pay", "QUOTA_EXCEEDED")]
    with pytest.raises(InvalidArgumentError):
        await place.apply(_documents(cpu="200m"))
    assert {each["number"] for each in await _query(place, _ROWS, place.name)} == {1}
    # One gives up what the next one takes.
    mixed = _documents(cpu="200m")
    mixed[2]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "50m"
    assert (await place.apply(mixed)).revision == 2


async def test_each_of_many_containers_without_its_source_is_named(place: Place) -> None:
    documents = [each for each in _documents() if each["kind"] != "ConfigMap"]
    tried = await place.apply(documents, validate_only=True)
    assert {each.name for each in tried.problems} == set(_NAMES)
    assert {each.path for each in tried.problems} == {"container.env[0].source_name"}
