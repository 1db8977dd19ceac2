"""An object with our label and without a row is deleted; all other objects stay."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import msgspec

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, SECRETS
from pilothouse_server.kubernetes.ownership import CONFIG_UID, NAMESPACE_UID
from pilothouse_server.reconcile.observe.sweep import SweepSettings
from tests.conftest import Database
from tests.harness import QUICK, running_server
from tests.waiting import poll_until

EAGER = msgspec.structs.replace(QUICK, sweep=SweepSettings(period_seconds=0.1, grace_seconds=0.0))


async def test_orphans_are_deleted_and_foreign_objects_stay(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, reconciler=EAGER) as server:
        assert server.cluster is not None
        client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="test")
        try:
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
            secret = pb.Secret(name="ours", data={"a": b"1"})
            await server.admin.config.create_secret(namespace="shop", secret=secret)

            async def applied() -> bool:
                return await client.find(SECRETS, "shop", "ours") is not None

            await poll_until(applied, what="ours on the cluster")
            ours = await client.find(SECRETS, "shop", "ours")
            assert ours is not None
            home = {NAMESPACE_UID: ours.metadata.label(NAMESPACE_UID)}
            for name, labels in (
                ("orphan", {CONFIG_UID: str(uuid4()), **home}),
                ("foreign", {CONFIG_UID: "no-uid", **home}),
                ("elsewhere", {CONFIG_UID: str(uuid4()), NAMESPACE_UID: str(uuid4())}),
            ):
                for resource in (SECRETS, CONFIG_MAPS):
                    metadata = {"name": name, "namespace": "shop", "labels": labels}
                    await client.apply(
                        resource, {"apiVersion": "v1", "kind": resource.kind, "metadata": metadata}
                    )

            async def swept() -> bool:
                left = [await client.find(each, "shop", "orphan") for each in (SECRETS, CONFIG_MAPS)]
                return left == [None, None]

            await poll_until(swept, what="the orphans gone")
            assert await client.find(SECRETS, "shop", "ours") is not None
            for name in ("foreign", "elsewhere"):
                assert await client.find(CONFIG_MAPS, "shop", name) is not None
        finally:
            await client.close()
