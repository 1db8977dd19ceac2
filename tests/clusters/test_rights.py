"""The required rights: the printed role equals the checked and the used rights."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml

from pilothouse_server.guard.objects import KINDS
from pilothouse_server.kubernetes import rights
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import Forbidden, Unreachable
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, PODS, KubernetesObject, Resource
from pilothouse_simulator import SimulatedCluster
from tests.clusters.given import another_cluster, kubeconfig, role


def test_the_role_grants_the_table_and_nothing_else() -> None:
    granted = {
        (group, resource, verb)
        for rule in role()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {(right.api_group, right.resource, right.verb) for right in rights.RIGHTS}
    assert not any("*" in part for part in granted)
    kinds = [document["kind"] for document in yaml.safe_load_all(rights.manifest())]
    assert kinds == ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"]


async def test_denied_rights_are_found_by_requests_to_the_cluster() -> None:
    async with another_cluster() as cluster:
        cluster.users.add("narrow", "narrow", role("patch deployments.apps", "get pods/log"))
        client = await ClusterClient.from_kubeconfig(kubeconfig(cluster, token="narrow"), name="x")
        try:
            denied = await rights.denied(client)
            assert sorted(map(str, denied)) == ["get pods/log", "patch deployments.apps"]
            # The simulated cluster enforces the rights of the role.
            await client.list(PODS)
            manifest = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "a", "namespace": "default"},
            }
            with pytest.raises(Forbidden) as refused:
                await client.apply(DEPLOYMENTS, manifest)
            assert refused.value.permission == "patch deployments.apps"
        finally:
            await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_cluster() -> AsyncIterator[SimulatedCluster]:
    async with another_cluster() as cluster:
        yield cluster


async def _narrowed(cluster: SimulatedCluster, *without: str) -> ClusterClient:
    """Returns a client whose credentials lack some rights."""
    cluster.users.add("narrow", "narrow", role(*without))
    return await ClusterClient.from_kubeconfig(kubeconfig(cluster, token="narrow"), name="x")


@pytest.mark.parametrize("right", sorted({(each.api_group, each.resource) for each in rights.RIGHTS}))
async def test_a_missing_row_of_the_table_is_found_verb_by_verb(
    shared_cluster: SimulatedCluster, right: tuple[str, str]
) -> None:
    row = [each for each in rights.RIGHTS if (each.api_group, each.resource) == right]
    others = [each for each in rights.RIGHTS if each not in row][:2]
    client = await _narrowed(shared_cluster, *map(str, row))
    try:
        assert await rights.denied(client, [*others, *row]) == row
    finally:
        await client.close()


# Each kind that the guard accepts. All of these kinds have a regular plural.
_WRITTEN = [
    Resource(
        f"/apis/{version}" if "/" in version else f"/api/{version}",
        f"{kind.lower()}s",
        kind,
        KubernetesObject,
    )
    for (version, kind), known in KINDS.items()
    if not known.cluster_scoped
]


@pytest.mark.parametrize("resource", _WRITTEN, ids=lambda each: each.kind)
async def test_each_kind_is_refused_with_the_missing_right(
    shared_cluster: SimulatedCluster, resource: Resource[KubernetesObject]
) -> None:
    group = resource.api_version.rpartition("/")[0]
    missing = f"patch {resource.plural}{f'.{group}' if group else ''}"
    assert missing in {str(each) for each in rights.RIGHTS}
    client = await _narrowed(shared_cluster, missing)
    metadata = {"name": "a", "namespace": "default"}
    manifest = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    try:
        with pytest.raises(Forbidden) as refused:
            await client.apply(resource, manifest)
        assert refused.value.permission == missing
        with pytest.raises(Forbidden):
            await client.dry_run(resource, manifest)
    finally:
        await client.close()


async def test_an_administrator_is_denied_nothing() -> None:
    async with another_cluster() as cluster:
        client = await ClusterClient.from_kubeconfig(kubeconfig(cluster), name="x")
        try:
            assert await rights.denied(client) == []
        finally:
            await client.close()


async def test_an_unreachable_cluster_is_not_reported_as_granting_all_rights() -> None:
    async with another_cluster() as cluster:
        cluster.users.add("narrow", "narrow", role())
        client = await ClusterClient.from_kubeconfig(kubeconfig(cluster, token="narrow"), name="x")
        cluster.faults.refuse_connections = True
        try:
            with pytest.raises(Unreachable):
                await rights.denied(client)
        finally:
            await client.close()
