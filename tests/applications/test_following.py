"""The status of an application follows its members; the server rolls back a revision that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tests.applications.conftest import Place, config_map, deployment, service, shop
from tests.harness import PASSWORD
from tests.waiting import patient, poll_until

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.config.v1 import config_pb2
from pilothouse_client import AsyncClient, Client
from pilothouse_client.streams import ChangeKind
from pilothouse_client.waiting import Patience
from pilothouse_client.waiting_applications import ApplicationWaitError, wait_for_application

BEHAVIOR = "simulate.pilothouse.dev/behavior"
HEALTHY, DEGRADED = pb.APPLICATION_STATUS_HEALTHY, pb.APPLICATION_STATUS_DEGRADED


def behaving(behavior: str, name: str = "web", image: str = "nginx:1.28") -> dict[str, Any]:
    """Returns a Deployment whose pods show this behaviour in the simulated cluster."""
    made = deployment(name, image)
    made["spec"]["template"]["metadata"]["annotations"] = {BEHAVIOR: behavior}
    return made


async def until(
    place: Place, holds: Callable[[pb.Application], Any], name: str = "shop", seconds: float = 20.0
) -> pb.Application:
    async def look() -> pb.Application | None:
        found = await place.get(name)
        return found if holds(found) else None

    found = await poll_until(look, seconds=seconds, what="the state of the application")
    assert found is not None
    return found


async def test_a_watch_reports_each_status_and_its_reason(place: Place) -> None:
    await place.apply(shop())
    seen: list[tuple[str, str]] = []

    async def follow(status: int) -> None:
        async for change in place.client.applications.watch(namespace=place.name, name="shop"):
            if change.kind not in (ChangeKind.ADDED, ChangeKind.MODIFIED):
                continue
            found = change.resource
            seen.append((pb.ApplicationStatus.Name(found.status), found.reason))
            if found.status == status:
                return

    await asyncio.wait_for(follow(HEALTHY), patient(20.0))
    assert seen[-1] == ("APPLICATION_STATUS_HEALTHY", "")
    await place.apply([config_map(), service(), behaving("image-pull-error")], prune=True)
    await asyncio.wait_for(follow(DEGRADED), patient(20.0))
    assert seen[-1][1] in ("ErrImagePull", "ImagePullBackOff")
    shown = await place.get()
    assert "container web: its image cannot be pulled" in shown.message
    [failed] = [each for each in shown.members if each.failed]
    assert (failed.kind, failed.name) == ("Deployment", "web")
    # Without `rollback_on_failure`, the server does not roll back.
    assert shown.revision == 2
    await place.apply([config_map(), service(), deployment()], prune=True)
    await until(place, lambda found: found.status == HEALTHY)
    # Another call deletes a member.
    await place.client.network.delete_service(namespace=place.name, name="web")
    gone = await until(place, lambda found: found.status == pb.APPLICATION_STATUS_MISSING)
    assert (gone.reason, gone.message) == ("Deleted", "service web: it was deleted by another call")


async def test_the_server_rolls_back_a_failed_revision(place: Place) -> None:
    await place.apply([config_map(), deployment()], rollback_on_failure=True)
    await until(place, lambda found: found.status == HEALTHY)
    failing = [config_map(level="debug"), behaving("exit:42"), service()]
    await place.apply(failing, rollback_on_failure=True)
    back = await until(place, lambda found: found.revision == 3)
    assert {each.name for each in back.members} == {"settings", "web"}
    revision = await place.client.applications.get_revision(namespace=place.name, name="shop", revision=3)
    assert (revision.origin, revision.failed_revision) == (1, 2)
    assert "a newest pod restarts" in revision.reason
    assert "exit code 42" in revision.reason
    assert revision.created_by == "admin"
    container = await place.client.containers.get(namespace=place.name, name="web")
    assert container.image == "nginx:1.27"
    found = await place.client.config.get_config_map(namespace=place.name, name="settings")
    assert dict(found.data) == {"level": "info"}
    record = await place.client.audit.get_operation(operation_id=revision.operation_id)
    assert (record.action, record.resource_type, record.metadata["failed_revision"]) == (
        "rollback",
        "application",
        2,
    )
    healthy = await until(place, lambda found: found.status == HEALTHY)
    assert healthy.revision == 3


async def test_the_server_rolls_back_a_revision_not_healthy_in_time(place: Place) -> None:
    await place.apply([deployment()])
    await until(place, lambda found: found.status == HEALTHY)
    await place.apply([behaving("readiness-failing")], rollback_on_failure=True, progress_deadline_seconds=1)
    await until(place, lambda found: found.revision == 3)
    revision = await place.client.applications.get_revision(namespace=place.name, name="shop", revision=3)
    assert "it was not healthy in time: container web: " in revision.reason


async def test_a_refused_rollback_reports_why_and_is_not_retried(place: Place) -> None:
    user = await place.server.user(f"ann-{place.name}", {place.name: "operator"})
    await place.apply([behaving("crash-loop")], client=user, rollback_on_failure=True)
    refused = await until(place, lambda found: "not rolled back" in found.message)
    assert refused.message.endswith("not rolled back: there is no revision before it")
    # The server does not roll back if the caller who applied no longer has the permission.
    await place.apply([deployment()], client=user)
    await until(place, lambda found: found.status == HEALTHY)
    await place.apply([behaving("readiness-failing")], client=user, rollback_on_failure=True)
    grants = place.client.identity.list_role_grants(namespace=place.name)
    for grant in [each async for each in grants]:
        await place.client.identity.revoke_role(
            username=grant.username, role=grant.role, namespace=place.name
        )
    await _deadline_passes(place)
    lost = await until(place, lambda found: "not rolled back" in found.message)
    assert lost.message.endswith("who applied it, has no permission application.apply any more")
    assert lost.revision == 3


async def test_the_server_rolls_back_on_behalf_of_the_caller_who_applied(place: Place) -> None:
    ann = f"ann-{place.name}"
    user = await place.server.user(ann, {place.name: "operator"})
    await place.apply([config_map(), deployment()], client=user)
    failing = [config_map(), behaving("readiness-failing")]
    await place.apply(failing, client=user, rollback_on_failure=True, progress_deadline_seconds=600)
    # Another caller has written the application since then.
    await place.client.applications.pause(namespace=place.name, name="shop")
    await place.client.applications.resume(namespace=place.name, name="shop")
    await _deadline_passes(place)
    await until(place, lambda found: found.revision == 3)
    revision = await place.client.applications.get_revision(namespace=place.name, name="shop", revision=3)
    assert (revision.created_by, revision.failed_revision) == (ann, 2)
    await until(place, lambda found: found.status == HEALTHY)
    # An API key's limits apply to the rollback: it may not write what another caller has changed since then.
    permissions = ["application.*", "container.*", "config.get", "config.list", "namespace.get"]
    made = await user.identity.create_api_key(name="deploying", permissions=permissions)
    async with AsyncClient(place.server.address, token=made.key) as key:
        await place.apply(failing, client=key, rollback_on_failure=True, progress_deadline_seconds=600)
    await place.client.config.update_config_map(
        namespace=place.name,
        name="settings",
        config_map=config_pb2.ConfigMap(data={"level": "debug"}),
        update_mask=FieldMask(paths=["data"]),
    )
    await _deadline_passes(place)
    refused = await until(place, lambda found: "not rolled back" in found.message)
    assert "permission config.update is needed" in refused.message
    assert refused.revision == 4


async def _deadline_passes(place: Place) -> None:
    async with place.server.database.system() as sql:
        await sql.execute(
            "UPDATE applications SET deadline_at = now(), look_at = now() "
            "WHERE namespace_id = (SELECT id FROM namespaces WHERE name = $1)",
            place.name,
        )


async def test_a_revision_that_was_healthy_long_enough_is_kept(place: Place) -> None:
    await place.apply([deployment()])
    await place.apply([deployment(image="nginx:1.28")], rollback_on_failure=True)
    await until(place, lambda found: found.status == HEALTHY)
    async with place.server.database.system() as sql:
        await sql.execute(
            "UPDATE applications SET healthy_since = healthy_since - interval '10 s', look_at = now() "
            "WHERE namespace_id = (SELECT id FROM namespaces WHERE name = $1)",
            place.name,
        )

        async def settled() -> bool:
            left = await sql.fetchval(
                "SELECT deadline_at FROM applications AS a JOIN namespaces AS n ON n.id = a.namespace_id"
                " WHERE n.name = $1",
                place.name,
            )
            return left is None

        await poll_until(settled)


async def test_a_wait_ends_when_healthy_or_at_the_first_failure(place: Place) -> None:
    def wait(asked: pb.Application, stable_for: float = 0.5) -> pb.Application:
        server = place.server
        with Client(server.address, username="admin", password=PASSWORD) as client:
            patience = Patience(stable_for=stable_for)
            return wait_for_application(client, asked, timeout=patient(30.0), patience=patience)

    made = await place.apply([config_map(), deployment()])
    healthy = await asyncio.to_thread(wait, made.application)
    assert healthy.status == HEALTHY
    broken = await place.apply([config_map(), behaving("exit:3")])
    with pytest.raises(ApplicationWaitError, match="Deployment web: a newest pod restarts") as failed:
        # The pods serve for a moment after each restart.
        await asyncio.to_thread(wait, broken.application, 60.0)
    assert "exit code 3" in str(failed.value)
    # The server may roll back before the wait notices; then the error quotes the revision that the server created.
    undone = await place.apply([config_map(), behaving("exit:4")], rollback_on_failure=True)
    await until(place, lambda found: found.revision == undone.revision + 1)
    with pytest.raises(
        ApplicationWaitError, match="revision 3 failed, and revision 4 restored revision 2"
    ) as past:
        await asyncio.to_thread(wait, undone.application, 60.0)
    # So that `apply --wait` does not announce a rollback that has already happened.
    assert not past.value.is_rollback_ahead
    late = pb.Application(rollback_on_failure=True)
    assert ApplicationWaitError("not healthy after 3 s", late).is_rollback_ahead
    late.message = "not rolled back: its revision is not kept"
    assert not ApplicationWaitError("not healthy after 3 s", late).is_rollback_ahead
