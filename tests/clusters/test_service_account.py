"""A cluster registered with the service account of the server's own pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import errors
from pilothouse_server.kubernetes import connection
from tests.clusters.given import QUICK, another_cluster, has_status, place
from tests.conftest import Database
from tests.harness import running_server

IN_CLUSTER = pb.ClusterCredentials(in_cluster=pb.InCluster())


async def test_the_servers_own_cluster_is_registered_and_its_token_renewed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", account)
    monkeypatch.setattr(connection, "TOKEN_FILE_PERIOD_SECONDS", 0.1)
    async with (
        another_cluster(tls=True) as cluster,
        running_server(database, tmp_path / "data", with_cluster=False, reconciler=QUICK) as server,
    ):
        register = server.admin.namespaces.register_cluster
        host, _, port = cluster.url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        with pytest.raises(errors.InvalidArgumentError) as refused:
            await register(cluster=pb.Cluster(name="home"), credentials=IN_CLUSTER)
        assert "this server does not run in a pod" in refused.value.message

        (account / "ca.crt").write_bytes(cluster.authority.certificate)
        (account / "token").write_text("first\n")
        cluster.users.add("first", "pilothouse")
        answer = await register(cluster=pb.Cluster(name="home"), credentials=IN_CLUSTER)
        assert (answer.cluster.api_server, list(answer.missing_rights)) == (cluster.url, [])
        await place(server, "home", "shop")

        # The node replaces the token, and the old one expires.
        cluster.users.add("second", "pilothouse")
        (account / "token").write_text("second\n")
        cluster.users.remove("first")
        await place(server, "home", "later")
        found = await has_status(server, "home", pb.CLUSTER_STATUS_HEALTHY)
        assert not found.HasField("stale_since")
