"""Changes by others to our fields are reported, reverted or adopted, and always with their manager."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_server.containers.model import Container, EnvVar, Port, Resources
from pilothouse_server.containers.operations import resume as resume_container
from pilothouse_server.containers.operations import start as start_container
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.kubernetes.client import ClusterClient, Page
from pilothouse_server.kubernetes.objects import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    SERVICES,
    HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec,
    ObjectMeta,
    Resource,
    ScaleTarget,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.values.resources import Condition
from tests.kubernetes.containers import replicas_of
from tests.reconcile.environment import Environment
from tests.waiting import poll_until

ZERO = {"type": "ScaledToZero", "status": "True", "reason": "ScaledToZero", "message": "no requests"}
WISHES: dict[str, Any] = {
    "env": (EnvVar("A", "1"), EnvVar("B", "2")),
    "resources": Resources(cpu_request="100m", memory_limit="64Mi"),
    "labels": {"team": "a"},
}


def drifted(row: Container) -> Condition:
    return next((c for c in row.observed.conditions if c.type == "Drifted"), Condition("Drifted", "Unknown"))


def pod(main: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", **main}], **more}}}}


async def main_container(client: ClusterClient) -> dict[str, Any]:
    manifest = await client.read(DEPLOYMENTS, "shop", "web")
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


async def running(here: Environment, **fields: Any) -> Container:
    await here.namespace()
    await here.create(**fields)
    return await here.running()


async def test_adopted_fields_become_the_desired_state(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        before = await running(here, drift_policy="adopt", **WISHES)
        await here.meddle(
            pod(
                {
                    "image": "nginx:1.29",
                    "env": [{"name": "A", "value": "changed"}],
                    "resources": {"requests": {"cpu": "200m"}},
                }
            )
            | {"metadata": {"labels": {"team": "b"}}}
        )
        row = await here.until(lambda row: row.image == "nginx:1.29" and not row.reconciling)
        assert row.generation > before.generation
        assert row.resource_version > before.resource_version
        assert row.env == (EnvVar("A", "changed"), EnvVar("B", "2"))
        assert row.resources == Resources(cpu_request="200m", memory_limit="64Mi")
        assert row.labels == {"team": "b"}
        condition = drifted(row)
        assert (condition.status, condition.reason) == ("False", "Adopted")
        assert "image" in condition.message
        assert "'meddler'" in condition.message
        row = await here.running()
        assert row.image == (await main_container(client))["image"] == "nginx:1.29"
    history = await here.rows(
        "SELECT triggered_by, user_id, message FROM container_status_history WHERE reason = 'Adopted'"
    )
    assert [(entry["triggered_by"], entry["user_id"]) for entry in history] == [("system", None)]
    assert "'meddler'" in history[0]["message"]
    (image,) = await here.rows(
        "SELECT i.tag, c.quota_cpu_millicores FROM containers AS c JOIN container_images AS i ON i.id = c.image_id"
    )
    assert (image["tag"], image["quota_cpu_millicores"]) == ("1.29", 200)


async def test_drift_that_the_model_cannot_express_stays_reported(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        # A Service's port is ours; no policy adopts values from Services.
        await running(
            here,
            drift_policy="adopt",
            ports=(Port(container_port=80, service_name="web", service_port=80),),
        )
        await here.apply_as(
            "meddler",
            "/api/v1/namespaces/shop/services/web",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]},
            },
        )
        # Services are not watched: any other reason to check the container finds the change.
        await here.meddle(pod({"image": "nginx:1.29"}))
        row = await here.until(lambda row: row.image == "nginx:1.29" and drifted(row).status == "True")
        assert "Service web" in drifted(row).message
        assert "targetPort by 'meddler'" in drifted(row).message
        service = await client.read(SERVICES, "shop", "web")
        assert service["spec"]["ports"][0]["targetPort"] == 8080


@pytest.mark.parametrize("policy", ["report", "adopt"])
async def test_fields_removed_by_others_are_drift(here: Environment, policy: Any) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, drift_policy=policy, **WISHES)
        await here.meddle(pod({"env": [{"name": "B", "$patch": "delete"}], "image": "nginx:1.29"}))
        row = await here.until(lambda row: drifted(row).reason in ("FieldManagerConflict", "Adopted"))
        assert 'env[name="B"]' in drifted(row).message
        assert [variable["name"] for variable in (await main_container(client))["env"]] == ["A"]
        assert [variable.name for variable in row.env] == (["A"] if policy == "adopt" else ["A", "B"])


async def test_reported_drift_does_not_delay_requested_changes(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, drift_policy="report", **WISHES)
        await here.meddle(pod({"image": "nginx:1.29"}))
        await here.until(lambda row: drifted(row).status == "True")
        await here.update(env=(EnvVar("A", "3"), EnvVar("B", "2")))
        row = await here.running()
        assert drifted(row).status == "True"
        there = await main_container(client)
        assert there["image"] == "nginx:1.29"
        assert there["env"][0] == {"name": "A", "value": "3"}
        # After the policy changes to repair, the change is reverted.
        await here.update(drift_policy="repair")
        row = await here.until(lambda row: drifted(row).reason == "Repaired")
        assert (await main_container(client))["image"] == "nginx:1.27"


@pytest.mark.parametrize("policy", ["repair", "report", "adopt"])
async def test_a_replica_count_set_by_a_person_follows_the_policy(here: Environment, policy: Any) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        before = await running(here, drift_policy=policy)
        await here.meddle({"spec": {"replicas": 3}})
        if policy == "adopt":
            row = await here.until(lambda row: row.replicas == 3 and not row.reconciling)
            assert row.generation > before.generation
            assert drifted(row).status == "False"
        else:
            kept = "True" if policy == "report" else "False"
            row = await here.until(lambda row: "replicas" in drifted(row).message)
            assert (row.replicas, drifted(row).status) == (1, kept)
            assert ".spec.replicas (3 in place of 1) by 'meddler'" in drifted(row).message
        left = 1 if policy == "repair" else 3
        await here.until(lambda row: row.observed.ready_replicas == left)
        assert await replicas_of(client) == left


@pytest.mark.parametrize("policy", ["repair", "report", "adopt"])
async def test_a_rollout_paused_by_others_follows_the_policy(here: Environment, policy: Any) -> None:
    client = await here.connect("local")

    async def image_and_paused() -> tuple[str, bool]:
        spec = (await client.read(DEPLOYMENTS, "shop", "web"))["spec"]
        return spec["template"]["spec"]["containers"][0]["image"], bool(spec.get("paused"))

    async with here.reconciling():
        before = await running(here, drift_policy=policy)
        # The way `kubectl rollout pause` does.
        await here.meddle({"spec": {"paused": True}})
        if policy == "adopt":
            row = await here.until(lambda row: row.hold_rollout and not row.reconciling)
            assert row.generation > before.generation
            await here.until(lambda row: any(c.type == "RolloutHeld" for c in row.observed.conditions))
            # `resume` undoes it.
            await here.move(resume_container)
            await here.until(lambda row: not row.hold_rollout and not row.reconciling)
        else:
            row = await here.until(lambda row: "paused" in drifted(row).message)
            assert "Deployment web .spec.paused by 'meddler'" in drifted(row).message
            assert drifted(row).status == ("True" if policy == "report" else "False")
            assert not row.hold_rollout
        await here.update(image="nginx:1.28")
        await poll_until(image_and_paused, lambda found: found == ("nginx:1.28", policy == "report"))


@pytest.mark.parametrize("policy", ["repair", "report"])
async def test_a_removed_or_changed_owner_label_is_restored(here: Environment, policy: Any) -> None:
    client = await here.connect("local")
    ports = (Port(container_port=80, service_name="web", service_port=80),)
    service = "/api/v1/namespaces/shop/services/web"

    async def labels(uid: str, taken: Any) -> None:
        for path in ("/apis/apps/v1/namespaces/shop/deployments/web", service):
            await here.patch_as("meddler", path, {"metadata": {"labels": {CONTAINER_UID: taken}}})
        for resource in (DEPLOYMENTS, SERVICES):

            async def label(resource: Resource[Any] = resource) -> str:
                found = await client.get(resource, "shop", "web")
                return str(found.metadata.label(CONTAINER_UID))

            await poll_until(label, lambda found: found == uid)

    async with here.reconciling():
        row = await running(here, drift_policy=policy, ports=ports)
        deployment = await client.get(DEPLOYMENTS, "shop", "web")
        for taken in (None, "somebodys"):
            await labels(row.uid, taken)
            row = await here.running()
            assert {c.type: c.status for c in row.observed.conditions}["Applied"] == "True"
        again = await client.get(DEPLOYMENTS, "shop", "web")
        assert again.metadata.uid == deployment.metadata.uid
        # Objects without the label are deleted with the container, too.
        await here.patch_as("meddler", service, {"metadata": {"labels": {CONTAINER_UID: None}}})
        await here.delete()
        await poll_until(lambda: client.find(SERVICES, "shop", "web"), lambda found: found is None)
        await poll_until(lambda: client.find(DEPLOYMENTS, "shop", "web"), lambda found: found is None)


@pytest.mark.parametrize(("policy", "left"), [("repair", 0), ("adopt", 0), ("report", 2)])
async def test_a_stopped_container_stays_at_zero_replicas(here: Environment, policy: Any, left: int) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, drift_policy=policy)
        await here.move(stop_container)
        await here.until(lambda row: not row.reconciling)
        await here.meddle({"spec": {"replicas": 2}})
        if left:
            row = await here.until(lambda row: drifted(row).status == "True")
            assert ".spec.replicas" in drifted(row).message
        await poll_until(lambda: replicas_of(client), lambda found: found == left)
        row = await here.until(lambda row: row.observed.status == "stopped")
        assert row.replicas == 1


async def test_an_autoscalers_count_is_adopted_and_never_reverted(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await here.connect("local")
    _autoscaled(monkeypatch, "web")
    async with here.reconciling():
        await running(here)
        await here.meddle({"spec": {"replicas": 4}})
        row = await here.until(lambda row: row.replicas == 4 and not row.reconciling)
        autoscaled = next(c for c in row.observed.conditions if c.type == "Autoscaled")
        assert autoscaled.status == "True"
        assert "scaler" in autoscaled.message
        assert drifted(row).status == "False"
        # A change of `replicas` has no effect: the autoscaler's number replaces it.
        await here.update(replicas=2)
        await here.until(lambda row: row.replicas == 4 and not row.reconciling)
        assert await replicas_of(client) == 4
        # The autoscaler ignores a count of zero: stop and start remain ours.
        await here.move(stop_container)
        await poll_until(lambda: replicas_of(client), lambda found: found == 0)
        await here.move(start_container)
        row = await here.running()
        assert await replicas_of(client) == 4
        # The condition did not change in between.
        assert next(c for c in row.observed.conditions if c.type == "Autoscaled").status == "True"


@pytest.mark.full
async def test_a_deleted_autoscaler_is_forgotten(here: Environment) -> None:
    client = await here.connect("local")
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 5,
    }
    metadata = {"name": "scaler", "namespace": "shop"}
    kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    path = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/scaler"
    state = {"currentReplicas": 3, "desiredReplicas": 3}

    def autoscaled(row: Container) -> str:
        return {c.type: c.status for c in row.observed.conditions}.get("Autoscaled", "")

    async with here.reconciling():
        await running(here)
        await here.apply_as("somebody", path, {**kind, "metadata": metadata, "spec": spec})
        await here.meddle({"spec": {"replicas": 3}})
        await here.until(lambda row: row.replicas == 3 and not row.reconciling and autoscaled(row) == "True")
        # The autoscaler's own zero (Kubernetes 1.37) is neither a stop nor drift, and the desired number stays.
        await here.apply_as(
            "somebody",
            path + "/status",
            {**kind, "metadata": metadata, "status": {**state, "conditions": [ZERO]}},
        )
        await here.meddle({"spec": {"replicas": 0}})
        row = await here.until(lambda row: row.observed.reason == "ScaledToZero")
        assert (row.observed.status, row.replicas, drifted(row).status) == ("running", 3, "False")
        assert await replicas_of(client) == 0
        await here.apply_as(
            "somebody",
            path + "/status",
            {**kind, "metadata": metadata, "status": {**state, "conditions": []}},
        )
        await here.meddle({"spec": {"replicas": 3}})
        await here.until(
            lambda row: row.observed.reason != "ScaledToZero" and row.observed.ready_replicas == 3
        )
        # Zero set by another client is reported, not reverted: that client may scale by demand.
        await here.meddle({"spec": {"replicas": 0}})
        row = await here.until(lambda row: drifted(row).status == "True")
        assert ".spec.replicas (0 in place of 3)" in drifted(row).message
        assert await replicas_of(client) == 0
        await here.meddle({"spec": {"replicas": 3}})
        await here.until(lambda row: drifted(row).status == "False")
        there = await client.get(HORIZONTAL_POD_AUTOSCALERS, "shop", "scaler")
        await client.delete(HORIZONTAL_POD_AUTOSCALERS, "shop", "scaler", uid=there.metadata.uid)
        row = await here.until(lambda row: autoscaled(row) == "False")
        # The autoscaler's number stays the desired one, and is enforced from now on.
        assert row.replicas == 3
        await here.meddle({"spec": {"replicas": 1}})
        await here.until(lambda row: "replicas" in drifted(row).message)
        await poll_until(lambda: replicas_of(client), lambda found: found == 3)


def _autoscaled(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes every cluster list a HorizontalPodAutoscaler for the Deployment of this name."""
    autoscaler = HorizontalPodAutoscaler(
        metadata=ObjectMeta(name="scaler"),
        spec=HorizontalPodAutoscalerSpec(scale_target_ref=ScaleTarget("Deployment", name)),
    )
    real = ClusterClient.list

    async def list_(self: ClusterClient, resource: Resource[Any], *arguments: Any, **keywords: Any) -> Any:
        if resource is HORIZONTAL_POD_AUTOSCALERS:
            return Page((autoscaler,), "1")
        return await real(self, resource, *arguments, **keywords)

    monkeypatch.setattr(ClusterClient, "list", list_)


async def test_a_service_becomes_headless_and_back(here: Environment) -> None:
    client = await here.connect("local")

    def port(kind: Any) -> tuple[Port, ...]:
        return (Port(container_port=80, service_name="web", service_port=80, service_type=kind),)

    async def address() -> str:
        found = await client.find(SERVICES, "shop", "web")
        return found.spec.cluster_ip if found else ""

    async with here.reconciling():
        await running(here, ports=port("ClusterIP"))
        assert await address() not in ("", "None")
        await here.update(ports=port("Headless"))
        await poll_until(address, lambda found: found == "None")
        await here.update(ports=port("ClusterIP"))
        await poll_until(address, lambda found: found not in ("", "None"))
        row = await here.running()
        assert {c.type: c.status for c in row.observed.conditions}["Applied"] == "True"
