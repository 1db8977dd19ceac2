"""Containers that are StatefulSets: made, stopped and started, held, changed, replaced, released when stuck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values.resources import (
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
)
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.waiting import poll_until

CLAIM = pb.ClaimTemplate(name="data", size="1Gi", access_modes=["ReadWriteOnce"])
HEADLESS = pb.Port(container_port=5432, name="sql", service_type=pb.SERVICE_TYPE_HEADLESS)
SETS = "/apis/apps/v1/namespaces/{}/statefulsets"


class Sets:
    """One namespace of a shared server, with containers that are StatefulSets."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.server, self.namespace = server, namespace
        assert server.cluster is not None
        self.store = server.cluster.store
        self.containers = server.admin.containers

    async def make(self, name: str, replicas: int = 2, **settings: Any) -> pb.Container:
        wanted = pb.Container(
            name=name,
            image="postgres:17",
            replicas=replicas,
            ports=[HEADLESS],
            volume_mounts=[pb.VolumeMount(volume="data", mount_path="/data")],
            stateful_set=pb.StatefulSetSettings(claim_templates=[CLAIM], **settings),
        )
        made: pb.Container = await self.containers.create(namespace=self.namespace, container=wanted)
        await self.until(
            name, lambda row: row.status == pb.CONTAINER_STATUS_RUNNING and row.ready_replicas == replicas
        )
        return made

    async def change(self, name: str, container: pb.Container, *paths: str, **more: Any) -> pb.Container:
        changed: pb.Container = await self.containers.update(
            namespace=self.namespace,
            name=name,
            container=container,
            update_mask=FieldMask(paths=paths),
            **more,
        )
        return changed

    async def until(self, name: str, holds: Callable[[pb.Container], Any]) -> pb.Container:
        async def look() -> pb.Container | None:
            row = await self.containers.get(namespace=self.namespace, name=name)
            return row if row.observed_generation == row.generation and holds(row) else None

        found = await poll_until(look)
        assert found is not None
        return found

    async def until_live(self, name: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            found = self.live(name)
            return found if found is not None and holds(found) else None

        found = await poll_until(look)
        assert found is not None
        return found

    def live(self, name: str) -> dict[str, Any] | None:
        return self.store.get(STATEFUL_SETS, self.namespace, name)

    async def until_pods(self, name: str, holds: Callable[[dict[str, str]], Any]) -> None:
        async def look() -> dict[str, str]:
            return self.pods(name)

        await poll_until(look, holds)

    async def until_claims(self, name: str, *claims: str) -> None:
        async def look() -> set[str]:
            return self.claims(name)

        await poll_until(look, lambda found: found == set(claims))

    def pods(self, name: str) -> dict[str, str]:
        """Returns the uids of the pods that are not ending, by name."""
        return {
            each["metadata"]["name"]: each["metadata"]["uid"]
            for each in self.store.list(PODS, self.namespace)
            if each["metadata"]["name"].rpartition("-")[0] == name
            and not each["metadata"].get("deletionTimestamp")
        }

    def claims(self, name: str) -> set[str]:
        found = self.store.list(PERSISTENT_VOLUME_CLAIMS, self.namespace)
        names = {each["metadata"]["name"] for each in found}
        return {each for each in names if each.startswith(f"data-{name}-")}


@pytest.fixture
async def sets(shared_server: Server, request: pytest.FixtureRequest) -> Sets:
    namespace = f"sets-{abs(hash(request.node.name)) % 10**8}"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    found = Sets(shared_server, namespace)

    async def is_there() -> bool:
        return found.store.get(NAMESPACES, None, namespace) is not None

    await poll_until(is_there)
    return found


async def test_a_stateful_set_is_stopped_started_and_scaled_with_its_claims(sets: Sets) -> None:
    retention = pb.ClaimRetention(when_scaled="Delete")
    made = await sets.make("db", claim_retention=retention)
    assert made.workload_kind == pb.WORKLOAD_KIND_STATEFUL_SET
    live = await sets.until_live("db", lambda each: True)
    assert live["spec"]["serviceName"] == "db"
    service = sets.store.get(SERVICES, sets.namespace, "db")
    assert service is not None
    assert service["spec"]["clusterIP"] == "None"
    found = sets.containers.list(namespace=sets.namespace, filter="workload_kind = STATEFUL_SET")
    assert [each.name async for each in found] == ["db"]

    await sets.containers.stop(namespace=sets.namespace, name="db")
    await sets.until("db", lambda row: row.status == pb.CONTAINER_STATUS_STOPPED and not row.reason)
    live = await sets.until_live("db", lambda each: each["spec"]["replicas"] == 0)
    assert live["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"
    assert sets.claims("db") == {"data-db-0", "data-db-1"}

    await sets.containers.start(namespace=sets.namespace, name="db")
    await sets.until("db", lambda row: row.status == pb.CONTAINER_STATUS_RUNNING and row.ready_replicas == 2)
    live = await sets.until_live(
        "db", lambda each: each["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Delete"
    )
    assert sets.claims("db") == {"data-db-0", "data-db-1"}

    await sets.change("db", pb.Container(replicas=3), "replicas")
    await sets.until("db", lambda row: row.ready_replicas == 3)
    await sets.change("db", pb.Container(replicas=1), "replicas")
    await sets.until_claims("db", "data-db-0")
    row = await sets.until("db", lambda row: row.ready_replicas == 1)
    drifted = next(each for each in row.conditions if each.type == "Drifted")
    assert (drifted.status, drifted.reason) == (2, "InSync")


def _is_true(row: pb.Container, type_: str) -> bool:
    return any(each.type == type_ and each.status == 1 for each in row.conditions)


def _partition(live: dict[str, Any]) -> Any:
    return live["spec"]["updateStrategy"]["rollingUpdate"]["partition"]


async def test_a_held_rollout_keeps_the_users_partition(sets: Sets) -> None:
    await sets.make("db", update_partition=1)
    await sets.containers.pause(namespace=sets.namespace, name="db", mode=pb.PAUSE_MODE_HOLD_ROLLOUT)
    await sets.until_live("db", lambda each: _partition(each) == 2)
    before = sets.pods("db")
    await sets.change("db", pb.Container(image="postgres:18"), "image")
    # A caller that waits for the container also waits for `Stable`.
    row = await sets.until("db", lambda row: row.reason == "RolloutHeld" and _is_true(row, "Stable"))
    assert sets.pods("db") == before
    assert row.status == pb.CONTAINER_STATUS_RUNNING
    await sets.containers.resume(namespace=sets.namespace, name="db")
    await sets.until_live("db", lambda each: _partition(each) == 1)
    await sets.until_pods("db", lambda pods: pods.get("db-1") not in (None, before["db-1"]))
    await sets.until("db", lambda row: _is_true(row, "RolledOut") and _is_true(row, "Stable"))
    assert sets.pods("db")["db-0"] == before["db-0"]


async def test_a_restart_replaces_every_pod(sets: Sets) -> None:
    await sets.make("db")
    before = sets.pods("db")
    await sets.containers.restart(namespace=sets.namespace, name="db")
    await sets.until_pods("db", lambda pods: len(pods) == 2 and not set(pods.values()) & set(before.values()))
    row = await sets.until("db", lambda row: row.ready_replicas == 2)
    assert row.status == pb.CONTAINER_STATUS_RUNNING


async def test_replace_changes_an_immutable_setting_and_keeps_the_pods(sets: Sets) -> None:
    await sets.make("db", claim_retention=pb.ClaimRetention(when_deleted="Delete"))
    before, live = sets.pods("db"), sets.live("db")
    larger = pb.StatefulSetSettings(
        claim_templates=[pb.ClaimTemplate(name="data", size="2Gi", access_modes=["ReadWriteOnce"])]
    )
    change = pb.Container(stateful_set=larger)
    with pytest.raises(PilothouseError) as refused:
        await sets.change("db", change, "stateful_set.claim_templates")
    assert refused.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.message == (
        "container.stateful_set.claim_templates: immutable in a StatefulSet that exists; set `replace` to delete it, "
        "without its pods and claims, and create it again"
    )
    await sets.change("db", change, "stateful_set.claim_templates", replace=True)
    assert live is not None
    made = await sets.until_live("db", lambda each: each["metadata"]["uid"] != live["metadata"]["uid"])
    size = made["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert size == "2Gi"
    await sets.until("db", lambda row: row.status == pb.CONTAINER_STATUS_RUNNING and row.ready_replicas == 2)
    assert sets.pods("db") == before
    assert sets.claims("db") == {"data-db-0", "data-db-1"}
    history = [
        each async for each in sets.containers.list_status_history(namespace=sets.namespace, name="db")
    ]
    assert "Replaced" in {each.reason for each in history}
    assert "Recreated" not in {each.reason for each in history}
    # A rollback needs `replace` as well, and keeps the pods, too.
    with pytest.raises(PilothouseError, match="immutable in a StatefulSet that exists; set `replace`"):
        await sets.containers.rollback(namespace=sets.namespace, name="db")
    answer = await sets.containers.rollback(namespace=sets.namespace, name="db", replace=True)
    assert answer.container.stateful_set.claim_templates[0].size == CLAIM.size
    assert list(answer.not_restored) == ["data of the claims data"]
    uid = made["metadata"]["uid"]
    made = await sets.until_live("db", lambda each: each["metadata"]["uid"] != uid)
    size = made["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert size == CLAIM.size
    await sets.until("db", lambda row: row.status == pb.CONTAINER_STATUS_RUNNING and row.ready_replicas == 2)
    assert sets.pods("db") == before
    with pytest.raises(PilothouseError) as refused:
        await sets.change("db", pb.Container(deployment=pb.DeploymentSettings()), "deployment")
    assert "its kind is immutable (stateful_set)" in refused.value.message


async def test_a_pod_stuck_on_a_broken_template_is_deleted(sets: Sets) -> None:
    await sets.make("db")
    await sets.change("db", pb.Container(image="registry.invalid/postgres:18"), "image")
    row = await sets.until("db", lambda row: "db-1" in row.message)
    assert row.status == pb.CONTAINER_STATUS_PENDING
    await sets.change("db", pb.Container(image="postgres:17"), "image")
    await sets.until("db", lambda row: row.ready_replicas == 2)
    history = [
        each async for each in sets.containers.list_status_history(namespace=sets.namespace, name="db")
    ]
    (line,) = [each for each in history if each.reason == "StuckPodDeleted"]
    assert line.message.startswith("Pod db-1 was deleted: it was not ready")


async def test_pods_wait_for_their_governing_service(sets: Sets) -> None:
    wanted = pb.Container(
        name="db", image="postgres:17", stateful_set=pb.StatefulSetSettings(service_name="peers")
    )
    await sets.containers.create(namespace=sets.namespace, container=wanted)

    async def waits() -> str:
        return (await sets.containers.get(namespace=sets.namespace, name="db")).reason

    await poll_until(waits, lambda reason: reason == "WaitingForService")
    assert sets.live("db") is None
    kubectl = Kubectl(sets.server)
    spec = {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 1}]}
    await kubectl.ask(
        "POST", f"/api/v1/namespaces/{sets.namespace}/services", {"metadata": {"name": "peers"}, "spec": spec}
    )
    await sets.until("db", lambda row: row.ready_replicas == 1)


async def test_an_import_takes_a_stateful_set_over_without_a_restart(sets: Sets) -> None:
    kubectl = Kubectl(sets.server)
    template = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {
            "containers": [
                {
                    "name": "pg",
                    "image": "postgres:17",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ]
        },
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    spec = {
        "serviceName": "",
        "replicas": 2,
        "selector": {"matchLabels": {"app": "db"}},
        "template": template,
        "volumeClaimTemplates": [claim],
    }
    await kubectl.ask("POST", SETS.format(sets.namespace), {"metadata": {"name": "db"}, "spec": spec})
    await sets.until_live("db", lambda each: each["status"].get("readyReplicas") == 2)
    before = sets.pods("db")
    answer = await sets.containers.import_(
        namespace=sets.namespace, kinds=[pb.WORKLOAD_KIND_DEPLOYMENT, pb.WORKLOAD_KIND_STATEFUL_SET]
    )
    (result,) = answer.results
    assert (list(result.problems), result.kind) == ([], pb.WORKLOAD_KIND_STATEFUL_SET)
    assert result.container.stateful_set.claim_templates[0].size == "1Gi"
    row = await sets.until("db", lambda row: row.ready_replicas == 2)
    assert row.status == pb.CONTAINER_STATUS_RUNNING
    await sets.containers.stop(namespace=sets.namespace, name="db")
    await sets.until("db", lambda row: row.status == pb.CONTAINER_STATUS_STOPPED and not row.reason)
    assert before
    assert sets.claims("db") == {"data-db-0", "data-db-1"}
    await sets.containers.delete(namespace=sets.namespace, name="db")
    scope = f'action = "delete" AND namespace = "{sets.namespace}"'
    (record,) = [each async for each in sets.server.admin.audit.list_operations(filter=scope)]
    assert record.metadata["claims"] == "kept"

    async def look() -> bool:
        return sets.live("db") is None

    await poll_until(look)
    assert sets.claims("db") == {"data-db-0", "data-db-1"}


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("d" * 53, {}, "container.name: must not be longer than 52 characters for a StatefulSet"),
        (
            "db",
            {"pod_management": "Any"},
            "container.stateful_set.pod_management: must be one of OrderedReady, Parallel",
        ),
        (
            "db",
            {"update_strategy": "OnDelete", "update_partition": 1},
            "container.stateful_set.update_partition: is only allowed with update_strategy RollingUpdate",
        ),
        (
            "db",
            {"claim_templates": [pb.ClaimTemplate(name="data", size="much")]},
            "container.stateful_set.claim_templates[0].size: ",
        ),
    ],
)
async def test_a_broken_rule_of_settings_names_its_field(
    sets: Sets, name: str, settings: dict[str, Any], expected: str
) -> None:
    wanted = pb.Container(name=name, image="postgres:17", stateful_set=pb.StatefulSetSettings(**settings))
    with pytest.raises(PilothouseError) as refused:
        await sets.containers.create(namespace=sets.namespace, container=wanted)
    assert refused.value.message.startswith(expected)


async def test_each_setting_reaches_the_cluster_and_is_shown(sets: Sets) -> None:
    claim = pb.ClaimTemplate(
        name="data",
        size="3Gi",
        access_modes=["ReadWriteMany"],
        storage_class="standard",
        volume_mode="Filesystem",
        labels={"tier": "disk"},
        annotations={"example.com/backup": "daily"},
    )
    settings = pb.StatefulSetSettings(
        service_name="peers",
        pod_management="Parallel",
        update_strategy="RollingUpdate",
        update_partition=1,
        max_unavailable="2",
        min_ready_seconds=1,
        revision_history_limit=4,
        first_ordinal=5,
        claim_templates=[claim],
        claim_retention=pb.ClaimRetention(when_deleted="Delete", when_scaled="Delete"),
    )
    peers = pb.Port(
        name="peer", container_port=1, service_name="peers", service_type=pb.SERVICE_TYPE_HEADLESS
    )
    await sets.containers.create(
        namespace=sets.namespace,
        container=pb.Container(name="db", image="postgres:17", ports=[peers], stateful_set=settings),
    )
    live = await sets.until_live("db", lambda each: True)
    shown = await sets.containers.get(namespace=sets.namespace, name="db")
    assert shown.stateful_set == settings
    (template,) = live["spec"]["volumeClaimTemplates"]
    wanted: dict[str, Any] = {
        "name": "data",
        "labels": {"tier": "disk"},
        "annotations": {"example.com/backup": "daily"},
    }
    assert {key: template["metadata"][key] for key in wanted} == wanted
    assert template["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": "standard",
        "volumeMode": "Filesystem",
    }
    wanted = {
        "serviceName": "peers",
        "podManagementPolicy": "Parallel",
        # The cluster drops max_unavailable: its feature gate is off.
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
        "minReadySeconds": 1,
        "revisionHistoryLimit": 4,
        "ordinals": {"start": 5},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
    }
    assert {key: live["spec"][key] for key in wanted} == wanted


async def test_a_set_recreated_by_others_reports_immutable_fields_and_the_remedy(sets: Sets) -> None:
    policies = {
        "a": pb.DRIFT_POLICY_REPAIR,
        "b": pb.DRIFT_POLICY_REPORT,
        "c": pb.DRIFT_POLICY_ADOPT,
    }
    for name in policies:
        await sets.make(name, replicas=1)
    for name, policy in policies.items():
        await sets.change(name, pb.Container(drift_policy=policy), "drift_policy")
        await sets.until(name, lambda row: True)
        live = sets.live(name)
        assert live is not None
        metadata = {key: live["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
        body = {"metadata": metadata, "spec": {**live["spec"], "serviceName": "other"}}
        sets.store.delete(STATEFUL_SETS, sets.namespace, name)
        sets.store.create(STATEFUL_SETS, body, manager="kubectl-create")
    remedy = (
        "an update with `replace` and without fields deletes the StatefulSet, without its pods and claims, and creates "
        "it again"
    )
    kept = (
        "changed by others and kept: StatefulSet {0} .spec.serviceName by 'kubectl-create'; StatefulSet {0} "
        f".spec.volumeClaimTemplates by 'kubectl-create'; immutable fields are among them: {remedy}"
    )
    refused = f'StatefulSet a .spec.serviceName is "other" in place of "a": it is immutable: {remedy}'
    words = {
        "a": ("Applied", "ReplaceNeeded", refused),
        "b": ("Drifted", "FieldManagerConflict", kept.format("b")),
        "c": ("Drifted", "FieldManagerConflict", kept.format("c")),
    }
    for name, expected in words.items():

        def told(row: pb.Container, expected: tuple[str, str, str] = expected) -> bool:
            return expected in {(each.type, each.reason, each.message) for each in row.conditions}

        await sets.until(name, told)
        await sets.change(name, pb.Container(), replace=True)
        await sets.until_live(name, lambda each: each["spec"]["serviceName"] != "other")
        await sets.until(
            name, lambda row: (row.ready_replicas, row.status) == (1, pb.CONTAINER_STATUS_RUNNING)
        )
        assert sets.claims(name) == {f"data-{name}-0"}
