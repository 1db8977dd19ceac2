"""Unobserved changes on a cluster are found at the next start, hand-over or list, and follow the policies."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.reconcile.observe.comparison import Comparison
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.reconcile.unseen import (
    CHANGED_KINDS,
    KINDS,
    LASTING,
    POLICIES,
    Others,
    agreeing,
    compared,
    core,
    deployment,
    differences,
    drifted,
    kept_cluster,
    populate,
    rows,
    service,
    shown,
    wanted,
    written,
)
from tests.waiting import poll_until

EVIL = "evil:666"
_GONE = {"name": "B", "$patch": "delete"}


async def image(others: Others, name: str) -> str:
    found = await others.get(CHANGED_KINDS.get(name) or deployment(name))
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


async def meddle(others: Others) -> None:
    """Changes or deletes an object of every kind, but no object of `calm`."""
    for name in POLICIES:
        await others.image(name)
        without = {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [_GONE]}]}}}}
        await others.patch(deployment(name), without)
    for path in CHANGED_KINDS.values():
        evil = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": EVIL}]}}}}
        await others.patch(path, evil)
    # The spec does not change, so the generation stays.
    await others.merge(deployment("labelled"), {"metadata": {"labels": {"team": None}}})
    await others.delete(deployment("deleted"))
    await others.merge(service("labelled"), {"spec": {"selector": {"app": "theirs"}}})
    await others.delete(service("deleted"))
    await others.delete(core("serviceaccounts", "robot"))
    await others.merge(core("configmaps", "settings"), {"data": {"mode": "slow", "more": "x"}})
    await others.merge(core("secrets", "keys"), {"data": {"key": "bm90aGluZw=="}})
    await others.merge(core("persistentvolumeclaims", "data"), {"metadata": {"labels": {"team": "b"}}})
    await others.merge("/api/v1/namespaces/shop", {"metadata": {"labels": {"team": "b"}}})
    await others.delete("/api/v1/namespaces/idle")


async def met(server: Server, others: Others) -> None:
    """Checks that each drift policy was followed."""
    for name in ("repaired", *CHANGED_KINDS):
        assert await image(others, name) == "nginx:1.27"
        assert drifted(await shown(server, name)) == "Repaired"
    assert await image(others, "reported") == EVIL
    reported = await shown(server, "reported")
    assert (reported.image, drifted(reported)) == ("nginx:1.27", "FieldManagerConflict")
    adopted = await shown(server, "adopted")
    assert (adopted.image, await image(others, "adopted")) == (EVIL, EVIL)
    assert [each.name for each in adopted.env] == ["A"]
    assert drifted(await shown(server, "calm")) == "InSync"


async def test_changes_made_while_no_server_ran_are_found_at_the_start(
    database: Database, tmp_path: Path
) -> None:
    async with SimulatedCluster(speed=10.0) as cluster:
        others = Others(cluster)
        async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
            await populate(server, *POLICIES, *KINDS, "calm", "labelled", "deleted")
        await meddle(others)
        with written(cluster) as writes:
            async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
                before = await rows(server)
                assert await differences(server)
                await agreeing(server)
                await met(server, others)
                # Matching resources are left alone: not applied, not even as a dry run, and not written.
                assert writes
                assert not [each for each in writes if "calm" in each]
                after = await rows(server)
                assert after["container calm"] == before["container calm"]


async def test_a_start_without_differences_writes_nothing(database: Database, tmp_path: Path) -> None:
    """Both with matching fingerprints and without any."""
    async with SimulatedCluster(speed=10.0) as cluster:
        async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
            await populate(server, *POLICIES, *KINDS)
        for forget in (False, True):
            if forget:
                async with database.owner() as sql:
                    await sql.execute("UPDATE reconcile_work SET applied_objects = NULL")
            async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
                with written(cluster) as writes:
                    before = await rows(server)
                    await compared(server)
                    await agreeing(server)
                    assert await rows(server) == before
                assert writes == []


@pytest.mark.full
@pytest.mark.parametrize("compares", [True, False])
async def test_a_hand_over_finds_unobserved_changes(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compares: bool
) -> None:
    """The control: if lists are not compared, changes by others stay, and the checks of this test detect them."""
    compare = Comparison._compare
    passes: list[Collection[str]] = []

    async def watched(self: Comparison, kinds: Collection[str]) -> None:
        if compares:
            await compare(self, kinds)
        passes.append(kinds)

    monkeypatch.setattr(Comparison, "_compare", watched)
    async with (
        SimulatedCluster(speed=10.0) as cluster,
        running_server(database, tmp_path, cluster=cluster) as server,
        running_server(database, tmp_path, cluster=cluster),
    ):
        others = Others(cluster)
        await populate(server, *POLICIES, *KINDS, "calm", "labelled", "deleted")
        async with database.system() as sql:
            await sql.execute(
                "UPDATE leases SET owner = 'nobody', epoch = epoch + 1, expires_at = now() + interval '1 hour' "
                "WHERE name = 'observe/local'"
            )
            await poll_until(lambda: watches(cluster), lambda count: count == 0, what="nobody watching")
            await meddle(others)
            passes.clear()
            await sql.execute(
                "UPDATE leases SET owner = NULL, expires_at = now() WHERE name = 'observe/local'"
            )
        if compares:
            await agreeing(server)
            await met(server, others)
            # The same while a server watches; the generation does not change.
            await others.merge(deployment("labelled"), {"metadata": {"labels": {"team": None}}})
            await others.merge(
                core("persistentvolumeclaims", "data"), {"metadata": {"labels": {"team": "c"}}}
            )
            await others.merge("/api/v1/namespaces/shop", {"metadata": {"labels": {"team": None}}})
            await agreeing(server)
            return

        async def lists_are_over() -> bool:
            return {kind for each in passes for kind in each} >= {"Deployment", "Service", "ConfigMap"}

        await poll_until(lists_are_over, bool, what="everything listed")
        await compared(server)
        assert any("Deployment/shop/repaired" in each for each in await differences(server))
        assert await image(others, "repaired") == EVIL


async def watches(cluster: SimulatedCluster) -> int:
    return len(cluster._context.streams)


@pytest.mark.full
async def test_a_cluster_older_than_the_database_is_brought_up_to_date(
    database: Database, tmp_path: Path
) -> None:
    """The cluster is restored while no server runs, and again while one does: later applies are repeated."""
    state, copy = tmp_path / "cluster", tmp_path / "copy"
    async with kept_cluster(state) as cluster:
        async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
            await populate(server, *POLICIES, "calm")
        port = cluster.api_server.port
    shutil.copy(state, copy)
    async with (
        kept_cluster(state, port=port) as cluster,
        running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server,
    ):
        await change(server, "nginx:1.28")
        # The state is as before, but later: an older state of the object looks the same.
        for image_ in ("nginx:1.28", "nginx:1.27"):
            await server.admin.containers.update(
                namespace="shop",
                name="calm",
                container=pb.Container(image=image_),
                update_mask=FieldMask(paths=["image"]),
            )
            await agreeing(server)
        await poll_until(lambda: seen_generation(server, "calm"), lambda generation: generation == 3)
    shutil.copy(copy, state)
    async with kept_cluster(state, port=port) as cluster:
        others = Others(cluster)
        await gone_on(database, others)
        async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
            assert await differences(server)
            await agreeing(server)
            await as_in_the_database(server, others, "nginx:1.28")
            # The condition describes the present Deployment.
            await poll_until(lambda: seen_generation(server, "calm"), lambda generation: generation == 1)
            await change(server, "nginx:1.29")
            await cluster.stop()
            shutil.copy(copy, state)
            async with kept_cluster(state, port=port) as older:
                server.cluster = older
                await agreeing(server)
                await as_in_the_database(server, Others(older), "nginx:1.29")


async def gone_on(database: Database, others: Others) -> None:
    """Writes to a restored cluster until versions alone no longer show that its objects are older."""
    async with database.system() as sql:
        noted = await sql.fetchval(
            "SELECT max(split_part(o.value, '.', 1)::bigint) FROM reconcile_work, jsonb_each_text(applied_objects) AS o"
        )
    version, number = 0, 0
    while version <= noted:
        number += 1
        await others.merge(f"{deployment('calm')}/status", {"status": {"collisionCount": number}})
        version = int((await others.get(deployment("calm")))["metadata"]["resourceVersion"])
    for name in POLICIES:
        await others.merge(f"{deployment(name)}/status", {"status": {"collisionCount": 1}})


async def seen_generation(server: Server, name: str) -> int:
    """Returns the generation of the Deployment to which the container's condition `RolledOut` refers."""
    async with server.database.system() as sql:
        made_from = await sql.fetchval(
            "SELECT jsonb_path_query_first(conditions, '$[*] ? (@.type == \"RolledOut\").made_from') #>> '{}' "
            "FROM containers WHERE name = $1",
            name,
        )
    return int(str(made_from).rpartition("/")[2])


async def change(server: Server, image: str) -> None:
    """Changes the desired state of every kind."""
    admin = server.admin
    for name in POLICIES:
        await admin.containers.update(
            namespace="shop",
            name=name,
            container=pb.Container(image=image, replicas=2, env=[pb.EnvVar(name="C", value=image)]),
            update_mask=FieldMask(paths=["image", "replicas", "env"]),
        )
    await admin.config.update_config_map(
        namespace="shop",
        name="settings",
        config_map=config_pb2.ConfigMap(data={"image": image}),
        update_mask=FieldMask(paths=["data"]),
    )
    await admin.config.update_secret(
        namespace="shop",
        name="keys",
        secret=config_pb2.Secret(data={"image": image.encode()}),
        update_mask=FieldMask(paths=["data"]),
    )
    await admin.containers.create(namespace="shop", container=wanted(f"new-{image[-2:]}"))
    await agreeing(server, seconds=30.0)


async def as_in_the_database(server: Server, others: Others, image_: str) -> None:
    """Checks that each container and its Deployment have the state of the database.

    No administrator decided about the objects that a backup brought back, so they are neither kept nor adopted.
    """
    for name in POLICIES:
        there = await shown(server, name)
        assert (there.image, there.replicas, [each.name for each in there.env]) == (image_, 2, ["C"])
        assert await image(others, name) == image_
        assert drifted(there) == "InSync"
