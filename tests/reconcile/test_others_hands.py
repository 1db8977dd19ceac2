"""Objects on the cluster that others delete, change or own are repaired, reported or left alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pilothouse_server.containers.model import ContainerSpec, Port
from pilothouse_server.containers.operations import pause as pause_container
from pilothouse_server.kubernetes.errors import NotFound, Unreachable
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS, SERVICES
from pilothouse_server.kubernetes.ownership import MANAGED_BY, NAMESPACE, NAMESPACE_UID
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import change as change_namespace
from pilothouse_server.reconcile.apply import managed_fields_diff, namespace_reconciler
from tests.reconcile.environment import PLATFORM, Environment
from tests.reconcile.test_kills import die_on_the_way
from tests.waiting import poll_until

BEHAVIOR = "simulate.pilothouse.dev/behavior"


async def test_a_deployment_deleted_by_others_is_created_again(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        there = await client.get(DEPLOYMENTS, "shop", "web")
        await client.delete(DEPLOYMENTS, "shop", "web", uid=there.metadata.uid)
        again = await poll_until(
            lambda: client.find(DEPLOYMENTS, "shop", "web"),
            lambda found: found is not None and found.metadata.uid != there.metadata.uid,
        )
        assert again is not None
        await here.running()


async def test_a_deployment_with_a_held_rollout_is_created_again_with_its_pods(here: Environment) -> None:
    """The rollout is held again afterwards: a Deployment that is created paused gets no pods."""
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        await here.change(lambda tx: pause_container(tx, "shop", "web", "hold_rollout"))
        there = await poll_until(
            lambda: client.get(DEPLOYMENTS, "shop", "web"), lambda found: found.spec.paused
        )
        await client.delete(DEPLOYMENTS, "shop", "web", uid=there.metadata.uid)

        async def held_and_ready() -> bool:
            found = await client.find(DEPLOYMENTS, "shop", "web")
            if found is None or found.metadata.uid == there.metadata.uid:
                return False
            return found.spec.paused and found.status.available_replicas == 1

        await poll_until(held_and_ready)
        assert (await here.running()).hold_rollout


async def test_a_service_deleted_or_changed_by_others_is_restored(here: Environment) -> None:
    client = await here.connect("local")
    ports = (Port(container_port=80, service_name="web", service_port=80),)

    async def changed(uid: str) -> None:
        await poll_until(
            lambda: client.find(SERVICES, "shop", "web"),
            lambda found: found is not None and found.metadata.uid != uid,
        )

    async with here.reconciling():
        await here.namespace()
        await here.create(ports=ports)
        await here.running()
        first = await client.get(SERVICES, "shop", "web")
        await client.delete(SERVICES, "shop", "web", uid=first.metadata.uid, propagation="Background")
        await changed(first.metadata.uid)
        there = await client.read(SERVICES, "shop", "web")
        theirs = {"spec": {"selector": {"app": "theirs"}}}
        await here.apply_as("meddler", "/api/v1/namespaces/shop/services/web", _service(theirs))
        await poll_until(
            lambda: client.read(SERVICES, "shop", "web"),
            lambda found: found["spec"]["selector"] == there["spec"]["selector"],
        )
    # Deleted while no server runs.
    second = await client.get(SERVICES, "shop", "web")
    await client.delete(SERVICES, "shop", "web", uid=second.metadata.uid, propagation="Background")
    async with here.reconciling():
        await changed(second.metadata.uid)


def _service(fields: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, **fields}


async def test_a_namespace_deleted_by_others_is_created_again_with_its_containers(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        there = await client.get(NAMESPACES, None, "shop")
        await client.delete(NAMESPACES, None, "shop", uid=there.metadata.uid)
        await poll_until(
            lambda: client.find(NAMESPACES, None, "shop"),
            lambda found: found is not None and found.metadata.uid != there.metadata.uid,
        )

        async def pods() -> int:
            try:
                return sum(
                    any(status.ready for status in pod.status.container_statuses)
                    for pod in (await client.list(PODS, "shop")).items
                )
            except NotFound:
                return 0

        await poll_until(pods, lambda ready: ready == 1)
        assert (await here.running()).observed.ready_replicas == 1


@pytest.mark.parametrize("whose", ["ours", "others"])
async def test_a_service_account_is_deleted_with_its_container_if_it_is_ours(
    here: Environment, whose: str
) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        uid = (await here.namespace()).uid
        await poll_until(here.seen_namespace, lambda seen: seen is not None and seen.phase == "Active")
        labels = {MANAGED_BY: "pilothouse", NAMESPACE_UID: uid if whose == "ours" else "theirs"}
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "web", "labels": labels},
        }
        await here.apply_as("another", "/api/v1/namespaces/shop/serviceaccounts/web", account)
        # An account that is not ours may have any rights, so a developer's pods must not run as it.
        await here.create("theirs", spec=ContainerSpec(service_account="web"))
        refused = await here.until(lambda row: row.observed_generation == 1, "theirs")
        told = next(each for each in refused.observed.conditions if each.type == "Applied")
        assert (told.status, told.reason) == (
            ("True", "Applied") if whose == "ours" else ("False", "Guarded")
        )
        if whose == "others":
            assert (
                'service account "web" exists on the cluster but does not belong to the platform'
                in told.message
            )
            assert await client.find(DEPLOYMENTS, "shop", "theirs") is None
        await here.delete("theirs")
        await here.create(spec=ContainerSpec(service_account="web"), may=lambda _: True)
        await here.running()
        await here.delete()
        await poll_until(here.seen, lambda seen: seen is None)
        await poll_until(lambda: here.seen("theirs"), lambda seen: seen is None)
    there = await client.find(SERVICE_ACCOUNTS, "shop", "web")
    assert (there is None) == (whose == "ours")


@pytest.mark.parametrize(("policy", "image"), [("repair", "nginx:1.27"), ("report", "nginx:evil")])
async def test_changes_by_others_follow_the_drift_policy(here: Environment, policy: Any, image: str) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(drift_policy=policy)
        await here.running()
        manifest = await client.read(DEPLOYMENTS, "shop", "web")
        name = manifest["spec"]["template"]["spec"]["containers"][0]["name"]
        await here.meddle(
            {"spec": {"template": {"spec": {"containers": [{"name": name, "image": "nginx:evil"}]}}}}
        )
        row = await here.until(
            lambda row: any(c.type == "Drifted" and c.reason != "InSync" for c in row.observed.conditions)
        )
        drifted = next(c for c in row.observed.conditions if c.type == "Drifted")
        assert "image" in drifted.message
        assert "'meddler'" in drifted.message
        assert drifted.status == ("False" if policy == "repair" else "True")
        manifest = await client.read(DEPLOYMENTS, "shop", "web")
        assert manifest["spec"]["template"]["spec"]["containers"][0]["image"] == image


async def test_a_foreign_namespace_is_taken_over_only_on_request(here: Environment) -> None:
    client = await here.connect("local")
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "theirs", "labels": {"team": "b"}},
    }
    await here.apply_as("team-b", "/api/v1/namespaces/theirs", manifest)
    async with here.reconciling():
        await here.namespace("theirs")
        refused = await poll_until(
            lambda: here.seen_namespace("theirs"),
            lambda seen: seen is not None and seen.reason == "NameTaken",
        )
        assert refused is not None
        assert "`adopt`" in refused.message
        await here.create(namespace="theirs")
        assert (await client.list(DEPLOYMENTS, "theirs")).items == ()
        await here.delete_namespace("theirs")
        await poll_until(lambda: here.seen_namespace("theirs"), lambda seen: seen is None)
        assert await client.find(NAMESPACES, None, "theirs") is not None

        await here.namespace("theirs", adopt=True)
        await poll_until(
            lambda: here.seen_namespace("theirs"), lambda seen: seen is not None and seen.phase == "Active"
        )
        await here.delete_namespace("theirs")
        await poll_until(lambda: here.seen_namespace("theirs"), lambda seen: seen is None)
        found = await client.get(NAMESPACES, None, "theirs")
        assert found.metadata.deletion_timestamp is None
        assert found.metadata.label("team") == "b"
        assert found.metadata.label(NAMESPACE_UID) == ""


@pytest.mark.parametrize(
    "anew",
    [{MANAGED_BY: None, NAMESPACE: None, NAMESPACE_UID: None}, {NAMESPACE_UID: "of-another-installation"}],
    ids=["made anew", "others'"],
)
async def test_a_namespace_made_again_is_not_taken_over_without_a_request(
    here: Environment, anew: dict[str, str | None]
) -> None:
    client = await here.connect("local")

    async def until(reason: str) -> Namespace:
        def applied(seen: Namespace | None) -> bool:
            return seen is not None and [each.reason for each in seen.conditions] == [reason]

        row = await poll_until(here.seen_namespace, applied)
        assert row is not None
        return row

    await here.apply_as(
        "team-b",
        "/api/v1/namespaces/shop",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
    )
    async with here.reconciling():
        made = await here.namespace(adopt=True)
        await until("Applied")
        # If only its uid label is missing, it is still the namespace that was taken over.
        await here.relabel_namespace({NAMESPACE_UID: None})

        async def labelled() -> bool:
            return (await client.get(NAMESPACES, None, "shop")).metadata.label(NAMESPACE_UID) == made.uid

        await poll_until(labelled)
        await here.relabel_namespace(anew)
        lost = await until("LabelLost")
        assert "--adopt" in lost.message
        # A change by its tenant does not take it over either.
        await here.change(
            lambda tx: change_namespace(tx, "shop", _labelled(lost), ["labels"], _any, caller=PLATFORM)
        )
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)
        assert (await until("LabelLost")).labels == {"team": "b"}
        assert not await labelled()
        await here.change(
            lambda tx: change_namespace(tx, "shop", lost, [], _any, adopt=True, caller=PLATFORM)
        )
        await until("Applied")
        assert await labelled()


async def test_a_namespace_replaced_before_the_apply_is_not_taken_over(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody replaces the namespace after the reconciler has read it, and before it applies its manifest."""
    client = await here.connect("local")
    await here.apply_as(
        "team-b",
        "/api/v1/namespaces/shop",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
    )
    matches = managed_fields_diff.live_matches_manifest
    replaced: list[str] = []

    async def replacing(*arguments: Any) -> bool:
        result = await matches(*arguments)
        if not result and not replaced and arguments[1] is NAMESPACES:
            found = await client.get(NAMESPACES, None, "shop")
            replaced.append(found.metadata.uid)
            await client.delete(NAMESPACES, None, "shop", uid=found.metadata.uid, propagation="Background")
            await poll_until(lambda: client.find(NAMESPACES, None, "shop"), lambda there: there is None)
            await here.apply_as(
                "team-c",
                "/api/v1/namespaces/shop",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
            )
        return result

    async with here.reconciling():
        await here.namespace(adopt=True)
        await poll_until(here.seen_namespace, lambda seen: seen is not None and seen.observed_generation == 1)
        monkeypatch.setattr(managed_fields_diff, "live_matches_manifest", replacing)
        await here.relabel_namespace({MANAGED_BY: None})
        await poll_until(
            here.seen_namespace,
            lambda seen: seen is not None and [each.reason for each in seen.conditions] == ["LabelLost"],
        )
    assert replaced
    assert not (await client.get(NAMESPACES, None, "shop")).metadata.label(NAMESPACE_UID)


async def test_a_container_lasts_until_its_services_are_gone(here: Environment) -> None:
    """A finalizer keeps the Service, as that of a load balancer does."""
    client = await here.connect("local")
    path = "/api/v1/namespaces/shop/services/web"
    async with here.reconciling():
        await here.namespace()
        await here.create(ports=(Port(container_port=80, service_name="web", service_port=80),))
        await here.running()
        await here.merge_as("cloud", path, {"metadata": {"finalizers": ["example.com/cloud"]}})
        await here.delete()
        await poll_until(lambda: client.find(DEPLOYMENTS, "shop", "web"), lambda found: found is None)

        async def leases() -> int:
            (work,) = await here.rows(
                "SELECT lease_epoch FROM reconcile_work WHERE resource_type = 'container'"
            )
            return int(work["lease_epoch"])

        before = await leases()
        await poll_until(leases, lambda now: now >= before + 2, what="further passes")
        assert (await client.get(SERVICES, "shop", "web")).metadata.deletion_timestamp is not None
        assert await here.seen() is not None
        await here.merge_as("cloud", path, {"metadata": {"finalizers": None}})
        await poll_until(here.seen, lambda seen: seen is None)
    assert await client.find(SERVICES, "shop", "web") is None


async def test_a_container_deleted_before_a_takeover_is_not_forgotten(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await here.connect("local")

    async def away(*_: Any) -> None:
        raise Unreachable("nobody answers")

    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        await here.relabel_namespace({NAMESPACE_UID: None})
        lost = await poll_until(here.seen_namespace, _is_lost)
        assert lost is not None
        with monkeypatch.context() as patch:
            patch.setattr(namespace_reconciler, "_apply", away)
            await here.change(
                lambda tx: change_namespace(tx, "shop", lost, [], _any, adopt=True, caller=PLATFORM)
            )
            await here.delete()

            async def waits_or_is_gone() -> bool:
                row = await here.seen()
                return row is None or any(each.reason == "NameTaken" for each in row.observed.conditions)

            await poll_until(waits_or_is_gone)
            assert await here.seen() is not None
            assert (await client.list(DEPLOYMENTS, "shop")).items != ()
        await poll_until(here.seen, lambda seen: seen is None)
        assert (await client.list(DEPLOYMENTS, "shop")).items == ()


@pytest.mark.parametrize(
    "step",
    [None, *(pytest.param(step, marks=pytest.mark.full) for step in range(4))],
    ids=["", "killed as it is ours", "its Service goes", "its Deployment goes", "it is given back"],
)
async def test_a_namespace_deleted_before_its_takeover_takes_our_objects_along(
    here: Environment, step: int | None
) -> None:
    """Our objects are deleted, other objects stay, and the Kubernetes namespace is released."""
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create(ports=(Port(container_port=80, service_name="web", service_port=80),))
        await here.create("taken")
        await here.running()
        await here.running("taken")
        await here.relabel_namespace({NAMESPACE_UID: None})
        lost = await poll_until(here.seen_namespace, _is_lost)
        assert lost is not None
    # One of the Deployments is somebody else's by now.
    there = await client.get(DEPLOYMENTS, "shop", "taken")
    await client.delete(DEPLOYMENTS, "shop", "taken", uid=there.metadata.uid, propagation="Background")
    await here.apply_as("team-b", "/apis/apps/v1/namespaces/shop/deployments/taken", _deployment("taken"))
    await here.change(lambda tx: change_namespace(tx, "shop", lost, [], _any, adopt=True, caller=PLATFORM))
    await here.delete_namespace()

    async def is_over() -> bool:
        return await here.seen_namespace() is None

    if step is not None:
        assert await die_on_the_way(here, step, is_over)
    async with here.reconciling():
        await poll_until(here.seen_namespace, lambda seen: seen is None)
    assert [each.metadata.name for each in (await client.list(DEPLOYMENTS, "shop")).items] == ["taken"]
    assert (await client.list(SERVICES, "shop")).items == ()
    found = await client.get(NAMESPACES, None, "shop")
    assert found.metadata.deletion_timestamp is None
    assert (found.metadata.label(NAMESPACE_UID), found.metadata.label(NAMESPACE)) == ("", "")


@pytest.mark.parametrize(
    ("gone", "told"),
    [({NAMESPACE_UID: None}, False), ({MANAGED_BY: None, NAMESPACE: None, NAMESPACE_UID: None}, True)],
    ids=["its uid alone", "made anew"],
)
async def test_an_adopted_namespace_without_its_label_is_released_or_says_why_not(
    here: Environment, gone: dict[str, str | None], told: bool
) -> None:
    client = await here.connect("local")
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"team": "b"}},
    }
    await here.apply_as("team-b", "/api/v1/namespaces/shop", manifest)
    async with here.reconciling():
        made = await here.namespace(adopt=True)
        await here.create()
        await here.running()
    await here.relabel_namespace(gone)
    await here.delete_namespace()
    async with here.reconciling():
        if told:
            row = await poll_until(
                here.seen_namespace, lambda seen: seen is not None and seen.reason == "LabelLost"
            )
            assert row is not None
            assert (await client.list(DEPLOYMENTS, "shop")).items != ()
            await here.relabel_namespace({NAMESPACE_UID: made.uid})
        await poll_until(here.seen_namespace, lambda seen: seen is None)
    assert (await client.list(DEPLOYMENTS, "shop")).items == ()
    found = await client.get(NAMESPACES, None, "shop")
    assert (found.metadata.label("team"), found.metadata.label(MANAGED_BY)) == ("b", "")


def _is_lost(seen: Namespace | None) -> bool:
    return seen is not None and [each.reason for each in seen.conditions] == ["LabelLost"]


def _deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "theirs:1"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }


def _any(_stored: Namespace) -> None:
    pass


def _labelled(namespace: Namespace) -> Namespace:
    return msgspec.structs.replace(namespace, labels={"team": "b"})


@pytest.mark.parametrize("also", [{}, {MANAGED_BY: None}], ids=["one", "all"])
async def test_a_namespace_that_lost_our_label_is_reported_and_not_forgotten(
    here: Environment, monkeypatch: pytest.MonkeyPatch, also: dict[str, str | None]
) -> None:
    monkeypatch.setattr(namespace_reconciler, "LABEL_SECONDS", 0.2)
    client = await here.connect("local")

    async def told() -> Namespace:
        row = await poll_until(
            here.seen_namespace, lambda seen: seen is not None and seen.reason == "LabelLost"
        )
        assert row is not None
        assert f"{NAMESPACE_UID}={row.uid}" in row.message
        return row

    async with here.reconciling():
        await here.namespace()
        await here.create()
        uid = (await here.running()).namespace_uid
        await here.relabel_namespace({NAMESPACE_UID: None, **also})
        assert (await told()).conditions[0].status == "False"
        await here.delete_namespace()

        async def waits() -> bool:
            row = await here.seen()
            return row is not None and any(each.reason == "NameTaken" for each in row.observed.conditions)

        # Nothing is deleted in a namespace that may be somebody else's by now, and the status says why.
        await poll_until(waits)
        assert (await client.list(DEPLOYMENTS, "shop")).items != ()
        assert (await told()).deletion_requested_at is not None
        assert await client.find(NAMESPACES, None, "shop") is not None
        await here.relabel_namespace({NAMESPACE_UID: uid})
        await poll_until(here.seen, lambda seen: seen is None)
        await poll_until(here.seen_namespace, lambda seen: seen is None)
        assert await client.find(NAMESPACES, None, "shop") is None


async def test_an_empty_namespace_that_lost_our_label_is_not_forgotten(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace_reconciler, "LABEL_SECONDS", 0.2)
    client = await here.connect("local")
    async with here.reconciling():
        made = await here.namespace()
        await poll_until(here.seen_namespace, lambda seen: seen is not None and seen.phase == "Active")
        await here.relabel_namespace({NAMESPACE_UID: None})
        await here.delete_namespace()
        await poll_until(here.seen_namespace, lambda seen: seen is not None and seen.reason == "LabelLost")
        await here.relabel_namespace({NAMESPACE_UID: made.uid})
        await poll_until(here.seen_namespace, lambda seen: seen is None)
        assert await client.find(NAMESPACES, None, "shop") is None
