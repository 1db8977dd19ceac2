"""Objects that an apply writes as a batch equal those written one by one, and are refused for the same reasons."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.applications.conftest import (
    JsonObject,
    Place,
    actions,
    budget,
    claim,
    config_map,
    deployment,
    secret,
    service,
)

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.errors import FailedPreconditionError, InvalidArgumentError

_SECRETS = """
SELECT s.name, s.type, s.data::text, s.labels::text, s.kubernetes_name, s.immutable, s.generation, s.created_by,
    s.updated_by, s.key_id FROM secrets AS s JOIN namespaces AS n ON n.id = s.namespace_id WHERE n.name = $1 ORDER BY 1
"""
_VOLUMES = """
SELECT v.name, v.type, v.storage_class, v.size, v.access_mode, v.kubernetes_name, v.spec::text, v.labels::text,
    v.created_by, v.updated_by, v.generation FROM volumes AS v JOIN namespaces AS n ON n.id = v.namespace_id
WHERE n.name = $1 ORDER BY 1
"""
_OBJECTS = """
SELECT o.name, o.kind, o.api_group, o.api_version, o.document, o.drift_policy, o.rights::text, o.privileged,
    o.protected, o.labels::text, o.annotations::text, o.created_by, o.updated_by, o.generation, o.contests::text
FROM objects AS o JOIN namespaces AS n ON n.id = o.namespace_id WHERE n.name = $1 ORDER BY 1
"""
_KEPT = """
SELECT v.secret_name, r.number, r.resource_type FROM revision_values AS v JOIN revisions AS r ON r.id = v.revision_id
JOIN namespaces AS n ON n.id = v.namespace_id
WHERE n.name = $1 AND r.resource_type = 'secret' ORDER BY 1, 2
"""
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
# Revisions are inserted with their rows and never updated, so their xmin identifies the write. A batch is written in a
# savepoint, so the xmin of its revisions differs from that of the application's revision.
_WRITES = """
SELECT r.resource_type, r.number, count(DISTINCT r.xmin::text) AS writes,
    bool_or(r.xmin IN (SELECT a.xmin FROM revisions AS a WHERE a.resource_type = 'application'
        AND a.namespace_id = r.namespace_id)) AS alone
FROM revisions AS r JOIN namespaces AS n ON n.id = r.namespace_id
WHERE n.name = $1 AND r.resource_type <> 'application' GROUP BY 1, 2
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


async def _together(place: Place, number: int) -> set[str]:
    """Returns the nouns whose objects were all written in one batch as this revision."""
    writes = [each for each in await _query(place, _WRITES, place.name) if each["number"] == number]
    return {each["resource_type"] for each in writes if each["writes"] == 1 and not each["alone"]}


async def _limit(place: Place, **quota: Any) -> None:
    await place.client.namespaces.update(
        namespace=namespace_pb2.Namespace(
            name=place.name, resource_quota=namespace_pb2.ResourceQuota(**quota)
        ),
        update_mask=FieldMask(paths=["resource_quota"]),
    )


async def _compare(place: Place, single: Place, number: int) -> None:
    """Compares the containers of both namespaces, and checks that this revision was written as a batch."""
    together, alone = [await _query(place, _ROWS, each) for each in (place.name, single.name)]
    assert [each["name"] for each in together if each["number"] == number] == list(_NAMES)
    assert together == alone
    assert "container" in await _together(place, number)


async def test_containers_and_services_of_a_batch_equal_single_ones(place: Place) -> None:
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
    assert await _together(place, 1) == {"config_map", "container", "service"}
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
async def test_objects_over_the_quota_are_named_and_nothing_is_written(
    place: Place, quota: dict[str, Any], reason: str, names: set[str]
) -> None:
    await _limit(place, **quota)
    tried = await place.apply(_documents(), validate_only=True)
    assert {(each.name, each.reason) for each in tried.problems} == {(name, reason) for name in names}
    with pytest.raises(InvalidArgumentError) as refused:
        await place.apply(_documents())
    assert refused.value.metadata["problems"] == str(len(names))
    assert not await _query(place, _WRITES, place.name)


async def test_changes_over_the_quota_are_named_and_nothing_is_written(place: Place) -> None:
    await _limit(place, cpu="500m")
    await place.apply(_documents())
    tried = await place.apply(_documents(cpu="200m"), validate_only=True)
    assert [(each.name, each.reason) for each in tried.problems] == [("pay", "QUOTA_EXCEEDED")]
    with pytest.raises(InvalidArgumentError):
        await place.apply(_documents(cpu="200m"))
    assert {each["number"] for each in await _query(place, _ROWS, place.name)} == {1}
    # One container gives up the quota that the next one takes.
    mixed = _documents(cpu="200m")
    mixed[2]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "50m"
    assert (await place.apply(mixed)).revision == 2


async def test_each_container_without_its_source_is_named(place: Place) -> None:
    documents = [each for each in _documents() if each["kind"] != "ConfigMap"]
    tried = await place.apply(documents, validate_only=True)
    assert {each.name for each in tried.problems} == set(_NAMES)
    assert {each.path for each in tried.problems} == {"container.env[0].source_name"}


def _of_other_nouns(level: str) -> list[JsonObject]:
    made = [
        [secret(name, word=level), claim(name), budget(name), config_map(name, level=level)]
        for name in _NAMES
    ]
    documents = [each for group in made for each in group]
    for each in documents:
        if each["kind"] == "PodDisruptionBudget":
            each["spec"]["minAvailable"] = int(level)
    return documents


async def test_secrets_volumes_and_objects_are_written_as_a_batch(place: Place) -> None:
    single = Place(place.server, place.cluster, f"{place.name}-single")
    await place.client.namespaces.create(namespace=namespace_pb2.Namespace(name=single.name))
    user = await place.server.user(f"op-{place.name}", {place.name: "operator", single.name: "operator"})
    for level in ("0", "1"):
        await place.apply(_of_other_nouns(level), client=user)
        for document in _of_other_nouns(level):
            await single.apply([document], name="", client=user)
    assert await _together(place, 1) == {"config_map", "object", "secret", "volume"}
    assert await _together(place, 2) == {"config_map", "object", "secret"}
    for name in _NAMES:
        for each in (place, single):
            found = await place.client.config.reveal_secret(namespace=each.name, name=name)
            assert dict(found.data) == {"word": b"1"}
    for query in (_SECRETS, _VOLUMES, _OBJECTS, _KEPT):
        rows = await _query(place, query, place.name)
        assert rows
        assert rows == await _query(place, query, single.name)
    # The earlier values are kept, and a rollback restores all of them.
    await place.client.applications.rollback(namespace=place.name, name="shop")
    found = await place.client.config.reveal_secret(namespace=place.name, name="cart")
    assert dict(found.data) == {"word": b"0"}
    assert await _together(place, 3) == {"config_map", "object", "secret"}


def _scaled(most: int) -> list[JsonObject]:
    scalers: list[JsonObject] = [
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": 1,
                "maxReplicas": most,
            },
        }
        for name in _NAMES
    ]
    made = [*_documents(), *scalers]
    for each in made:
        if each["kind"] == "Deployment":
            each["spec"].pop("replicas", None)
    return made


async def test_autoscalers_of_a_batch_count_against_the_quota(place: Place) -> None:
    await _limit(place, cpu="1200m")
    await place.apply(_scaled(3))
    assert "object" in await _together(place, 1)
    await place.apply(_scaled(4))
    assert "object" in await _together(place, 2)
    tried = await place.apply(_scaled(5), validate_only=True)
    assert {(each.name, each.reason) for each in tried.problems} == {
        (name, "QUOTA_EXCEEDED") for name in _NAMES
    }
    # Without the autoscalers, the quota has room for larger containers.
    await place.apply(_documents(), prune=True)
    await place.apply(_documents(cpu="400m"))


async def test_an_application_with_objects_in_use_is_not_deleted(place: Place) -> None:
    await place.apply([config_map(), config_map("words"), secret("one"), secret("two")])
    readers = [each for each in _documents() if each["kind"] == "Deployment"]
    await place.apply(readers, name="readers")
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.applications.delete(namespace=place.name, name="shop")
    assert "settings" in refused.value.message
    assert {each.name async for each in place.client.config.list_secrets(namespace=place.name)} == {
        "one",
        "two",
    }
    await place.client.applications.delete(namespace=place.name, name="readers")
    deleted = await place.client.applications.delete(namespace=place.name, name="shop")
    assert len(deleted.changes) == 4


async def test_one_refused_object_among_many_is_the_only_one_named(place: Place) -> None:
    documents = [*_of_other_nouns("0"), *(secret(f"more-{number}") for number in range(13))]
    await place.apply([secret("more-7")], name="")
    taken = await place.apply(documents, validate_only=True)
    assert [(each.name, each.reason) for each in taken.problems] == [("more-7", "EXISTS_OUTSIDE")]
    unknown = {**secret("more-9"), "type": "kubernetes.io/tls"}
    documents[-4] = unknown
    tried = await place.apply(documents, validate_only=True, take_over=True)
    assert [each.name for each in tried.problems] == ["more-9"]
    with pytest.raises(InvalidArgumentError) as refused:
        await place.apply(documents, take_over=True)
    assert refused.value.metadata["problems"] == "1"
    assert not [each async for each in place.client.storage.list_volumes(namespace=place.name)]
