"""A namespace's ResourceQuota on its cluster is written, repaired and removed, but left alone if it is not ours."""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.namespaces.manifests import quota_manifest
from pilothouse_server.namespaces.model import Namespace, PodDemand, Quota
from pilothouse_server.namespaces.operations import change as change_namespace
from pilothouse_server.values.resources import NamespaceId
from pilothouse_simulator.values.resources import (
    HORIZONTAL_POD_AUTOSCALERS,
    RESOURCE_QUOTAS,
)
from tests.reconcile.environment import LIMITS, PLATFORM, Environment
from tests.waiting import poll_until

JsonObject = dict[str, Any]

_PATH = "/api/v1/namespaces/shop/resourcequotas/pilothouse"


async def _quota(here: Environment) -> JsonObject | None:
    return here.cluster.store.get(RESOURCE_QUOTAS, "shop", "pilothouse")


async def _hard(here: Environment) -> JsonObject:
    found = await _quota(here)
    return {} if found is None else dict(found["spec"]["hard"])


async def _set(here: Environment, **values: Any) -> None:
    stored = await here.seen_namespace()
    assert stored is not None
    paths = ["resource_quota" if name == "quota" else name for name in values]
    wanted = msgspec.structs.replace(stored, **values)
    await here.change(lambda tx: change_namespace(tx, "shop", wanted, paths, lambda _: None, caller=PLATFORM))


async def _condition(here: Environment) -> tuple[str, str] | None:
    namespace = await here.seen_namespace()
    assert namespace is not None
    found = [each for each in namespace.conditions if each.type == "QuotaEnforced"]
    return (found[0].status, found[0].reason) if found else None


def test_the_limits_leave_room_for_what_the_database_admits() -> None:
    quota = Quota(containers=3, cpu="2500m", memory="1Gi", services=4)
    namespace = Namespace(NamespaceId(1), "uid", "shop", "shop", "local", quota=quota)
    counted = {f"count/{kind}": "3" for kind in ("deployments.apps", "statefulsets.apps", "daemonsets.apps")}
    plain = {**counted, "count/cronjobs.batch": "3", "count/services": "4", "pods": "70"}
    demand = PodDemand(pods=35, largest_cpu_millicores=1500, largest_memory_bytes=512 * 2**20)
    assert quota_manifest(namespace, demand)["spec"]["hard"] == plain
    assert quota_manifest(namespace, PodDemand(pods=1))["spec"]["hard"]["pods"] == "21"
    many = msgspec.structs.replace(namespace, quota=Quota(containers=500))
    assert quota_manifest(many, demand)["spec"]["hard"]["pods"] == "500"
    enforced = msgspec.structs.replace(namespace, enforce_on_cluster=True)
    assert quota_manifest(enforced, demand)["spec"]["hard"] == {
        **plain,
        "requests.cpu": "4",
        "limits.cpu": "4",
        "requests.memory": "1536Mi",
        "limits.memory": "1536Mi",
    }


async def test_a_quota_is_written_repaired_and_removed(here: Environment) -> None:
    await here.namespace()
    async with here.reconciling():
        await _set(here, quota=Quota(containers=2, memory="1Gi"))
        await poll_until(lambda: _hard(here), lambda hard: hard.get("count/deployments.apps") == "2")
        await poll_until(lambda: _condition(here), lambda shown: shown == ("True", "Enforced"))
        await here.merge_as("meddler", _PATH, {"spec": {"hard": {"pods": "1", "secrets": "0"}}})
        await poll_until(lambda: _hard(here), lambda hard: hard["pods"] == "20")
        here.cluster.store.delete(RESOURCE_QUOTAS, "shop", "pilothouse")
        await poll_until(lambda: _quota(here), bool)
        await _set(here, enforce_on_cluster=True)
        await poll_until(lambda: _hard(here), lambda hard: hard.get("limits.memory") == "1Gi")
        await _set(here, quota=Quota())
        await poll_until(lambda: _quota(here), lambda found: found is None)
        await poll_until(lambda: _condition(here), lambda shown: shown is None)


async def test_a_quota_refusal_is_shown_verbatim_and_its_limit_follows_the_pods(
    here: Environment,
) -> None:
    await here.namespace()
    async with here.reconciling():
        await _set(here, quota=Quota(containers=5))
        await poll_until(lambda: _hard(here), lambda hard: hard.get("pods") == "20")
        await here.create(replicas=2)
        await here.running()
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        scaler = {
            "name": "web",
            "namespace": "shop",
            "annotations": {"simulate.pilothouse.dev/replicas": "30"},
        }
        spec = {"scaleTargetRef": target, "maxReplicas": 30}
        here.cluster.store.create(HORIZONTAL_POD_AUTOSCALERS, {"metadata": scaler, "spec": spec})
        seen = await here.until(lambda row: "exceeded quota: pilothouse," in row.observed.message)
        assert "requested: pods=1, used: pods=" in seen.observed.message
        # The refusal makes the server recompute the limit: 20 more than the container's 2 pods, or twice the 30 pods of
        # the autoscaler once they count as the container's own.
        await poll_until(lambda: _hard(here), lambda hard: hard["pods"] in ("22", "60"))


async def test_a_quota_of_others_is_left_alone(here: Environment) -> None:
    await here.namespace()
    async with here.reconciling():
        await poll_until(here.seen_namespace, lambda row: row is not None and not row.reconciling)
        theirs = {"metadata": {"name": "pilothouse", "namespace": "shop"}, "spec": {"hard": {"secrets": "9"}}}
        here.cluster.store.create(RESOURCE_QUOTAS, theirs)
        await _set(here, quota=Quota(containers=2))
        await poll_until(lambda: _condition(here), lambda shown: shown == ("False", "NameTaken"))
        await _set(here, quota=Quota())
        await poll_until(lambda: _condition(here), lambda shown: shown is None)
        assert await _hard(here) == {"secrets": "9"}


async def test_a_cluster_that_denies_quotas_still_gets_the_namespace(here: Environment) -> None:
    groups = ("apps", "autoscaling", "batch", "discovery.k8s.io", "storage.k8s.io")
    core = ("namespaces", "pods", "events", "services", "serviceaccounts", "configmaps", "secrets")
    rules = [
        {"verbs": ["*"], "apiGroups": groups, "resources": ["*"]},
        {"verbs": ["*"], "apiGroups": [""], "resources": core},
    ]
    here.cluster.users.add("narrow", "narrow", rules)
    config = here.cluster.kubeconfig()
    config["users"][0]["user"]["token"] = "narrow"

    async def connect(name: str) -> ClusterClient:
        return await ClusterClient.from_kubeconfig(config, name=name, limits=LIMITS)

    asked: list[str] = []
    here.cluster.faults.on_request = lambda method, path: asked.append(path) if path == _PATH else None
    await here.namespace()
    await _set(here, quota=Quota(containers=2))
    async with here.reconciling(connect=connect):
        await poll_until(lambda: _condition(here), lambda shown: shown == ("False", "Denied"))
        namespace = await here.seen_namespace()
        assert namespace is not None
        assert not namespace.reconciling
        assert ("Applied", "True") in {(each.type, each.status) for each in namespace.conditions}
        await here.create()
        await here.running()
    # A denied request is not repeated again and again. Each reconciliation asks once: that of the creation, and those
    # of the first observation and the first comparison, if they come before its result.
    (work,) = await here.rows(
        "SELECT lease_epoch, attempts FROM reconcile_work WHERE resource_type = 'namespace'"
    )
    assert work["attempts"] == 0
    assert len(asked) <= min(work["lease_epoch"], 3)
