"""Applications are applied, pruned, taken over, rolled back, paused and deleted, each in one transaction."""

from __future__ import annotations

import asyncio
import json

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
    shop,
)
from tests.conftest import connection
from tests.waiting import poll_until

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse_client.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)

_EVERY = {
    "ConfigMap/settings",
    "Secret/password",
    "PersistentVolumeClaim/data",
    "Service/web",
    "PodDisruptionBudget/web",
    "Deployment/web",
}


async def test_an_apply_creates_all_objects_and_a_second_one_changes_nothing(place: Place) -> None:
    first = await place.apply(shop())
    assert [each.reason for each in first.warnings] == ["NO_READINESS_PROBE"]
    assert actions(first.changes) == dict.fromkeys(_EVERY, "create"), first
    assert (first.revision, first.application.revision) == (1, 1)
    assert {f"{each.kind}/{each.name}" for each in first.application.members} == _EVERY
    again = await place.apply(shop())
    assert actions(again.changes) == dict.fromkeys(_EVERY, "unchanged"), again
    assert again.revision == 1


async def test_an_update_writes_fields_and_prunes_removed_objects(place: Place) -> None:
    await place.apply(shop())
    fewer = [config_map(level="debug"), deployment(image="nginx:1.28"), service()]
    tried = await place.apply(fewer, prune=True, validate_only=True)
    applied = await place.apply(fewer, prune=True)
    assert actions(applied.changes) == {
        "ConfigMap/settings": "update",
        "Secret/password": "prune",
        "Service/web": "unchanged",
        "PodDisruptionBudget/web": "prune",
        "Deployment/web": "update",
    }
    assert list(tried.changes) == list(applied.changes)
    (image,) = next(each for each in applied.changes if each.kind == "Deployment").fields
    assert (image.path, image.before, image.after) == ("image", '"nginx:1.27"', '"nginx:1.28"')
    assert [each.reason for each in applied.warnings if "data" in each.message] == ["NOT_PRUNED"]
    assert applied.revision == 2
    with pytest.raises(NotFoundError):
        await place.client.objects.get(
            namespace=place.name, api_version="policy/v1", kind="PodDisruptionBudget", name="missing"
        )
    # The claim is kept, because it has data.
    assert (await place.client.storage.get_volume(namespace=place.name, name="data")).name == "data"
    try:
        pruned = await place.client.config.get_secret(namespace=place.name, name="password")
    except NotFoundError:
        return  # The cluster has deleted it already.
    assert pruned.HasField("delete_time")


async def test_foreign_objects_are_refused_and_nothing_is_committed(place: Place) -> None:
    outside = container_pb2.Container(name="web", image="nginx:1.27")
    await place.client.containers.create(namespace=place.name, container=outside)
    await place.apply([config_map()], name="other")
    documents = [config_map(), config_map("fresh"), deployment()]
    tried = await place.apply(documents, validate_only=True)
    assert {(each.document, each.reason) for each in tried.problems} >= {
        (0, "OWNED_BY_APPLICATION"),
        (2, "EXISTS_OUTSIDE"),
    }
    assert tried.problem_count == len(tried.problems)
    with pytest.raises(InvalidArgumentError) as refused:
        await place.apply(documents)
    assert refused.value.reason == "DOCUMENTS_REFUSED"
    assert refused.value.metadata["problems"] == str(tried.problem_count)
    for missing in (place.get(), place.client.config.get_config_map(namespace=place.name, name="fresh")):
        with pytest.raises(NotFoundError):
            await missing
    taken = await place.apply([config_map("fresh")], take_over=True)
    assert taken.revision == 1


async def test_an_unowned_object_is_taken_over_on_request(place: Place) -> None:
    made = await place.apply([config_map()], name="")
    assert not made.HasField("application")
    with pytest.raises(InvalidArgumentError):
        await place.apply([config_map()])
    assert actions((await place.apply([config_map()], take_over=True)).changes) == {
        "ConfigMap/settings": "unchanged"
    }
    assert [each.name for each in (await place.get()).members] == ["settings"]


async def test_a_problem_with_one_object_refuses_the_whole_apply(place: Place) -> None:
    broken = deployment("broken", image="nginx:1.27", replicas=-1)
    with pytest.raises(InvalidArgumentError) as refused:
        await place.apply([config_map(), broken])
    assert refused.value.reason == "DOCUMENTS_REFUSED"
    with pytest.raises(NotFoundError):
        await place.client.config.get_config_map(namespace=place.name, name="settings")


async def test_a_rollback_restores_all_objects_as_a_new_revision(place: Place) -> None:
    await place.apply(shop())
    await place.apply(
        [config_map(level="debug"), deployment(image="nginx:1.28")], prune=True, delete_claims=False
    )
    difference = await place.client.applications.diff_revisions(namespace=place.name, name="shop")
    assert (difference.before, difference.after) == (1, 2)
    assert actions(difference.changes)["Service/web"] == "prune"

    async def free() -> bool:
        found = [each.name async for each in place.client.network.list_services(namespace=place.name)]
        found += [each.name async for each in place.client.config.list_secrets(namespace=place.name)]
        found += [each.name async for each in place.client.objects.list(namespace=place.name)]
        return not found

    await poll_until(free, what="the end of the pruned objects")
    rolled = await place.client.applications.rollback(namespace=place.name, name="shop")
    assert (rolled.revision, rolled.origin) == (3, 1)
    assert actions(rolled.changes) == {
        "ConfigMap/settings": "update",
        "Secret/password": "create",
        "PersistentVolumeClaim/data": "unchanged",
        "Service/web": "create",
        "PodDisruptionBudget/web": "create",
        "Deployment/web": "update",
    }
    assert list(rolled.not_restored) == ["data of volume data"]
    web = await place.client.containers.get(namespace=place.name, name="web")
    assert web.image == "nginx:1.27"
    revealed = await place.client.config.reveal_secret(namespace=place.name, name="password")
    assert revealed.data["word"] == b"canary"
    revisions = [
        each async for each in place.client.applications.list_revisions(namespace=place.name, name="shop")
    ]
    assert [(each.number, each.origin) for each in revisions] == [(3, 1), (2, 0), (1, 0)]


async def test_a_change_by_another_call_is_reported_and_kept_unless_forced(place: Place) -> None:
    await place.apply([config_map(), deployment()])
    await place.client.containers.update(
        namespace=place.name,
        name="web",
        container=container_pb2.Container(env=[container_pb2.EnvVar(name="BY", value="hand")]),
        update_mask=FieldMask(paths=["env"]),
    )
    found = await place.get()
    (web,) = [each for each in found.members if each.modified]
    assert (web.kind, web.name, web.modified_by) == ("Deployment", "web", "admin")
    applied = await place.apply([config_map(), deployment(image="nginx:1.28")])
    change = next(each for each in applied.changes if each.name == "web")
    assert [each.path for each in change.fields] == ["image"]
    assert [each.path for each in change.modified_fields] == ["env"]
    kept = await place.client.containers.get(namespace=place.name, name="web")
    assert (kept.image, len(kept.env)) == ("nginx:1.28", 1)
    await place.apply([config_map(), deployment(image="nginx:1.28")], force=True)
    forced = await place.client.containers.get(namespace=place.name, name="web")
    assert (forced.image, len(forced.env)) == ("nginx:1.28", 0)
    assert not any(each.modified for each in (await place.get()).members)


async def test_an_apply_overwrites_only_the_keys_and_fields_that_changed(place: Place) -> None:
    def documents(changed: str) -> list[JsonObject]:
        pdb = budget()
        pdb["metadata"]["labels"] = {"of": changed}
        return [config_map(a=changed, b="b"), secret(a=changed, b="b"), pdb]

    await place.apply(documents("1"))
    await place.client.config.update_config_map(
        namespace=place.name,
        name="settings",
        config_map=config_pb2.ConfigMap(data={"a": "1", "b": "hand", "c": "hand"}),
        update_mask=FieldMask(paths=["data"]),
    )
    await place.client.config.update_secret(
        namespace=place.name,
        name="password",
        set_data={"b": b"hand"},
    )
    (*_, by_hand) = documents("1")
    by_hand["spec"]["minAvailable"] = 1
    await place.client.objects.update(
        namespace=place.name,
        api_version="policy/v1",
        kind="PodDisruptionBudget",
        name="web",
        object=object_pb2.Object(document=json.dumps(by_hand)),
        update_mask=FieldMask(paths=["document"]),
    )
    assert len([each for each in (await place.get()).members if each.modified]) == 3
    applied = await place.apply(documents("2"))
    fields = {each.kind: {field.path for field in each.fields} for each in applied.changes}
    assert fields == {
        "ConfigMap": {"data.a"},
        "Secret": {"data.a"},
        "PodDisruptionBudget": {"metadata.labels.of"},
    }
    others = {each.kind: {field.path for field in each.modified_fields} for each in applied.changes}
    assert others == {
        "ConfigMap": {"data.b", "data.c"},
        "Secret": {"data.b"},
        "PodDisruptionBudget": {"spec.minAvailable"},
    }
    assert await _settings(place) == ({"a": "2", "b": "hand", "c": "hand"}, {"a": b"2", "b": b"hand"}, 1)
    await place.apply(documents("2"), force=True)
    assert await _settings(place) == ({"a": "2", "b": "b"}, {"a": b"2", "b": b"b"}, 0)


async def _settings(place: Place) -> tuple[dict[str, str], dict[str, bytes], int]:
    """Returns the values of the config map and of the secret, and the budget's `minAvailable`."""
    settings = await place.client.config.get_config_map(namespace=place.name, name="settings")
    values = await place.client.config.reveal_secret(namespace=place.name, name="password")
    found = await place.client.objects.get(
        namespace=place.name, api_version="policy/v1", kind="PodDisruptionBudget", name="web"
    )
    return dict(settings.data), dict(values.data), json.loads(found.document)["spec"]["minAvailable"]


async def test_secret_values_appear_in_no_record_and_no_revision(place: Place) -> None:
    await place.apply(shop())
    with pytest.raises(InvalidArgumentError) as refused:
        await place.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "x"},
                    "data": {"word": "canary"},
                    "oops": "canary",
                }
            ]
        )
    assert "canary" not in str(refused.value)
    records = [each async for each in place.client.audit.list_operations(namespace=place.name, page_size=200)]
    assert not [each for each in records if "canary" in str(each)]
    parent = next(each for each in records if each.action == "apply" and not each.error_code)
    children = [each for each in records if each.parent_operation_id == parent.operation_id]
    assert {(each.action, each.resource_type, each.resource_name) for each in children} == {
        ("create", "config_map", "settings"),
        ("create", "secret", "password"),
        ("create", "volume", "data"),
        ("create", "service", "web"),
        ("create", "object", "web"),
        ("create", "container", "web"),
    }
    revision = await place.client.applications.get_revision(namespace=place.name, name="shop")
    assert revision.operation_id == parent.operation_id
    assert "canary" not in str(revision)
    exported = await place.client.applications.export(namespace=place.name, name="shop")
    assert {json.loads(each.json)["kind"] for each in exported.documents} == {
        each.partition("/")[0] for each in _EVERY
    }
    assert any("canary" in each.json for each in exported.documents)


async def test_a_pause_locks_containers_in_the_order_of_their_ids(place: Place) -> None:
    """This is the lock order of all callers. Members are sorted by name, and the older container sorts last."""
    await place.apply([deployment("b")])
    await place.apply([deployment("b"), deployment("a")])
    database = place.server.database
    work = (
        "SELECT FROM reconcile_work WHERE (resource_type, resource_id) IN (SELECT 'container', c.id "
        "FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id WHERE n.name = $1 AND c.name = $2) "
        "FOR UPDATE"
    )
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND usename LIKE '%app%'"
    )

    async def is_waiting() -> bool:
        # Inside a transaction, pg_stat_activity would be a snapshot taken at the first read.
        async with connection(database.admin_dsn) as looking:
            return bool(await looking.fetchval(waiting))

    async with database.owner() as worker, worker.transaction():
        await worker.execute(work, place.name, "b")
        pausing = asyncio.ensure_future(place.client.applications.pause(namespace=place.name, name="shop"))
        await poll_until(is_waiting, what="the pause waits for the lock of a worker")
        await worker.execute(f"{work} NOWAIT", place.name, "a")
    assert sorted((await pausing).containers) == ["a", "b"]


async def test_a_pause_and_a_deletion_cover_the_whole_application(place: Place) -> None:
    await place.apply([*shop(), deployment("api")])
    paused = await place.client.applications.pause(namespace=place.name, name="shop")
    assert sorted(paused.containers) == ["api", "web"]
    assert not any(each.modified for each in paused.application.members)
    assert {each.status for each in paused.application.members if each.kind == "Deployment"} == {
        pb.APPLICATION_STATUS_SUSPENDED
    }
    resumed = await place.client.applications.resume(namespace=place.name, name="shop")
    assert sorted(resumed.containers) == ["api", "web"]
    deleted = await place.client.applications.delete(namespace=place.name, name="shop")
    assert list(deleted.kept_claims) == ["data"]
    assert set(actions(deleted.changes).values()) == {"prune"}
    with pytest.raises(NotFoundError):
        await place.get()
    volume = await place.client.storage.get_volume(namespace=place.name, name="data")
    assert not volume.HasField("delete_time")


async def test_a_namespace_allows_one_apply_at_a_time(place: Place) -> None:
    await place.apply([config_map()])
    async with place.server.database.owner() as sql:
        namespace_id = await sql.fetchval("SELECT id FROM namespaces WHERE name = $1", place.name)
        async with sql.transaction():
            await sql.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('apply ' || $1, 0))", str(namespace_id)
            )
            with pytest.raises(AbortedError) as busy:
                await place.apply([config_map(level="debug")])
    assert busy.value.reason == "APPLICATION_BUSY"
    assert (await place.get()).revision == 1


async def test_only_the_newest_revisions_are_kept(place: Place) -> None:
    for number in range(4):
        await place.apply([config_map(level=str(number)), secret(word=str(number))], revisions_kept=2)
    revisions = [
        each async for each in place.client.applications.list_revisions(namespace=place.name, name="shop")
    ]
    assert [each.number for each in revisions] == [4, 3]
    with pytest.raises(NotFoundError):
        await place.client.applications.rollback(namespace=place.name, name="shop", revision=2)
    async with place.server.database.owner() as sql:
        kept = await sql.fetchval(
            "SELECT count(*) FROM application_documents AS d JOIN applications AS a ON a.id = d.application_id "
            "JOIN namespaces AS n ON n.id = a.namespace_id WHERE n.name = $1",
            place.name,
        )
    assert kept == 2


async def test_a_watch_shows_applications_of_a_namespace(place: Place) -> None:
    await place.apply([config_map()])
    async with place.client.applications.watch(namespace=place.name) as changes:
        seen = [await anext(changes)]
        assert seen[0].resource is not None
        assert (seen[0].resource.name, seen[0].resource.revision) == ("shop", 1)


async def test_concurrent_applies_are_serialized_or_refused(place: Place) -> None:
    other = await place.server.user("other", {place.name: "developer"})
    applied = 0
    for number in range(3):
        results = await asyncio.gather(
            place.apply([config_map(level=f"a{number}")]),
            place.apply([config_map(level=f"b{number}")], client=other),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, AbortedError):
                assert result.reason == "APPLICATION_BUSY"
            else:
                assert not isinstance(result, BaseException), result
                applied += 1
    assert applied >= 3
    found = place.client.applications.list_revisions(namespace=place.name, name="shop")
    revisions = [each async for each in found]
    assert [each.number for each in revisions] == list(range(applied, 0, -1))
    records = [
        each
        async for each in place.client.audit.list_operations(
            namespace=place.name, filter='action = "apply" AND result = SUCCESS'
        )
    ]
    assert {each.operation_id for each in records} == {each.operation_id for each in revisions}
    newest = await place.client.applications.get_revision(namespace=place.name, name="shop")
    settings = await place.client.config.get_config_map(namespace=place.name, name="settings")
    assert json.loads(newest.documents[0])["data"] == dict(settings.data)
    assert not any(each.modified for each in (await place.get()).members)


async def test_a_pod_folder_becomes_a_claim_of_the_same_name_and_back(place: Place) -> None:
    def documents(source: JsonObject) -> list[JsonObject]:
        web = deployment()
        pods = web["spec"]["template"]["spec"]
        pods["volumes"] = [{"name": "data", **source}]
        pods["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        return [claim(), web]

    folder: JsonObject = {"emptyDir": {}}
    for source, users in (
        (folder, []),
        ({"persistentVolumeClaim": {"claimName": "data"}}, ["web"]),
        (folder, []),
    ):
        await place.apply(documents(source))
        volume = await place.client.storage.get_volume(namespace=place.name, name="data")
        assert list(volume.mounted_by) == users


async def test_a_namespace_has_at_most_200_applications(place: Place) -> None:
    async with place.server.database.owner() as sql:
        await sql.execute(
            "INSERT INTO applications (name, namespace_id, revision_number, revisions_kept, status, labels) "
            "SELECT 'other-' || number, n.id, 1, 20, 'healthy', '{}' "
            "FROM generate_series(1, 199) AS number, namespaces AS n WHERE n.name = $1",
            place.name,
        )
    await place.apply([config_map()])
    with pytest.raises(ResourceExhaustedError) as refused:
        await place.apply([config_map("more")], name="more")
    assert refused.value.reason == "TOO_MANY_APPLICATIONS"
    assert (await place.apply([config_map(level="debug")])).revision == 2


async def test_all_revisions_together_have_at_most_16_mebibytes(place: Place) -> None:
    for level in ("info", "debug"):
        await place.apply([config_map(level=level)])
    async with place.server.database.owner() as sql:
        await sql.execute(
            "UPDATE application_documents SET document = repeat('x', 9 * 1024 * 1024) "
            "WHERE namespace_id = (SELECT id FROM namespaces WHERE name = $1)",
            place.name,
        )
    await place.apply([config_map(level="warn")])
    kept = place.client.applications.list_revisions(namespace=place.name, name="shop")
    assert [each.number async for each in kept] == [3, 2]
