"""Phases, waves and hooks of an application, in the order in which they reach the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from google.protobuf.field_mask_pb2 import FieldMask
from tests.applications.conftest import Place, actions, config_map, deployment, given
from tests.applications.test_following import BEHAVIOR, DEGRADED, HEALTHY, behaving, until
from tests.waiting import poll_until

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.config.v1 import config_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse_client import AsyncClient, RetryPolicy
from pilothouse_client.errors import UnavailableError
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values import resources
from pilothouse_simulator.values.json_copy import copy_json

CHART = Path(__file__).with_name("shop_chart.yaml").read_text()
WAVE = "argocd.argoproj.io/sync-wave"
HOOK = "argocd.argoproj.io/hook"
PROGRESSING = pb.APPLICATION_STATUS_PROGRESSING
SUSPENDED = pb.APPLICATION_STATUS_SUSPENDED


def annotated(document: dict[str, Any], **annotations: str) -> dict[str, Any]:
    """Returns the document with the annotations `wave`, `hook` and `policy`."""
    keys = {"wave": WAVE, "hook": HOOK, "policy": "argocd.argoproj.io/hook-delete-policy"}
    found = {keys[name]: value for name, value in annotations.items()}
    metadata = document["metadata"]
    return {**document, "metadata": {**metadata, "annotations": metadata.get("annotations", {}) | found}}


def job(name: str = "migrate", behavior: str = "exit:0", hook: str = "PreSync", **annotations: str) -> Any:
    """Returns the document of a Job that is a hook."""
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"annotations": {BEHAVIOR: behavior}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]},
            },
        },
    }
    return annotated(made, hook=hook, **annotations)


class Journal:
    """Changes of the simulated cluster in a namespace, in order, such as `Job/migrate ended`."""

    def __init__(self, cluster: SimulatedCluster, namespace: str) -> None:
        self._subscription = cluster.store.subscribe()
        self._namespace = namespace
        self.lines: list[str] = []
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for event in self._subscription:
            metadata = event.object["metadata"]
            kind = event.resource.kind
            if metadata.get("namespace") != self._namespace or metadata["name"] in (
                "default",
                "kube-root-ca.crt",
            ):
                continue
            name = f"{kind}/{metadata['name']}"
            if kind in ("ConfigMap", "Secret", "Service", "ServiceAccount", "Deployment", "Job"):
                self._note(event, name)

    def _note(self, event: Any, name: str) -> None:
        if event.type != "MODIFIED":
            self.lines.append(f"{name} {event.type.lower()}")
            return
        before, now = event.previous, event.object
        ended = {each["type"] for each in now.get("status", {}).get("conditions", ())} & {
            "Complete",
            "Failed",
        }
        if name.startswith("Job/") and ended and f"{name} ended" not in self.lines:
            self.lines.append(f"{name} ended")
        elif (before.get("spec"), before.get("data")) != (now.get("spec"), now.get("data")):
            self.lines.append(f"{name} changed")

    def order(self, *lines: str) -> list[int]:
        """Returns the positions of lines, which must exist."""
        assert set(lines) <= set(self.lines), self.lines
        return [self.lines.index(each) for each in lines]

    async def has(self, line: str) -> None:
        """Waits for a line."""

        async def there() -> bool:
            return line in self.lines

        await poll_until(there, seconds=20.0, what=line)

    async def close(self) -> None:
        self._subscription.close()
        await self._task


@pytest_asyncio.fixture
async def journal(place: Place) -> AsyncIterator[Journal]:
    made = Journal(place.cluster, place.name)
    yield made
    await made.close()


def members(found: pb.Application) -> dict[str, pb.ApplicationMember]:
    return {f"{each.kind}/{each.name}": each for each in found.members}


def in_order(positions: Sequence[int]) -> bool:
    return list(positions) == sorted(positions)


def chart(*changes: tuple[str, str]) -> list[dict[str, Any]]:
    text = CHART
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return list(yaml.safe_load_all(text))


async def test_a_chart_is_installed_and_upgraded_in_helms_order(place: Place, journal: Journal) -> None:
    plan = await place.apply(chart(), validate_only=True)
    assert not plan.problems
    shown = [(each.phase, each.wave, f"{each.kind}/{each.name}") for each in plan.changes]
    assert shown == sorted(shown, key=lambda each: each[:2])
    assert shown[0] == (pb.APPLICATION_PHASE_PRE_SYNC, -10, "ServiceAccount/shop-hooks")
    assert shown[-1] == (pb.APPLICATION_PHASE_POST_SYNC, 0, "Job/shop-create-admin")
    lines = [f"{each.path} {each.message}" for each in plan.warnings if "LEFT_OUT" in each.reason]
    for name, why in (
        ("shop-warm-cache", "it does not run at the first apply"),
        ("shop-backup", "nothing runs when an application is deleted; nothing runs for a rollback alone"),
        ("shop-cleanup", "nothing runs when an application is deleted; nothing runs for a rollback alone"),
        ("shop-test-connection", "it runs on demand only"),
    ):
        assert [each for each in lines if name in each and why in each], lines
    await place.apply(chart())
    healthy = await until(place, lambda found: found.status == HEALTHY and not found.reason)
    assert in_order(
        journal.order(
            "ServiceAccount/shop-hooks added",
            "ConfigMap/shop-migrate added",
            "Job/shop-migrate added",
            "Job/shop-migrate ended",
            "Deployment/shop added",
            "Job/shop-create-admin added",
            "Job/shop-create-admin ended",
        )
    ), journal.lines
    assert journal.order("Job/shop-migrate ended")[0] < min(
        journal.order("ConfigMap/shop added", "Secret/shop added", "Service/shop added")
    )
    assert [each.hook for each in healthy.members].count(True) == 4
    await journal.has("Job/shop-create-admin deleted")
    # A hook that its policy has deleted does not count as missing.
    done = await until(place, lambda found: found.status == HEALTHY)
    assert members(done)["Job/shop-create-admin"].reason == "Completed"

    async def forgotten() -> bool:
        found = place.client.containers.list(namespace=place.name)
        return "shop-create-admin" not in [each.name async for each in found]

    await poll_until(forgotten)

    del journal.lines[:]
    upgrade = chart(("shop:1.4.2", "shop:1.5.0"), ("LOG_LEVEL: info", "LOG_LEVEL: debug"))
    plan = await place.apply(upgrade, prune=True, validate_only=True)
    assert actions(plan.changes)["Job/shop-migrate"] == "run"
    applied = await place.apply(upgrade, prune=True)
    assert applied.revision == 2
    assert [each.path for each in applied.warnings if each.reason == "HOOK_LEFT_OUT"] == [
        "Job/shop-create-admin"
    ]
    await journal.has("Job/shop-warm-cache ended")
    await until(place, lambda found: found.status == HEALTHY)
    assert in_order(
        journal.order(
            "Job/shop-migrate deleted",
            "Job/shop-migrate-2 added",
            "Job/shop-migrate-2 ended",
            "Deployment/shop changed",
            "Job/shop-warm-cache added",
        )
    ), journal.lines
    assert journal.order("Job/shop-migrate-2 ended") < journal.order("ConfigMap/shop changed")
    # Hooks run at each apply, even if nothing else differs; a rollback runs none.
    plan = await place.apply(upgrade, prune=True, validate_only=True)
    assert {name: what for name, what in actions(plan.changes).items() if what != "unchanged"} == {
        "Job/shop-migrate": "run",
        "Job/shop-warm-cache": "run",
    }
    del journal.lines[:]
    await place.client.applications.rollback(namespace=place.name, name="shop", revision=1)
    await journal.has("Deployment/shop changed")
    back = await until(place, lambda found: found.status == HEALTHY and found.revision == 3)
    assert not [each for each in journal.lines if each.startswith("Job/") and each.endswith("added")]
    assert members(back)["Job/shop-migrate"].status == HEALTHY
    await place.client.applications.delete(namespace=place.name, name="shop")
    await journal.has("Job/shop-migrate-2 deleted")


async def test_waves_are_applied_in_order_and_prune_comes_last(place: Place, journal: Journal) -> None:
    def documents(level: str, image: str) -> list[dict[str, Any]]:
        return [
            annotated(deployment("back", image), wave="-1"),
            config_map(level=level),
            annotated(deployment("front", image), wave="5"),
        ]

    await place.apply([*documents("info", "nginx:1.27"), config_map("former")])
    await until(place, lambda found: found.status == HEALTHY)
    assert in_order(
        journal.order("Deployment/back added", "ConfigMap/settings added", "Deployment/front added")
    )
    del journal.lines[:]
    slow = documents("debug", "nginx:1.28")
    slow[0]["spec"]["template"]["metadata"]["annotations"] = {BEHAVIOR: "readiness-failing"}
    await place.apply(slow, prune=True)
    await journal.has("Deployment/back changed")
    found = await until(place, lambda found: "container back" in found.message)
    by_name = members(found)
    assert (by_name["Deployment/front"].status, by_name["Deployment/front"].reason) == (
        PROGRESSING,
        "WaitingForWave",
    )
    assert (
        by_name["Deployment/front"].message
        == "it is applied in wave 5 of Sync, after all earlier waves are healthy"
    )
    assert by_name["ConfigMap/former"].reason == "Pruning"
    assert [each.wave for each in found.members] == [-1, 0, 5, 0]
    # Neither a change by another call nor drift repair applies the object earlier.
    await place.client.config.update_config_map(
        namespace=place.name,
        name="settings",
        config_map=config_pb2.ConfigMap(labels={"team": "blue"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    store = place.cluster.store
    front: Any = store.get(resources.DEPLOYMENTS, place.name, "front")
    store.update(resources.DEPLOYMENTS, {**front, "spec": {**front["spec"], "paused": True}})
    await held_work_is_done(place)
    assert "ConfigMap/settings changed" not in journal.lines
    assert "nginx:1.28" not in str(store.get(resources.DEPLOYMENTS, place.name, "front"))
    # The next revision starts with its first step and includes the held change.
    del journal.lines[:]
    await place.apply(documents("debug", "nginx:1.28"), prune=True)
    await journal.has("ConfigMap/former deleted")
    await until(place, lambda found: found.status == HEALTHY)
    assert in_order(
        journal.order(
            "Deployment/back changed",
            "ConfigMap/settings changed",
            "Deployment/front changed",
            "ConfigMap/former deleted",
        )
    ), journal.lines
    record = await newest_operation(place)
    names = {
        each.resource_name
        async for each in place.client.audit.list_operations(
            filter=f'parent_operation_id = "{record}" AND action = "delete"'
        )
    }
    assert names == {"former"}


async def newest_operation(place: Place) -> str:
    found = await place.client.applications.get_revision(namespace=place.name, name="shop")
    return found.operation_id


async def held_work_is_done(place: Place) -> None:
    """Waits until the worker has examined all work that is due in the namespace, and has left it."""

    async def nothing_is_due() -> bool:
        async with place.server.database.system() as sql:
            due: int = await sql.fetchval(
                "SELECT count(*) FROM reconcile_work WHERE held AND (due_at <= now() OR leased_until IS NOT NULL)"
                " AND namespace_id = (SELECT id FROM namespaces WHERE name = $1)",
                place.name,
            )
            return due == 0

    await poll_until(nothing_is_due)


async def test_a_wave_waits_for_the_jobs_before_it(place: Place, journal: Journal) -> None:
    fill = job("fill")
    del fill["metadata"]["annotations"][HOOK]
    await place.apply([fill, annotated(deployment("front"), wave="1")])
    await until(place, lambda found: found.status == HEALTHY)
    assert in_order(journal.order("Job/fill added", "Job/fill ended", "Deployment/front added"))


async def test_a_failed_hook_stops_the_apply(place: Place, journal: Journal) -> None:
    await place.apply([deployment(), config_map()])
    await until(place, lambda found: found.status == HEALTHY)
    failing = [
        job(behavior="exit:3"),
        deployment(image="nginx:1.28"),
        config_map(),
        job("announce", hook="PostSync"),
    ]
    await place.apply(failing)
    failed = await until(place, lambda found: found.status == DEGRADED)
    assert failed.reason == "BackoffLimitExceeded"
    assert failed.message.startswith("PreSync hook migrate: ")
    assert "exit code 3" in failed.message
    await held_work_is_done(place)
    assert not [each for each in journal.lines if "announce" in each or "web changed" in each]
    # An apply without the hooks that had not started removes them completely; the others stay.
    answer = await place.apply([deployment(image="nginx:1.28"), config_map()])
    assert actions(answer.changes)["Job/announce"] == "prune"
    healthy = await until(place, lambda found: found.status == HEALTHY)
    assert members(healthy)["Job/migrate"].reason == "Skipped"
    await journal.has("Deployment/web changed")
    assert not [each for each in journal.lines if "announce" in each]


async def test_a_failed_hook_causes_a_rollback(place: Place, journal: Journal) -> None:
    await place.apply([job(), deployment(), config_map()])
    await until(place, lambda found: found.status == HEALTHY)
    del journal.lines[:]
    failing = [
        job(behavior="exit:3", policy="HookFailed"),
        deployment(image="nginx:1.28"),
        config_map("new"),
    ]
    await place.apply(failing, prune=True, rollback_on_failure=True)
    back = await until(place, lambda found: found.revision == 3 and found.status == HEALTHY)
    assert {each.name for each in back.members} == {"web", "settings"}
    revision = await place.client.applications.get_revision(namespace=place.name, name="shop", revision=3)
    assert (revision.origin, revision.failed_revision) == (1, 2)
    assert "PreSync hook migrate" in revision.reason
    assert "exit code 3" in revision.reason
    await journal.has("Job/migrate-2 deleted")
    # No object of the failed revision reached the cluster.
    assert not [each for each in journal.lines if "Deployment" in each or "ConfigMap" in each], journal.lines
    assert (await place.client.containers.get(namespace=place.name, name="web")).image == "nginx:1.27"


async def test_an_apply_waits_for_a_hook_that_is_being_deleted(place: Place, journal: Journal) -> None:
    documents = [job(), deployment()]
    await place.apply([job(behavior="run"), deployment()])
    await journal.has("Job/migrate added")

    def write_finalizers(*names: str) -> None:
        found = copy_json(place.cluster.store.get(resources.JOBS, place.name, "migrate"))
        assert found is not None
        found["metadata"]["finalizers"] = list(names)
        place.cluster.store.update(resources.JOBS, found, manager="kubectl-edit")

    write_finalizers("example.com/held")
    await place.client.containers.delete(namespace=place.name, name="migrate")
    token, once = await place.server.token(), RetryPolicy(attempts=1)
    async with AsyncClient(place.server.address, token=token, retry=once) as client:
        with pytest.raises(UnavailableError) as refused:
            await place.apply(documents, client=client)
    assert refused.value.reason == "HOOK_BEING_DELETED"
    call = asyncio.create_task(place.apply(documents))
    write_finalizers()
    assert (await call).revision == 2


async def test_a_pause_stops_the_steps(place: Place, journal: Journal) -> None:
    await place.apply([job(behavior="run"), deployment()])
    # A running Job does not count as an ended hook.
    running = await until(place, lambda found: members(found)["Job/migrate"].reason == "Running")
    assert members(running)["Deployment/web"].reason == "WaitingForWave"
    paused = await place.client.applications.pause(namespace=place.name, name="shop")
    assert set(paused.containers) == {"migrate", "web"}
    await until(place, lambda found: found.status == SUSPENDED)
    assert "Deployment/web added" not in journal.lines
    # A new apply replaces the unfinished run.
    await place.client.applications.resume(namespace=place.name, name="shop")
    await place.apply([job(), deployment()])
    healthy = await until(place, lambda found: found.status == HEALTHY)
    assert healthy.revision == 2
    assert in_order(journal.order("Job/migrate deleted", "Job/migrate-2 ended", "Deployment/web added"))
    # A pause leaves out a Job that has ended.
    paused = await place.client.applications.pause(namespace=place.name, name="shop")
    assert list(paused.containers) == ["web"]


async def test_waiting_objects_are_released_with_their_application(place: Place, journal: Journal) -> None:
    documents = [behaving("readiness-failing", "back"), annotated(config_map(), wave="1")]
    await place.apply(documents)
    await journal.has("Deployment/back added")
    await place.client.applications.delete(namespace=place.name, name="shop")

    async def gone() -> bool:
        configs = [each async for each in place.client.config.list_config_maps(namespace=place.name)]
        containers = [each async for each in place.client.containers.list(namespace=place.name)]
        return not configs and not containers

    await poll_until(gone)
    assert "ConfigMap/settings added" not in journal.lines
    # An object that leaves a waiting application is applied, and so are all objects of a revision without waves.
    await place.apply(documents)
    await place.apply([documents[0]])
    await journal.has("ConfigMap/settings added")


async def test_without_an_application_hooks_are_refused_and_waves_have_no_effect(place: Place) -> None:
    async def tried(document: dict[str, Any]) -> pb.ApplyApplicationResponse:
        return await place.client.applications.apply(
            namespace=place.name, documents=given([document]), validate_only=True
        )

    refused = await tried(job())
    [problem] = refused.problems
    assert problem.weight == pb.PROBLEM_WEIGHT_BEHAVIOUR
    assert "an Argo CD hook (PreSync) cannot be represented" in problem.message
    allowed = await tried(annotated(config_map(), wave="3"))
    assert not allowed.problems
    assert "NO_ORDER" in [each.reason for each in allowed.warnings]


async def test_a_hook_needs_permissions_to_run_and_delete_it(place: Place) -> None:
    await place.apply([job(), config_map()])
    await until(place, lambda found: found.status == HEALTHY)
    role = identity_pb2.Role(name=f"deployer-{place.name}")
    role.permissions.extend(["application.*", "config.*", "container.get", "container.update"])
    await place.client.identity.create_role(role=role)
    user = await place.server.user(f"eve-{place.name}", {place.name: role.name})
    plan = await place.apply([job(), config_map()], client=user, validate_only=True)
    assert [each.permission for each in plan.problems] == ["container.run"]
    plan = await place.apply([job(policy="HookSucceeded"), config_map()], client=user, validate_only=True)
    assert {each.permission for each in plan.problems} == {"container.run", "container.delete"}
