"""The nodes' reports about images do not change the desired state."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import text

from pilothouse_server.containers.model import ContainerSpec, InitContainer, Program
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    ObjectMeta,
    Pod,
    PodContainer,
    PodSpec,
    PodState,
    Waiting,
)
from pilothouse_server.reconcile.observe.images import RunningImage, running_images
from pilothouse_server.reconcile.repository.images import ImageSeen, write_failed, write_seen
from tests.kubernetes.containers import container as model
from tests.reconcile.environment import Environment
from tests.waiting import poll_until, within

BEHAVIOR = "simulate.pilothouse.dev/behavior"
_WANT = text("""
UPDATE containers SET spec = jsonb_set(spec, '{image}', '"nginx:1.28"'),
    image_id = (SELECT id FROM container_images WHERE name = 'nginx' AND tag = '1.28') WHERE id = :id
""")
_WAITS = (
    "SELECT count(*) AS waiting FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
)
_ONE, _ANOTHER = (f"sha256:{digit * 64}" for digit in "ab")


async def images(here: Environment) -> dict[str, dict[str, Any]]:
    """Returns the image rows in use, by container."""
    rows = await here.rows(
        "SELECT c.name AS container, i.* FROM containers AS c JOIN container_images AS i ON i.id = c.image_id"
    )
    return {row["container"]: row for row in rows}


async def test_digest_size_and_platform_come_from_pods_and_nodes(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        made = await here.create()
        await here.create("again")
        await here.running()
        await here.running("again")
        found = await poll_until(
            lambda: images(here),
            lambda rows: all(row["digest"] and row["size_bytes"] for row in rows.values()),
        )
        web = found["web"]
        assert web["digest"].startswith("sha256:")
        assert (web["name"], web["tag"], web["status"]) == ("nginx", "1.27", "available")
        assert (web["architecture"], web["os"]) == ("amd64", "linux")
        assert found["again"]["id"] == web["id"]
        row = await here.running()
        assert (row.image, row.generation, row.resource_version) == (
            "nginx:1.27",
            made.generation,
            made.resource_version,
        )
        # Another image is another row, with its own digest.
        await here.update(image="nginx:1.28")
        moved = await poll_until(
            lambda: images(here), lambda rows: rows["web"]["tag"] == "1.28" and rows["web"]["digest"]
        )
        assert moved["web"]["digest"] != web["digest"]


async def test_images_of_sidecars_and_init_containers_get_their_digests(here: Environment) -> None:
    others = (
        "SELECT p.program, i.name, i.digest FROM program_images AS p JOIN container_images AS i ON i.id = p.image_id"
        " ORDER BY program"
    )
    async with here.reconciling():
        await here.namespace()
        spec = ContainerSpec(
            sidecars=(Program("proxy", "envoy:1"),), init_containers=(InitContainer("init", "migrate:1"),)
        )
        await here.create(spec=spec)
        rows = await poll_until(
            lambda: here.rows(others), lambda rows: len(rows) == 2 and all(row["digest"] for row in rows)
        )
    assert [(row["program"], row["name"]) for row in rows] == [("init", "migrate"), ("proxy", "envoy")]
    assert rows[0]["digest"] != rows[1]["digest"]


async def test_an_image_that_cannot_be_pulled_has_the_status_error(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create(image="nowhere/nothing:1", annotations={BEHAVIOR: "image-pull-error"})
        found = await poll_until(lambda: images(here), lambda rows: rows["web"]["status"] == "error")
        assert found["web"]["digest"] is None


async def test_a_report_about_an_image_no_longer_desired_is_ignored(here: Environment) -> None:
    """Reports are written a moment later; by then the container may have another image."""
    await here.namespace()
    made = await here.create(image="nginx:1.27")
    await here.update(image="nginx:1.28")

    async def write(image: str, digest: str) -> dict[str, Any]:
        seen = ImageSeen(int(made.id), image, digest)
        await here.change(partial(write_failed, failed=[(int(made.id), "", image)]))
        failed = (await images(here))["web"]["status"] == "error"
        await here.change(partial(write_seen, seen=[seen]))
        row = (await images(here))["web"]
        return {"tag": row["tag"], "digest": row["digest"], "failed": failed}

    assert await write("nginx:1.27", "sha256:aa") == {"tag": "1.28", "digest": None, "failed": False}
    assert await write("nginx:1.28", "sha256:bb") == {"tag": "1.28", "digest": "sha256:bb", "failed": True}


async def test_a_report_about_the_old_image_waits_for_the_change_and_is_ignored(here: Environment) -> None:
    """The report is written while the image changes: the second writer waits."""
    await here.namespace()
    made = await here.create(image="nginx:1.28")
    await here.update(image="nginx:1.27")
    seen = ImageSeen(int(made.id), "nginx:1.27", "sha256:aa")
    async with here.store.system_write("test") as transaction:
        await transaction.connection.execute(_WANT, {"id": int(made.id)})
        waiting = asyncio.create_task(here.change(partial(write_seen, seen=[seen])))

        async def waits() -> bool:
            return bool((await here.rows(_WAITS))[0]["waiting"])

        await poll_until(waits, what="the one that waits for the change")
    async with within(10.0):
        await waiting
    row = (await images(here))["web"]
    assert (row["tag"], row["digest"]) == ("1.28", None)


async def test_containers_are_locked_in_the_order_of_their_ids(here: Environment) -> None:
    """In another order an observer and an apply could each wait for a row that the other has locked."""
    await here.namespace()
    names = [f"web-{number}" for number in range(5)]
    made = [int((await here.create(name)).id) for name in names]
    seen = [ImageSeen(each, "nginx:1.27", f"sha256:{each}") for each in reversed(made)]
    lock = "SELECT id FROM containers WHERE id = $1 FOR NO KEY UPDATE NOWAIT"
    async with here.database.system() as applying, applying.transaction():
        assert await applying.fetchval(lock, made[0])
        writing = asyncio.create_task(here.change(partial(write_seen, seen=seen)))
        await poll_until(lambda: here.rows(_WAITS), lambda rows: rows[0]["waiting"])
        for each in made[1:]:
            assert await applying.fetchval(lock, each)
    async with within(10.0):
        await writing
    assert {row["digest"] for row in (await images(here)).values()} == {each.digest for each in seen}


def _pod(template_image: str, status: ContainerStatus, *, deleting: bool = False) -> Pod:
    gone = datetime.now(UTC) if deleting else None
    return Pod(
        metadata=ObjectMeta(name="web-1", deletion_timestamp=gone),
        spec=PodSpec("node-1", (PodContainer("main", template_image),)),
        status=PodState(container_statuses=(status,)),
    )


def test_only_pods_of_the_desired_image_count() -> None:
    subject = model(image="nginx:1.28")
    digest = f"docker.io/library/nginx@{_ONE}"
    running = ContainerStatus(name="main", image="docker.io/library/nginx:1.28", image_id=digest)
    waiting = ContainerStatus(name="main", state=ContainerState(waiting=Waiting("ImagePullBackOff")))
    loaded = ContainerStatus(name="main", image="nginx:1.28", image_id=_ANOTHER)
    seen = RunningImage("nginx:1.28", _ONE, "docker.io/library/nginx:1.28", "node-1")
    failed = RunningImage("nginx:1.28", failed=True)
    assert running_images(subject, [_pod("nginx:1.27", running)]) == []
    assert running_images(subject, [_pod("nginx:1.28", running, deleting=True)]) == []
    assert running_images(subject, [_pod("nginx:1.28", loaded)]) == [
        RunningImage("nginx:1.28", _ANOTHER, "nginx:1.28", "node-1")
    ]
    assert running_images(subject, [_pod("nginx:1.28", running)]) == [seen]
    assert running_images(subject, [_pod("nginx:1.28", waiting)]) == [failed]
    assert running_images(subject, [_pod("nginx:1.28", waiting), _pod("nginx:1.28", running)]) == [seen]
