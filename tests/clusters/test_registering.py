"""Registering and updating clusters through the public API."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import errors
from pilothouse_client.retry import RetryPolicy
from pilothouse_server.encryption import keys
from pilothouse_server.kubernetes import credentials
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_simulator import SimulatedCluster
from tests.clusters.given import (
    QUICK,
    another_cluster,
    by_kubeconfig,
    by_token,
    has_status,
    jwt,
    kubeconfig,
    place,
    register,
    role,
    runs,
)
from tests.clusters.hostile import hostile_server, saying
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import patient, poll_until, runs_out

ONCE = RetryPolicy(attempts=1)


@pytest_asyncio.fixture(loop_scope="session")
async def serving(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    """Yields a server whose own cluster does not matter."""
    async with running_server(
        database, tmp_path, with_cluster=False, reconciler=QUICK, cluster_timeout_seconds=patient(10.0)
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with another_cluster() as running:
        yield running


async def stored(server: Server, name: str) -> Any:
    """Returns a cluster's row in the database."""
    async with server.database.system() as sql:
        return await sql.fetchrow("SELECT * FROM clusters WHERE name = $1", name)


async def test_a_registered_cluster_is_used_and_its_credentials_are_not_shown(
    serving: Server, cluster: SimulatedCluster
) -> None:
    answer = await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="second", display_name="Second", labels={"region": "north"}),
        credentials=by_kubeconfig(kubeconfig(cluster)),
    )
    assert answer.cluster.version == "v1.36.2"
    assert answer.cluster.api_server == cluster.url
    assert not answer.missing_rights
    await place(serving, "second", "shop")
    found = await has_status(serving, "second", pb.CLUSTER_STATUS_HEALTHY)
    assert (found.display_name, dict(found.labels)) == ("Second", {"region": "north"})
    listed = [
        (each.name, each.leader)
        async for each in serving.admin.namespaces.list_clusters(filter='labels.region = "north"')
    ]
    # The leader is this process, which runs the server.
    assert listed == [("second", found.leader)] == [("second", f"{socket.gethostname()}:{os.getpid()}")]
    async with serving.database.owner() as sql:
        for table in ("clusters", "operation_logs", "idempotency_keys", "operations"):
            rows = await sql.fetch(f"SELECT t::text AS row, to_jsonb(t)::text AS json FROM {table} AS t")
            assert not any(cluster.token in row["row"] + row["json"] for row in rows), table
            assert not any(cluster.token.encode().hex() in row["row"] for row in rows), table
    records = [each async for each in serving.admin.audit.list_operations(filter='action = "register"')]
    assert [(each.resource_type, each.resource_name) for each in records] == [("cluster", "second")]


async def test_unusable_credentials_are_refused_with_a_reason(
    serving: Server, cluster: SimulatedCluster
) -> None:
    cluster.users.add("narrow", "narrow", role("patch deployments.apps", "create namespaces"))
    expired = jwt(datetime(2026, 1, 2, tzinfo=UTC))
    nobody = pb.ClusterAddress(api_server="http://127.0.0.1:1", token="t")
    cases: list[tuple[pb.ClusterCredentials, type[Exception], str, str]] = [
        (by_token(cluster, "wrong"), errors.FailedPreconditionError, "CLUSTER_UNAUTHORIZED", "401"),
        (
            by_token(cluster, expired),
            errors.InvalidArgumentError,
            "CLUSTER_CREDENTIALS_REFUSED",
            "2026-01-02",
        ),
        (by_kubeconfig("a: ["), errors.InvalidArgumentError, "CLUSTER_CREDENTIALS_REFUSED", "not YAML"),
        (pb.ClusterCredentials(), errors.InvalidArgumentError, "REQUIRED", "credentials"),
        (
            pb.ClusterCredentials(in_cluster=pb.InCluster()),
            errors.InvalidArgumentError,
            "CLUSTER_CREDENTIALS_REFUSED",
            "service account",
        ),
        (
            by_token(cluster, "narrow"),
            errors.FailedPreconditionError,
            "CLUSTER_RIGHTS_MISSING",
            "patch deployments.apps",
        ),
    ]
    for given, kind, reason, words in cases:
        with pytest.raises(kind) as refused:
            await serving.admin.namespaces.register_cluster(
                cluster=pb.Cluster(name="second"), credentials=given
            )
        assert isinstance(refused.value, errors.PilothouseError)
        assert refused.value.reason == reason
        assert words in str(refused.value)
    with pytest.raises(errors.UnavailableError, match="reached"):
        await serving.admin.with_options(retry=ONCE).namespaces.register_cluster(
            cluster=pb.Cluster(name="second"), credentials=pb.ClusterCredentials(address=nobody)
        )
    assert await stored(serving, "second") is None


@pytest.mark.full
async def test_a_registration_waits_a_limited_time_for_a_response(
    database: Database, tmp_path: Path, cluster: SimulatedCluster
) -> None:
    cluster.faults.latency_seconds = 60.0
    async with running_server(
        database, tmp_path, with_cluster=False, reconciler=QUICK, cluster_timeout_seconds=runs_out(3.0)
    ) as serving:
        hasty = serving.admin.with_options(timeout=patient(30.0), retry=ONCE)
        with pytest.raises(errors.PilothouseError) as refused:
            await hasty.namespaces.register_cluster(
                cluster=pb.Cluster(name="second"), credentials=by_token(cluster)
            )
    assert "did not respond within 3 s" in str(refused.value)


async def test_missing_optional_rights_are_allowed_and_reported(
    serving: Server, cluster: SimulatedCluster
) -> None:
    cluster.users.add("narrow", "narrow", role("get pods/log", "get nodes/proxy"))
    answer = await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="second"), credentials=by_token(cluster, "narrow")
    )
    assert sorted(right.resource for right in answer.missing_rights) == ["nodes/proxy", "pods/log"]
    # The rights of the role are sufficient for a container's whole lifetime.
    await place(serving, "second", "shop")
    await serving.admin.namespaces.delete(name="shop", cascade=True)

    async def gone() -> bool:
        return not [each async for each in serving.admin.namespaces.list()]

    await poll_until(gone, seconds=60.0)
    asked = await serving.admin.namespaces.get_required_rights(name="second")
    denied = [right.resource for right in asked.rights if right.denied]
    assert sorted(denied) == ["nodes/proxy", "pods/log"]


async def test_names_are_unique_and_validation_stores_nothing(
    serving: Server, cluster: SimulatedCluster
) -> None:
    await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="second"), credentials=by_token(cluster), validate_only=True
    )
    assert await stored(serving, "second") is None
    await register(serving, "second", cluster)
    for taken in ("second", "local"):
        with pytest.raises(errors.AlreadyExistsError):
            await register(serving, taken, cluster)


async def test_only_administrators_change_clusters(serving: Server, cluster: SimulatedCluster) -> None:
    operator = await serving.user("olga", {"": "operator"})
    with pytest.raises(errors.PermissionDeniedError):
        await operator.namespaces.register_cluster(
            cluster=pb.Cluster(name="second"), credentials=by_token(cluster)
        )
    for change in (operator.namespaces.update_cluster, operator.namespaces.deregister_cluster):
        with pytest.raises(errors.PermissionDeniedError):
            await change(name="local")
    assert (await operator.namespaces.get_required_rights()).rights


async def test_a_new_token_is_used_without_a_restart(serving: Server, cluster: SimulatedCluster) -> None:
    first, second = (jwt(datetime.now(UTC) + timedelta(hours=hours)) for hours in (1, 2))
    cluster.users.add(first, "pilothouse")
    await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="second"), credentials=by_token(cluster, first)
    )
    await place(serving, "second", "shop")
    before = await has_status(serving, "second", pb.CLUSTER_STATUS_HEALTHY)
    async with serving.database.system() as sql:
        await sql.execute("UPDATE clusters SET credentials_expires_at = '2026-01-02Z' WHERE name = 'second'")
    cluster.users.remove(first)
    lost = await has_status(serving, "second", pb.CLUSTER_STATUS_UNAUTHORIZED)
    assert lost.reason == "Unauthorized"
    assert lost.message.endswith("its credentials expired on 2026-01-02T00:00:00Z")
    assert lost.HasField("stale_since")
    await serving.admin.namespaces.create(namespace=pb.Namespace(name="later", cluster_name="second"))
    cluster.users.add(second, "pilothouse")
    answer = await serving.admin.namespaces.update_cluster(
        name="second", credentials=by_token(cluster, second), etag=before.etag
    )
    assert answer.cluster.credentials_expire_time.seconds > before.credentials_expire_time.seconds
    found = await has_status(serving, "second", pb.CLUSTER_STATUS_HEALTHY)
    assert not found.HasField("stale_since")

    async def fresh() -> bool:
        container = await serving.admin.containers.get(namespace="shop", name="web")
        return not container.HasField("stale_since")

    await poll_until(fresh)

    async def caught_up() -> bool:
        return (await serving.admin.namespaces.get(name="later")).phase == "Active"

    await poll_until(caught_up, what="the namespace that waited")


async def test_labels_change_by_mask_and_credentials_stay(serving: Server, cluster: SimulatedCluster) -> None:
    registered = await register(serving, "second", cluster)
    before = await stored(serving, "second")
    answer = await serving.admin.namespaces.update_cluster(
        name="second",
        cluster=pb.Cluster(labels={"a": "b"}, display_name="not asked for"),
        update_mask=FieldMask(paths=["labels"]),
    )
    assert (dict(answer.cluster.labels), answer.cluster.display_name) == ({"a": "b"}, "")
    assert (await stored(serving, "second"))["credentials"] == before["credentials"]
    with pytest.raises(errors.AbortedError):
        await serving.admin.namespaces.update_cluster(
            name="second", credentials=by_token(cluster), etag=registered.etag
        )
    with pytest.raises(errors.InvalidArgumentError):
        await serving.admin.namespaces.update_cluster(
            name="second", cluster=pb.Cluster(), update_mask=FieldMask(paths=["api_server"])
        )
    with pytest.raises(errors.FailedPreconditionError) as refused:
        await serving.admin.namespaces.update_cluster(name="local", credentials=by_token(cluster))
    assert refused.value.reason == "CLUSTER_CONFIGURED"


async def test_credentials_survive_rotation_and_belong_to_their_row(
    serving: Server, cluster: SimulatedCluster
) -> None:
    await register(serving, "second", cluster)
    await register(serving, "third", cluster)
    before = await stored(serving, "second")
    key_id = keys.add_key(serving.application.settings.key_file)
    rotated = await serving.admin.config.rotate_keys()
    assert isinstance(rotated, config_pb2.RotateKeysResponse)
    after = await stored(serving, "second")
    assert (before["key_id"] != key_id, after["key_id"]) == (True, key_id)
    assert after["credentials"] == before["credentials"]
    await place(serving, "second", "shop")
    async with serving.database.system() as sql:
        await sql.execute(
            "UPDATE clusters AS c SET (credentials, data_key) = (SELECT credentials, data_key FROM clusters "
            "WHERE name = 'third') WHERE name = 'second'"
        )
    lost = await has_status(serving, "second", pb.CLUSTER_STATUS_UNAUTHORIZED)
    assert "was moved from another row" in lost.message


async def test_a_denial_before_a_cluster_has_loaded_its_roles_is_not_shown(
    serving: Server, cluster: SimulatedCluster
) -> None:
    cluster.users.add("narrow", "narrow", role())
    await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="second"), credentials=by_token(cluster, "narrow")
    )
    cluster.users.roles_loaded = False
    await place(serving, "second", "shop", wait=False)

    async def was_denied() -> bool:
        async with serving.database.system() as sql:
            query = "SELECT count(*) FROM reconcile_work WHERE last_error LIKE '%cannot%' AND attempts > 0"
            return bool(await sql.fetchval(query))

    await poll_until(was_denied)
    found = await serving.admin.namespaces.get(name="shop")
    assert not found.conditions
    cluster.users.roles_loaded = True
    await runs(serving, "shop")


@pytest.mark.full
async def test_a_persistent_denial_names_the_permission(serving: Server, cluster: SimulatedCluster) -> None:
    cluster.users.add("narrow", "narrow", role())
    await serving.admin.namespaces.register_cluster(
        cluster=pb.Cluster(name="second"), credentials=by_token(cluster, "narrow")
    )
    cluster.users.add("narrow", "narrow", role("patch namespaces"))
    await serving.admin.namespaces.create(namespace=pb.Namespace(name="shop", cluster_name="second"))

    async def said() -> bool:
        found = await serving.admin.namespaces.get(name="shop")
        return any('cannot patch resource "namespaces"' in each.message for each in found.conditions)

    await poll_until(said, seconds=60.0, what="the cluster's words")


async def test_addresses_of_this_machine_are_refused_unless_they_are_allowed(
    database: Database, tmp_path: Path, cluster: SimulatedCluster
) -> None:
    async with running_server(
        database, tmp_path, with_cluster=False, reconciler=QUICK, outbound_networks=""
    ) as server:
        for address in (
            cluster.url,
            "http://localhost:1",
            "http://169.254.169.254",
            "http://[::ffff:127.0.0.1]",
        ):
            credentials = pb.ClusterCredentials(address=pb.ClusterAddress(api_server=address, token="t"))
            with pytest.raises(
                errors.InvalidArgumentError, match="is a local or reserved address"
            ) as refused:
                await server.admin.namespaces.register_cluster(
                    cluster=pb.Cluster(name="second"), credentials=credentials
                )
            assert refused.value.reason == "CLUSTER_CREDENTIALS_REFUSED"
            assert [each.field for each in refused.value.violations] == ["credentials.address.api_server"]
        proxied = pb.ClusterAddress(api_server="https://h.example", token="t", proxy_url="http://127.0.0.1:1")
        with pytest.raises(errors.InvalidArgumentError, match="is a local or reserved address") as refused:
            await server.admin.namespaces.register_cluster(
                cluster=pb.Cluster(name="second"), credentials=pb.ClusterCredentials(address=proxied)
            )
        assert [each.field for each in refused.value.violations] == ["credentials.address.proxy_url"]


async def test_an_address_with_a_password_is_refused_with_its_field(serving: Server) -> None:
    credentials = pb.ClusterCredentials(
        address=pb.ClusterAddress(api_server="https://user:canary-pw@host", token="t")
    )
    with pytest.raises(errors.InvalidArgumentError) as refused:
        await serving.admin.namespaces.register_cluster(
            cluster=pb.Cluster(name="second"), credentials=credentials
        )
    assert refused.value.metadata["field"] == "credentials.address.api_server"
    assert [each.field for each in refused.value.violations] == ["credentials.address.api_server"]
    assert "canary-pw" not in str(refused.value)


async def test_a_kubeconfig_is_parsed_outside_the_event_loop(
    serving: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def reading(_text: str, _context: str) -> Any:
        threads.append(threading.current_thread().name)
        raise CredentialsRefused("not today")

    monkeypatch.setattr(credentials, "from_kubeconfig", reading)
    with pytest.raises(errors.InvalidArgumentError, match="not today"):
        await serving.admin.namespaces.register_cluster(
            cluster=pb.Cluster(name="second"), credentials=by_kubeconfig("a: b")
        )
    assert len(threads) == 1
    assert threads[0].startswith("kubeconfig")


async def test_the_response_of_a_foreign_server_is_not_shown(serving: Server) -> None:
    words = "internal-words-of-a-stranger"
    body = f'{{"kind": "Status", "status": "Failure", "message": "{words}", "gitVersion": "{words}"}}'
    for status in (200, 403, 404, 500):
        async with hostile_server(saying(body.encode(), status)) as stranger:
            credentials = pb.ClusterCredentials(address=pb.ClusterAddress(api_server=stranger.url, token="t"))
            with pytest.raises(errors.PilothouseError) as refused:
                await serving.admin.with_options(retry=ONCE).namespaces.register_cluster(
                    cluster=pb.Cluster(name="second"), credentials=credentials
                )
        assert words not in f"{refused.value!r} {refused.value} {dict(refused.value.metadata)}"
        assert refused.value.reason in ("CLUSTER_UNREACHABLE", "CLUSTER_RIGHTS_MISSING")
