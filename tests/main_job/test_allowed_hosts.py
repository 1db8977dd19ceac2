"""Hosts of namespaces: normalized patterns that no two namespaces of a cluster share, and the kinds of clusters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse.object.v1 import object_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import FailedPreconditionError, InvalidArgumentError, PermissionDeniedError
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.settings.model import Settings, SettingsError, allowed_hosts
from pilothouse_server.values.hosts import overlap
from tests.conftest import Database, new_database
from tests.harness import Server, running_server
from tests.waiting import poll_until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Yields a server for all tests here. The first new namespace gets `*.first.example`, as with `serve --dev`."""
    directory = tmp_path_factory.mktemp("hosts")
    async with (
        new_database(postgres, template_database.name) as database,
        running_server(database, directory, namespace_allowed_hosts="*.first.example") as server,
    ):
        yield server


async def _make(server: Server, name: str, *hosts: str, **fields: Any) -> pb.Namespace:
    return await server.admin.namespaces.create(
        namespace=pb.Namespace(name=name, allowed_hosts=hosts, **fields)
    )


async def _change(client: Any, name: str, **fields: Any) -> pb.Namespace:
    changed: pb.Namespace = await client.namespaces.update(
        name=name, namespace=pb.Namespace(**fields), update_mask=FieldMask(paths=list(fields))
    )
    return changed


async def test_hosts_are_stored_normalized_and_no_other_namespace_gets_them(shared: Server) -> None:
    made = await _make(shared, "normal", "*.Shop.Example.", "Bücher.example", "*.shop.example")
    assert list(made.allowed_hosts) == ["*.shop.example", "xn--bcher-kva.example"]
    for taken in ("www.shop.example", "*.a.shop.example", "*.example", "BÜCHER.example.", "*.SHOP.example"):
        with pytest.raises(FailedPreconditionError) as refused:
            await _make(shared, "later", "free.example", taken)
        assert refused.value.reason == "HOSTS_OVERLAP"
        # The error names neither the other namespace nor its pattern.
        assert "normal" not in str(refused.value)
        assert refused.value.metadata == {"field": "namespace.allowed_hosts"}
    await _make(shared, "later", "shop.example", "*.shop.example.net")
    with pytest.raises(FailedPreconditionError):
        await _change(shared.admin, "later", allowed_hosts=["a.shop.example"])
    # A namespace may narrow its own patterns, and hosts that it gives up are free.
    await _change(shared.admin, "normal", allowed_hosts=["www.shop.example", "*.www.shop.example"])
    changed = await _change(shared.admin, "later", allowed_hosts=["a.shop.example"])
    assert list(changed.allowed_hosts) == ["a.shop.example"]


async def test_the_hosts_of_a_deleted_namespace_are_free(shared: Server) -> None:
    await _make(shared, "gone", "gone.example")
    await shared.admin.namespaces.delete(name="gone")

    async def is_free() -> bool:
        try:
            await _make(shared, "heir", "gone.example")
        except FailedPreconditionError:
            return False
        return True

    await poll_until(is_free)


async def test_only_one_of_many_concurrent_writes_gets_a_host(shared: Server) -> None:
    names = [f"race-{number}" for number in range(8)]
    for name in names:
        await _make(shared, name, f"{name}.race-own.example")
    patterns = ["*.race.example", "a.race.example", "*.a.race.example", "*.example.race.example"]
    answers = await asyncio.gather(
        *(
            _change(shared.admin, name, allowed_hosts=[patterns[number % len(patterns)]])
            for number, name in enumerate(names)
        ),
        return_exceptions=True,
    )
    got = [each for answer in answers if isinstance(answer, pb.Namespace) for each in answer.allowed_hosts]
    assert got
    assert not any(overlap(one, other) for at, one in enumerate(got) for other in got[at + 1 :])
    refused = [each for each in answers if not isinstance(each, pb.Namespace)]
    assert {type(each) for each in refused} == {FailedPreconditionError}


async def test_a_new_namespace_gets_the_default_hosts_while_they_are_free(
    shared: Server,
) -> None:
    assert list((await _make(shared, "default-1")).allowed_hosts) == ["*.first.example"]
    assert list((await _make(shared, "default-2")).allowed_hosts) == []
    await _change(shared.admin, "default-1", allowed_hosts=[])
    assert list((await _make(shared, "default-3")).allowed_hosts) == ["*.first.example"]
    assert allowed_hosts("*.LOCALHOST, *.example.com") == ("*.localhost", "*.example.com")
    with pytest.raises(SettingsError, match="NAMESPACE_ALLOWED_HOSTS"):
        allowed_hosts("http://a")
    assert Settings().namespace_allowed_hosts == ""


async def test_a_namespace_administrator_may_not_change_hosts_and_policies(shared: Server) -> None:
    await _make(shared, "limits", "limits.example")
    holder = await shared.user("hanna", {"limits": "admin"})
    changes: list[dict[str, Any]] = [
        {"allowed_hosts": ["other.example"]},
        {"allowed_hosts": []},
        {"network_policies": pb.NETWORK_POLICIES_PROTECTED},
    ]
    for fields in changes:
        with pytest.raises(PermissionDeniedError) as refused:
            await _change(holder, "limits", **fields)
        assert refused.value.metadata["permission"] == "namespace.security"
    changed = await _change(
        shared.admin,
        "limits",
        network_policies=pb.NETWORK_POLICIES_PROTECTED,
        allowed_hosts=["limits.example"],
    )
    assert changed.network_policies == pb.NETWORK_POLICIES_PROTECTED
    # Values that do not change may be sent with other changes.
    await _change(holder, "limits", allowed_hosts=["LIMITS.example."], display_name="Limits")
    assert (await _make(shared, "open", "open.example")).network_policies == pb.NETWORK_POLICIES_OPEN


async def test_tenants_may_not_change_protected_network_policies(shared: Server) -> None:
    await _make(shared, "guarded", "guarded.example")
    tenant = await shared.user("tessa", {"guarded": "admin"})
    kind: dict[str, Any] = {"api_version": "networking.k8s.io/v1", "kind": "NetworkPolicy"}

    async def make(client: AsyncClient, name: str) -> None:
        policy = object_pb2.Object(name=name, document='{"spec": {"podSelector": {}}}', **kind)
        await client.objects.create(namespace="guarded", object=policy)

    async def change(client: AsyncClient, name: str) -> None:
        await client.objects.update(
            namespace="guarded",
            name=name,
            object=object_pb2.Object(document='{"spec": {"podSelector": {}, "ingress": [{}]}}'),
            update_mask=FieldMask(paths=["document"]),
            **kind,
        )

    await make(tenant, "deny")
    await make(tenant, "other")
    await _change(shared.admin, "guarded", network_policies=pb.NETWORK_POLICIES_PROTECTED)
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: make(tenant, "allow"),
        lambda: change(tenant, "deny"),
        lambda: tenant.objects.delete(namespace="guarded", name="deny", **kind),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionDeniedError, match="network_policies") as refused:
            await attempt()
        assert refused.value.metadata["permission"] == "object.privileged"
    await change(shared.admin, "deny")
    await _change(shared.admin, "guarded", network_policies=pb.NETWORK_POLICIES_OPEN)
    await tenant.objects.delete(namespace="guarded", name="other", **kind)
    # An administrator of the platform was the last to change this policy.
    with pytest.raises(PermissionDeniedError, match=r"object\.privileged"):
        await tenant.objects.delete(namespace="guarded", name="deny", **kind)


@pytest.mark.parametrize(
    "host", ["*", "", "a b", "http://a", "a..b", "*.*.a", "straße.example", "a_b.example"]
)
async def test_a_pattern_that_is_not_a_host_is_refused(shared: Server, host: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"namespace\.allowed_hosts\[0\]"):
        await _make(shared, "refused", host)


async def test_the_database_finds_the_same_overlaps_as_the_server(shared: Server) -> None:
    chosen = random.Random(11)

    def pattern() -> str:
        labels = [chosen.choice(("a", "b", "aa", "%", "_")) for _ in range(chosen.randint(1, 3))]
        return ".".join((*(["*"] if chosen.random() < 0.5 else []), *labels))

    pairs = [(pattern(), pattern()) for _ in range(300)]
    query = "SELECT hosts_overlap(a, b) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS p(a, b, n) ORDER BY n"
    async with shared.database.owner() as connection:
        first, second = zip(*pairs, strict=True)
        found = [row[0] for row in await connection.fetch(query, list(first), list(second))]
    assert found == [overlap(one, other) for one, other in pairs]
    assert set(found) == {False, True}


async def _change_cluster(server: Server, **fields: Any) -> pb.Cluster:
    answer = await server.admin.namespaces.update_cluster(
        name="local", cluster=pb.Cluster(**fields), update_mask=FieldMask(paths=list(fields))
    )
    cluster: pb.Cluster = answer.cluster
    return cluster


async def test_a_cluster_opens_kinds_and_shares_gateways(shared: Server) -> None:
    kind = pb.ObjectKind(
        api_version="postgresql.cnpg.io/v1",
        kind="Cluster",
        open_to=pb.KIND_OPEN_TO_TENANTS,
        max_per_namespace=3,
        secret_paths=["spec.users.password"],
        refused_paths=["spec.serviceAccountTemplate", "metadata.annotations[cnpg.io/x]"],
    )
    unnamed = pb.ObjectKind(api_version="a.example/v1", kind="Widget")
    changed = await _change_cluster(
        shared,
        object_kinds=[kind, unnamed],
        shared_gateways=["infra/public"],
        forbid_blocking_budgets=True,
    )
    unnamed.open_to = pb.KIND_OPEN_TO_PRIVILEGED
    for found in (changed, await shared.admin.namespaces.get_cluster(name="local")):
        assert list(found.object_kinds) == [kind, unnamed]
        assert list(found.shared_gateways) == ["infra/public"]
        assert found.forbid_blocking_budgets
    changed = await _change_cluster(
        shared, object_kinds=[], shared_gateways=[], forbid_blocking_budgets=False
    )
    assert not changed.object_kinds
    assert not changed.forbid_blocking_budgets


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"object_kinds": [pb.ObjectKind(api_version="v1", kind="Pod")]},
            "cannot be opened: write a Deployment",
        ),
        (
            {"object_kinds": [pb.ObjectKind(api_version="networking.k8s.io/v1beta1", kind="Ingress")]},
            "is open already",
        ),
        (
            {"object_kinds": [pb.ObjectKind(api_version="a.example/v1", kind="B", refused_paths=["a..b"])]},
            r"object_kinds\[0\]\.refused_paths\[0\]: must be a path",
        ),
        (
            {"object_kinds": [pb.ObjectKind(api_version="a.example/v1", kind="B")] * 2},
            "a second time",
        ),
        ({"shared_gateways": ["public"]}, r"shared_gateways\[0\]: must be a Kubernetes namespace and a name"),
    ],
)
async def test_an_invalid_kind_or_gateway_is_refused(
    shared: Server, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        await _change_cluster(shared, **fields)
