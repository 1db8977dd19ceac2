"""Config maps and secrets on their cluster: applied, changed, deleted, refused, read by containers."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import errors
from pilothouse_server.containers import manifests
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, DEPLOYMENTS, SECRETS, Manifest
from pilothouse_server.kubernetes.ownership import CONFIG_UID, MANAGED_BY, MANAGER
from tests.config.conftest import Place
from tests.waiting import poll_until


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def make_secret(place: Place, name: str = "app", **fields: Any) -> pb.Secret:
    secret = pb.Secret(name=name, **{"data": {"a": b"1", "b": b"2"}, **fields})
    made = await place.client.config.create_secret(namespace=place.name, secret=secret)
    await place.applied(name)
    return made


async def change_secret(
    place: Place, name: str = "app", *, restart: bool = False, **fields: Any
) -> list[str]:
    answer = await place.client.config.update_secret(
        namespace=place.name,
        name=name,
        secret=pb.Secret(**fields),
        update_mask=FieldMask(paths=list(fields)),
        restart_containers=restart,
    )
    return list(answer.restarted)


def applied_of(config: pb.Secret | pb.ConfigMap) -> resource_pb2.Condition:
    (condition,) = [each for each in config.conditions if each.type == "Applied"]
    return condition


def reading(source: str, key: str = "a", name: str = "web") -> container_pb2.Container:
    env = container_pb2.EnvVar(
        name="VALUE", value_from=container_pb2.ENV_VALUE_FROM_SECRET, source_name=source, source_key=key
    )
    return container_pb2.Container(name=name, image="nginx:1.27", env=[env])


@pytest.mark.parametrize("name", ["ca.example.org", "a" * 62 + "." + "b" * 190])
async def test_a_name_may_be_a_subdomain(place: Place, name: str) -> None:
    await make_secret(place, name)
    await place.client.containers.create(namespace=place.name, container=reading(name))
    assert await place.secret_on_cluster(name) is not None
    with pytest.raises(errors.InvalidArgumentError, match="must be a DNS subdomain"):
        await make_secret(place, name.upper())


async def test_a_secret_is_applied_changed_and_deleted(place: Place) -> None:
    made = await make_secret(place, type="example.com/own", labels={"tier": "db"}, annotations={"note": "x"})
    found = await place.secret_on_cluster("app")
    assert found is not None
    assert (found["type"], found["data"]) == ("example.com/own", {"a": encoded(b"1"), "b": encoded(b"2")})
    labels = found["metadata"]["labels"]
    assert (labels["tier"], labels[CONFIG_UID]) == ("db", made.uid)
    assert found["metadata"]["annotations"] == {"note": "x"}
    await change_secret(place, data={"b": b"\x00\xff"}, labels={})
    await place.applied("app")
    found = await place.secret_on_cluster("app")
    assert found is not None
    assert found["data"] == {"b": encoded(b"\x00\xff")}
    assert "tier" not in found["metadata"]["labels"]
    shown = await place.client.config.get_secret(namespace=place.name, name="app")
    assert applied_of(shown).status == resource_pb2.CONDITION_STATUS_TRUE
    assert (shown.generation, shown.observed_generation, shown.reconciling) == (2, 2, False)
    await place.client.config.delete_secret(namespace=place.name, name="app")

    async def gone() -> bool:
        return await place.secret_on_cluster("app") is None

    await poll_until(gone, what="the secret gone from the cluster")


async def test_a_config_map_is_applied_with_text_and_bytes(place: Place) -> None:
    config_map = pb.ConfigMap(name="app", data={"mode": "fast"}, binary_data={"b": b"\xff"}, immutable=True)
    await place.client.config.create_config_map(namespace=place.name, config_map=config_map)
    await place.applied("app")
    found = await place.config_map_on_cluster("app")
    assert found is not None
    assert (found["data"], found["binaryData"]) == ({"mode": "fast"}, {"b": encoded(b"\xff")})
    assert found["immutable"] is True


async def test_the_row_stays_until_the_object_is_deleted(place: Place) -> None:
    await make_secret(place)
    held = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "app", "namespace": place.name, "finalizers": ["example.com/held"]},
    }
    await place.cluster.merge_patch(SECRETS, place.name, "app", held)
    await place.client.config.delete_secret(namespace=place.name, name="app")

    async def ending() -> bool:
        found = await place.secret_on_cluster("app")
        return found is not None and "deletionTimestamp" in found["metadata"]

    await poll_until(ending, what="the deletion asked for")
    shown = await place.client.config.get_secret(namespace=place.name, name="app")
    assert shown.HasField("delete_time")
    assert shown.reconciling
    await place.cluster.merge_patch(SECRETS, place.name, "app", {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        return not [item async for item in place.client.config.list_secrets(namespace=place.name)]

    await poll_until(gone, what="the row gone")


async def foreign(place: Place, name: str, **fields: Any) -> Manifest:
    """Applies a Secret as another client."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": place.name},
        **fields,
    }
    await place.cluster.apply(SECRETS, manifest)
    return manifest


async def test_an_object_of_another_owner_is_left_alone(place: Place) -> None:
    await foreign(place, "app", data={"theirs": encoded(b"x")})
    secret = pb.Secret(name="app", data={"ours": b"y"})
    await place.client.config.create_secret(namespace=place.name, secret=secret)

    async def refused() -> bool:
        found = await place.client.config.get_secret(namespace=place.name, name="app")
        return bool(found.conditions) and applied_of(found).reason == "NameTaken"

    await poll_until(refused, what="the refusal")
    await place.client.config.delete_secret(namespace=place.name, name="app")

    async def gone() -> bool:
        return not [item async for item in place.client.config.list_secrets(namespace=place.name)]

    await poll_until(gone, what="the row gone")
    found = await place.secret_on_cluster("app")
    assert found is not None
    assert found["data"] == {"theirs": encoded(b"x")}


async def test_an_object_frozen_by_others_is_reported_with_the_clusters_message(place: Place) -> None:
    await make_secret(place)
    await place.cluster.merge_patch(SECRETS, place.name, "app", {"immutable": True})
    before = await place.secret_on_cluster("app")
    await change_secret(place, data={"a": b"a-new-value"})

    async def refused() -> bool:
        found = await place.client.config.get_secret(namespace=place.name, name="app")
        return applied_of(found).status == resource_pb2.CONDITION_STATUS_FALSE

    await poll_until(refused, what="the refusal")
    shown = await place.client.config.get_secret(namespace=place.name, name="app")
    assert "field is immutable when `immutable` is set" in applied_of(shown).message
    assert "a-new-value" not in str(shown)
    after = await place.secret_on_cluster("app")
    assert before is not None
    assert after is not None
    assert (after["metadata"]["uid"], after["data"]) == (before["metadata"]["uid"], before["data"])


async def test_an_immutable_object_that_differs_is_made_again(place: Place) -> None:
    made = await make_secret(place, immutable=True)
    before = await place.secret_on_cluster("app")
    assert before is not None
    await place.cluster.delete(SECRETS, place.name, "app", uid=before["metadata"]["uid"])
    labels = {CONFIG_UID: made.uid, MANAGED_BY: MANAGER}
    await place.cluster.apply(
        SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "app", "namespace": place.name, "labels": labels},
            "data": {"a": encoded(b"of a restored cluster")},
            "immutable": True,
        },
    )
    await change_secret(place, labels={"look": "again"})

    async def restored() -> bool:
        found = await place.secret_on_cluster("app")
        return found is not None and found["data"] == {"a": encoded(b"1"), "b": encoded(b"2")}

    await poll_until(restored, what="the object made again")
    await place.applied("app")


async def test_changes_and_additions_by_others_are_reverted(place: Place) -> None:
    # Pods read every key of the object, so keys that the platform does not show must not stay.
    config_map = pb.ConfigMap(name="app", data={"ours": "1"}, binary_data={"raw": b"\0"})
    await place.client.config.create_config_map(namespace=place.name, config_map=config_map)
    await make_secret(place)
    await place.applied("app")
    theirs = {"data": {"ours": "changed", "theirs": "x"}, "binaryData": {"more": encoded(b"\1")}}
    await place.cluster.merge_patch(
        CONFIG_MAPS, place.name, "app", {**theirs, "metadata": {"labels": {"their": "label"}}}
    )
    await place.cluster.merge_patch(SECRETS, place.name, "app", {"data": {"theirs": encoded(b"x")}})

    async def taken_back() -> bool:
        found, secret = await place.config_map_on_cluster("app"), await place.secret_on_cluster("app")
        assert found is not None
        assert secret is not None
        kept = (found["data"], found["binaryData"], set(secret["data"]))
        return kept == ({"ours": "1"}, {"raw": encoded(b"\0")}, {"a", "b"})

    await poll_until(taken_back, what="our values again, and no others")
    found = await place.config_map_on_cluster("app")
    assert found is not None
    assert FIELD_MANAGER in {each["manager"] for each in found["metadata"]["managedFields"]}
    # Pods do not read labels; labels of others stay.
    assert found["metadata"]["labels"]["their"] == "label"


async def test_an_object_deleted_by_others_is_made_again(place: Place) -> None:
    await make_secret(place)
    before = await place.secret_on_cluster("app")
    assert before is not None
    await place.cluster.delete(SECRETS, place.name, "app", uid=before["metadata"]["uid"])

    async def is_back() -> bool:
        found = await place.secret_on_cluster("app")
        return found is not None and found["data"] == before["data"]

    await poll_until(is_back, what="the secret again")


async def test_an_unreadable_ciphertext_is_reported_and_nothing_is_applied(place: Place) -> None:
    await make_secret(place, "one")
    await make_secret(place, "two", data={"a": b"of two"})
    async with place.server.database.owner() as owner:
        await owner.execute(
            """UPDATE secrets AS t SET ciphertext = s.ciphertext, data_key = s.data_key, generation = t.generation + 1
               FROM secrets AS s JOIN namespaces AS n ON n.id = s.namespace_id
               WHERE n.name = $1 AND s.name = 'two' AND t.name = 'one' AND t.namespace_id = n.id""",
            place.name,
        )
    await change_secret(place, "one", labels={"look": "again"})

    async def told() -> bool:
        found = await place.client.config.get_secret(namespace=place.name, name="one")
        return applied_of(found).reason == "DecryptionFailed"

    await poll_until(told, what="the failure")
    found = await place.secret_on_cluster("one")
    assert found is not None
    assert found["data"] == {"a": encoded(b"1"), "b": encoded(b"2")}
    # Other tests rotate the keys of this server.
    await place.client.config.delete_secret(namespace=place.name, name="one")


async def test_a_container_reads_both_by_reference(place: Place) -> None:
    await make_secret(place)
    container = reading("app")
    container.env.add(
        name="OTHER",
        value_from=container_pb2.ENV_VALUE_FROM_CONFIG_MAP,
        source_name="missing",
        source_key="k",
        optional=True,
    )
    await place.client.containers.create(namespace=place.name, container=container)

    async def there() -> Manifest | None:
        if await place.cluster.find(DEPLOYMENTS, place.name, "web") is None:
            return None
        return await place.cluster.read(DEPLOYMENTS, place.name, "web")

    deployment = await poll_until(there, what="the deployment")
    assert deployment is not None
    (pod,) = deployment["spec"]["template"]["spec"]["containers"]
    assert pod["env"] == [
        {"name": "VALUE", "valueFrom": {"secretKeyRef": {"name": "app", "key": "a"}}},
        {
            "name": "OTHER",
            "valueFrom": {"configMapKeyRef": {"name": "missing", "key": "k", "optional": True}},
        },
    ]


async def test_containers_restart_with_the_new_values_on_request(place: Place) -> None:
    await make_secret(place)
    containers = place.client.containers
    await containers.create(namespace=place.name, container=reading("app"))
    await containers.create(namespace=place.name, container=reading("app", name="stopped"))
    await containers.create(
        namespace=place.name, container=container_pb2.Container(name="other", image="nginx:1.27")
    )

    async def running() -> bool:
        found = await containers.get(namespace=place.name, name="web")
        return found.status == container_pb2.CONTAINER_STATUS_RUNNING

    await poll_until(running, what="the container running")
    await containers.stop(namespace=place.name, name="stopped")
    assert await change_secret(place, string_data={"a": "new"}) == []
    assert await change_secret(place, restart=True, string_data={"a": "new"}) == []
    assert await change_secret(place, restart=True, string_data={"a": "newer"}) == ["web"]

    async def restarted() -> Manifest | None:
        deployment = await place.cluster.read(DEPLOYMENTS, place.name, "web")
        annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
        return deployment if manifests.RESTARTED_AT in annotations else None

    await poll_until(restarted, what="the rollout")
    # The pods of the rollout read the new value: the cluster had it first.
    found = await place.secret_on_cluster("app")
    assert found is not None
    assert found["data"]["a"] == encoded(b"newer")
    history = [item async for item in containers.list_status_history(namespace=place.name, name="web")]
    assert "Restarting" in {item.reason for item in history}


async def test_restarting_the_containers_needs_its_permission(place: Place) -> None:
    await make_secret(place)
    role = f"editor-{place.name}"
    await place.client.identity.create_role(
        role=identity_pb2.Role(name=role, permissions=["config.update", "config.get"])
    )
    editor = await place.server.user(role, {place.name: role})
    wanted = pb.Secret(string_data={"a": "theirs"})
    asked: dict[str, Any] = {"namespace": place.name, "name": "app", "secret": wanted}
    asked["update_mask"] = FieldMask(paths=["string_data"])
    with pytest.raises(errors.PermissionDeniedError) as refused:
        await editor.config.update_secret(**asked, restart_containers=True)
    assert refused.value.metadata["permission"] == "container.restart"
    await editor.config.update_secret(**asked)


async def test_a_container_made_first_reads_its_optional_secret_later(place: Place) -> None:
    container = reading("late")
    container.env[0].optional = True
    containers = place.client.containers
    await containers.create(namespace=place.name, container=container)

    async def running() -> bool:
        found = await containers.get(namespace=place.name, name="web")
        return found.status == container_pb2.CONTAINER_STATUS_RUNNING

    await poll_until(running, what="the container running")
    await make_secret(place, "late")
    assert await change_secret(place, "late", restart=True, string_data={"a": "x"}) == ["web"]


async def test_text_in_any_script_is_applied_up_to_the_limit(place: Place) -> None:
    texts = {"latin": "é" * (1 << 19), "cyrillic": "ж" * (1 << 19), "emoji": "😀" * (1 << 18)}
    for name, text in texts.items():
        config_map = pb.ConfigMap(name=name, data={"text": text})
        await place.client.config.create_config_map(namespace=place.name, config_map=config_map)
    await place.applied(*texts)
    for name, text in texts.items():
        found = await place.client.config.get_config_map(namespace=place.name, name=name)
        condition = applied_of(found)
        assert (condition.status, condition.message) == (resource_pb2.CONDITION_STATUS_TRUE, "")
        on_cluster = await place.config_map_on_cluster(name)
        assert on_cluster is not None
        assert on_cluster["data"] == {"text": text}
