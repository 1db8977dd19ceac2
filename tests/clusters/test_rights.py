"""The required rights: the printed role equals the checked and the used ones."""

from __future__ import annotations

import pytest
import yaml

from pilothouse_server.kubernetes import rights
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import Forbidden, Unreachable
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, PODS
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


async def test_a_cluster_is_asked_what_it_denies() -> None:
    async with another_cluster() as cluster:
        cluster.users.add("narrow", "narrow", role("patch deployments.apps", "get pods/log"))
        client = await ClusterClient.from_kubeconfig(kubeconfig(cluster, token="narrow"), name="x")
        try:
            denied = await rights.denied(client)
            assert sorted(map(str, denied)) == ["get pods/log", "patch deployments.apps"]
            # The role's rights are the ones that count.
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


async def test_an_administrator_is_denied_nothing_and_asked_once() -> None:
    async with another_cluster() as cluster:
        client = await ClusterClient.from_kubeconfig(kubeconfig(cluster), name="x")
        try:
            assert await rights.denied(client) == []
        finally:
            await client.close()


async def test_a_cluster_that_cannot_be_asked_is_not_taken_for_one_that_grants() -> None:
    async with another_cluster() as cluster:
        cluster.users.add("narrow", "narrow", role())
        client = await ClusterClient.from_kubeconfig(kubeconfig(cluster, token="narrow"), name="x")
        cluster.faults.refuse_connections = True
        try:
            with pytest.raises(Unreachable):
                await rights.denied(client)
        finally:
            await client.close()
