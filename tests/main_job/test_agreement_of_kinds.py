"""The comparison of cluster and database covers StatefulSets, DaemonSets and Jobs, and the claims of templates."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from tests.conftest import connection
from tests.harness import Server
from tests.reconcile.unseen import agreeing, differences
from tests.waiting import poll_until

CLAIM = pb.ClaimTemplate(name="data", size="1Gi", access_modes=["ReadWriteOnce"])
KINDS: dict[str, dict[str, Any]] = {
    "db": {"stateful_set": pb.StatefulSetSettings(claim_templates=[CLAIM]), "replicas": 2},
    "agent": {"daemon_set": pb.DaemonSetSettings()},
    "batch": {"job": pb.JobSettings(parallelism=1), "command": ["sleep", "3600"]},
}


@pytest.mark.full
async def test_each_kind_agrees_and_a_difference_in_each_kind_is_found(server: Server) -> None:
    assert server.cluster is not None
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
    for name, fields in KINDS.items():
        container = pb.Container(name=name, image="busybox:1", **fields)
        await server.admin.containers.create(namespace="shop", container=container)

    async def volumes() -> int:
        return len([each async for each in server.admin.storage.list_volumes(namespace="shop")])

    await poll_until(volumes, lambda number: number == 2, what="the volumes of db")
    await agreeing(server, seconds=30.0)
    path = ".spec.template.spec.terminationGracePeriodSeconds is not as wanted"
    expected = [f"DaemonSet/shop/agent {path}", f"Job/shop/batch {path}", f"StatefulSet/shop/db {path}"]
    seconds = count(7)
    async with connection(server.database.admin_dsn) as sql:

        async def found() -> list[str]:
            # The change requests no work, but work that was due before may still apply it.
            grace = f"jsonb_set(spec, '{{termination_grace_seconds}}', '{next(seconds)}')"
            await sql.execute(f"UPDATE containers SET spec = {grace}")
            return [line for line in await differences(server) if line.endswith(path)]

        await poll_until(found, lambda lines: lines == expected)
