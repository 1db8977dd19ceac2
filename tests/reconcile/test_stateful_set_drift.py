"""StatefulSets that others change or delete, under each drift policy, and stuck rollouts."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pilothouse_server.containers.model import Container, DriftPolicy
from pilothouse_server.containers.operations import resume as resume_container
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from tests.reconcile.environment import Environment
from tests.reconcile.test_stateful_set_kills import held, make, named, partition_of
from tests.waiting import poll_until

pytestmark = pytest.mark.full
_PATH: Final = "/apis/apps/v1/namespaces/shop/statefulsets/web"
_BROKEN: Final = "registry.invalid/x:1"


async def _made(here: Environment) -> None:
    await here.namespace()
    await make(here)
    await _ready(here)


async def _ready(here: Environment, count: int = 2) -> Container:
    return await here.until(
        lambda row: (
            row.observed.status == "running"
            and row.observed.ready_replicas == count
            and not row.reconciling
            and all(each.status == "True" for each in row.observed.conditions if each.type == "RolledOut")
        )
    )


def _live(here: Environment) -> dict[str, Any]:
    found = here.cluster.store.get(STATEFUL_SETS, "shop", "web")
    return found or {"metadata": {"uid": ""}, "spec": {}}


def _image(manifest: dict[str, Any] | None) -> str:
    if manifest is None:
        return ""
    spec = manifest["spec"]
    return str(spec.get("template", manifest)["spec"]["containers"][0]["image"])


async def _until_stuck(here: Environment) -> None:
    async def look() -> bool:
        return _image(here.cluster.store.get(PODS, "shop", "web-1")) == _BROKEN

    await poll_until(look)


async def _stuck_pods(here: Environment) -> list[str]:
    rows = await here.rows("SELECT message FROM container_status_history WHERE reason = 'StuckPodDeleted'")
    return [str(row["message"]) for row in rows]


async def _set_image(here: Environment, image: str) -> None:
    template = {"spec": {"containers": [{"name": "main", "image": image}]}}
    await here.patch_as("kubectl-edit", _PATH, {"spec": {"template": template}})


@pytest.mark.parametrize(
    ("policy", "image", "replicas", "reason"),
    [
        ("report", "other:1", 3, "FieldManagerConflict"),
        ("repair", "nginx:1.27", 2, "Repaired"),
        ("adopt", "other:1", 3, "Adopted"),
    ],
)
async def test_changes_made_while_no_server_ran_follow_the_policy(
    here: Environment, policy: DriftPolicy, image: str, replicas: int, reason: str
) -> None:
    async with here.reconciling():
        await _made(here)
        await here.update(drift_policy=policy)
        await _ready(here)
    await _set_image(here, "other:1")
    await here.merge_as("kubectl", f"{_PATH}/scale", {"spec": {"replicas": 3}})
    async with here.reconciling():
        await here.until(
            lambda row: any(c.type == "Drifted" and c.reason == reason for c in row.observed.conditions)
        )
        await _ready(here, replicas)
        # Our own change keeps the same values.
        await here.update(annotations={"a": "b"})
        row = await _ready(here, replicas)
    assert (_image(_live(here)), _live(here)["spec"]["replicas"]) == (image, replicas)
    assert row.replicas == (replicas if policy == "adopt" else 2)
    assert set(named(here, PODS)) == {f"web-{ordinal}" for ordinal in range(replicas)}


async def test_a_repaired_template_releases_a_stuck_rollout(here: Environment) -> None:
    async with here.reconciling():
        await _made(here)
    await _set_image(here, _BROKEN)
    await _until_stuck(here)
    async with here.reconciling():
        await here.until(lambda row: row.observed.ready_replicas < 2)
        await _ready(here)
    assert len(await _stuck_pods(here)) == 1


async def test_a_template_reverted_while_held_deletes_no_pod_before_resume(here: Environment) -> None:
    async with here.reconciling():
        await _made(here)
        await here.update(image=_BROKEN)
        await _until_stuck(here)
        await held(here)
        await here.until(lambda row: not row.reconciling)
        assert partition_of(_live(here)) == 2
        before = named(here, PODS)
        await here.update(image="nginx:1.27")
        await here.until(lambda row: not row.reconciling)
        assert named(here, PODS) == before
        assert await _stuck_pods(here) == []
        await here.move(resume_container)
        await _ready(here)
    (line,) = await _stuck_pods(here)
    assert line.startswith("Pod web-1 was deleted")


async def test_scaling_to_zero_deletes_claims_as_requested(here: Environment) -> None:
    async with here.reconciling():
        await _made(here)
        await here.update(replicas=0)

        async def claims() -> dict[str, str]:
            return named(here, PERSISTENT_VOLUME_CLAIMS)

        await poll_until(claims, lambda left: not left)
        await here.until(lambda row: row.observed.status == "stopped" and not row.reconciling)
    assert _live(here)["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Delete"
