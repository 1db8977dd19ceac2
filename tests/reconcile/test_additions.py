"""Additions by others to our templates and Services are drift.

They are reported with their manager, or removed in one rollout.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from pilothouse_server.containers.drift_rules import DriftRules
from pilothouse_server.containers.model import Container, DriftPolicy, EnvVar, Port
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, SERVICES, Manifest, Resource
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.permitted_additions import PermittedAdditions
from pilothouse_server.values.resources import Condition
from tests.reconcile.environment import Environment
from tests.waiting import poll_until

DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/web"
SERVICE = "/api/v1/namespaces/shop/services/web"
MAIN = '.spec.template.spec.containers[name="main"]'
SECRET = {"secretKeyRef": {"name": "keys", "key": "key"}}
RULES = DriftRules(
    PermittedAdditions(
        'istio*:.spec.template.spec.containers[name="istio-proxy"], istio*:.spec.template.spec.volumes*'
    ),
    KeyPatterns("*.istio.io/*"),
)
PORTS = (Port(container_port=80, service_name="web", service_port=80),)


def pod(main: Manifest | None = None, **spec: Any) -> Manifest:
    containers = [{"name": "main", **main}] if main else []
    return {"spec": {"template": {"spec": {"containers": [*containers, *spec.pop("beside", ())], **spec}}}}


# Additions by a person, and the fields that the report then names.
ADDED: dict[str, tuple[Manifest, list[str]]] = {
    "a second program": (
        pod(beside=[{"name": "miner", "image": "busybox:1"}]),
        ['.spec.template.spec.containers[name="miner"]'],
    ),
    "an init program": (
        pod(initContainers=[{"name": "first", "image": "busybox:1"}]),
        ['.spec.template.spec.initContainers[name="first"]'],
    ),
    "a volume of the node": (
        pod(
            {"volumeMounts": [{"name": "node", "mountPath": "/node"}]},
            volumes=[{"name": "node", "hostPath": {"path": "/"}}],
        ),
        [f'{MAIN}.volumeMounts[mountPath="/node"]', '.spec.template.spec.volumes[name="node"]'],
    ),
    "a capability": (
        pod({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
        [f"{MAIN}.securityContext.capabilities.add"],
    ),
    "a variable": (pod({"env": [{"name": "X", "value": "1"}]}), [f'{MAIN}.env[name="X"]']),
    "a limit": (pod({"resources": {"limits": {"cpu": "500m"}}}), [f"{MAIN}.resources.limits.cpu"]),
    "a grace period": (
        pod(terminationGracePeriodSeconds=60),
        [".spec.template.spec.terminationGracePeriodSeconds"],
    ),
    "the host's network": (pod(hostNetwork=True), [".spec.template.spec.hostNetwork"]),
    "a token that is not mounted": (
        pod(automountServiceAccountToken=False),
        [".spec.template.spec.automountServiceAccountToken"],
    ),
    "an annotation of the pods": (
        {"spec": {"template": {"metadata": {"annotations": {"example.com/inject": "true"}}}}},
        [".spec.template.metadata.annotations.example.com/inject"],
    ),
}


NAMES = {added.replace(" ", "-").replace("'", ""): case for added, case in ADDED.items()}


def drifted(row: Container) -> Condition:
    return next((c for c in row.observed.conditions if c.type == "Drifted"), Condition("Drifted", "Unknown"))


async def running(here: Environment, policy: DriftPolicy, **fields: Any) -> Container:
    await here.namespace()
    await here.create(drift_policy=policy, **fields)
    return await here.running()


async def whole(client: ClusterClient) -> Manifest:
    return await client.read(DEPLOYMENTS, "shop", "web")


@asynccontextmanager
async def meddled(
    here: Environment, policy: DriftPolicy
) -> AsyncIterator[tuple[ClusterClient, dict[str, Manifest]]]:
    """Yields the client and the Deployments as they were, by name, after others changed one for each of `ADDED`."""
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        for name in NAMES:
            await here.create(name, drift_policy=policy)
        before = {}
        for name, (patch, _) in NAMES.items():
            await here.running(name)
            before[name] = await client.read(DEPLOYMENTS, "shop", name)
            await here.patch_as("kubectl-patch", DEPLOYMENT.replace("web", name), patch)
        yield client, before


def named(name: str, fields: list[str]) -> str:
    return "; ".join(f"Deployment {name} {field} by 'kubectl-patch'" for field in fields)


async def test_report_names_what_others_added(here: Environment) -> None:
    async with meddled(here, "report") as (client, before):
        for name, (_, fields) in NAMES.items():
            row = await here.until(lambda row: drifted(row).status == "True", name)
            assert drifted(row).message == f"changed by others and kept: {named(name, fields)}"
            after = await client.read(DEPLOYMENTS, "shop", name)
            assert after["spec"]["template"] != before[name]["spec"]["template"]
            assert after["metadata"]["generation"] == before[name]["metadata"]["generation"] + 1


async def test_repair_removes_what_others_added_in_one_rollout(here: Environment) -> None:
    async with meddled(here, "repair") as (client, before):
        for name, (_, fields) in NAMES.items():
            row = await here.until(lambda row: drifted(row).reason == "Repaired", name)
            assert drifted(row).message == f"taken back: {named(name, fields)}"
            after = await client.read(DEPLOYMENTS, "shop", name)
            assert after["spec"]["template"] == before[name]["spec"]["template"]
            # One change by the other client, and one by the reconciler.
            assert after["metadata"]["generation"] == before[name]["metadata"]["generation"] + 2
            assert all(entry["manager"] != "kubectl-patch" for entry in after["metadata"]["managedFields"])


@pytest.mark.parametrize("policy", ["report", "repair"])
async def test_additions_made_while_no_server_ran_are_found(here: Environment, policy: DriftPolicy) -> None:
    async with here.reconciling():
        await running(here, policy)
    await here.patch_as("kubectl-patch", DEPLOYMENT, ADDED["a second program"][0])
    async with here.reconciling():
        row = await here.until(lambda row: "miner" in drifted(row).message)
        assert drifted(row).status == ("True" if policy == "report" else "False")


@pytest.mark.parametrize("policy", ["report", "repair"])
@pytest.mark.parametrize("record", [[{}], None], ids=["cleared", "one entry taken out"])
async def test_additions_are_found_after_managed_fields_were_cleared(
    here: Environment, policy: DriftPolicy, record: list[Manifest] | None
) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, policy)
        before = await whole(client)
    await here.patch_as("kubectl-patch", DEPLOYMENT, ADDED["a second program"][0])
    if record is None:
        entries = (await whole(client))["metadata"]["managedFields"]
        record = [entry for entry in entries if entry["manager"] != "kubectl-patch"]
    # A strategic merge patch would merge the entries.
    await here.merge_as("kubectl-patch", DEPLOYMENT, {"metadata": {"managedFields": record}})
    async with here.reconciling():
        row = await here.until(lambda row: "miner" in drifted(row).message)
        where = 'Deployment web .spec.template.spec.containers[name="miner"]'
        assert drifted(row).message.endswith(f": {where}")
        after = await whole(client)
        names = [each["name"] for each in after["spec"]["template"]["spec"]["containers"]]
        assert ("miner" in names) == (policy == "report")
        if policy == "repair":
            assert after["spec"]["template"] == before["spec"]["template"]


@pytest.mark.parametrize("policy", ["report", "repair"])
async def test_additions_by_others_to_a_service_are_drift(here: Environment, policy: DriftPolicy) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, policy, ports=PORTS)
        before = await client.read(SERVICES, "shop", "web")
        patch = {
            "spec": {
                "externalIPs": ["192.0.2.1"],
                "sessionAffinity": "ClientIP",
                "ports": [{"name": "more", "port": 81, "targetPort": 22}],
            }
        }
        await here.patch_as("kubectl-edit", SERVICE, patch)
        row = await here.until(lambda row: "externalIPs" in drifted(row).message)
        for field in ("externalIPs", "sessionAffinity", 'ports[port=81,protocol="TCP"]'):
            assert f"Service web .spec.{field} by 'kubectl-edit'" in drifted(row).message
        after = await client.read(SERVICES, "shop", "web")
        if policy == "repair":
            assert after["spec"] == before["spec"]
        else:
            assert drifted(row).status == "True"
            assert after["spec"]["externalIPs"] == ["192.0.2.1"]


async def test_api_defaults_are_no_drift_even_if_others_wrote_them(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, "report", ports=PORTS)
        said = {
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {"privileged": False},
        }
        await here.apply_as(
            "another",
            DEPLOYMENT,
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                **pod(said, dnsPolicy="ClusterFirst", terminationGracePeriodSeconds=30),
            },
        )
        await here.patch_as("kubectl-patch", DEPLOYMENT, ADDED["a variable"][0])
        row = await here.until(lambda row: drifted(row).status == "True")
        kept = f"changed by others and kept: Deployment web {ADDED['a variable'][1][0]} by 'kubectl-patch'"
        assert drifted(row).message == kept
        assert (await whole(client))["spec"]["template"]["spec"]["containers"][0]["securityContext"]


async def test_a_change_and_an_addition_are_reverted_together(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, "repair")
        before = await whole(client)
        added = pod({"image": "nginx:evil"}, beside=[{"name": "miner", "image": "busybox:1"}])
        await here.patch_as("kubectl-patch", DEPLOYMENT, added)
        row = await here.until(lambda row: drifted(row).reason == "Repaired")
        for field in (f"{MAIN}.image", '.spec.template.spec.containers[name="miner"]'):
            assert f"Deployment web {field} by 'kubectl-patch'" in drifted(row).message
        after = await whole(client)
        assert after["spec"]["template"] == before["spec"]["template"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"] + 2


async def test_drift_of_a_field_without_an_owner_names_no_manager(here: Environment) -> None:
    """For example, one manager removes a label after another manager has written the object."""
    async with here.reconciling():
        await running(here, "report", labels={"team": "a"})
        restart = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
        await here.patch_as(
            "kubectl-rollout", DEPLOYMENT, {"spec": {"template": {"metadata": {"annotations": restart}}}}
        )
        await here.patch_as("kubectl-label", DEPLOYMENT, {"metadata": {"labels": {"team": None}}})
        row = await here.until(lambda row: drifted(row).status == "True")
        assert drifted(row).message == "changed by others and kept: Deployment web .metadata.labels.team"


@pytest.mark.parametrize("policy", ["report", "repair", "adopt"])
async def test_a_restart_by_others_is_no_drift(here: Environment, policy: DriftPolicy) -> None:
    client = await here.connect("local")
    key = "kubectl.kubernetes.io/restartedAt"
    async with here.reconciling():
        await running(here, policy)
        for second in ("01", "02"):
            restart = {key: f"2026-01-01T00:00:{second}Z"}
            await here.patch_as(
                "kubectl-rollout", DEPLOYMENT, {"spec": {"template": {"metadata": {"annotations": restart}}}}
            )
            row = await here.until(
                lambda row: any(c.type == "RolledOut" and c.status == "True" for c in row.observed.conditions)
            )
            assert drifted(row).reason == "InSync"
            annotations = (await whole(client))["spec"]["template"]["metadata"]["annotations"]
            assert annotations[key] == restart[key]
            said = f"Deployment web was restarted by 'kubectl-rollout' at {restart[key]}"
            await recorded(here, "RestartedByOthers", said)
    # Another server does not record the restart again.
    async with here.reconciling():
        await here.update(env=(EnvVar("A", "1"),))
        await here.running()
    assert len(await history(here, "RestartedByOthers")) == 2


async def history(here: Environment, reason: str) -> list[str]:
    query = "SELECT message FROM container_status_history WHERE reason = $1 ORDER BY changed_at, id"
    return [entry["message"] for entry in await here.rows(query, reason)]


async def recorded(here: Environment, reason: str, message: str, *, times: int = 1) -> None:
    """Waits until the history has the line `times` times."""
    await poll_until(lambda: history(here, reason), lambda lines: lines.count(message) == times)


@pytest.mark.parametrize("policy", ["repair", "report", "adopt"])
async def test_an_object_deleted_by_others_and_recreated_leaves_a_trace(
    here: Environment, policy: DriftPolicy
) -> None:
    client = await here.connect("local")
    resources: dict[str, Resource[Any]] = {"Deployment": DEPLOYMENTS, "Service": SERVICES}
    async with here.reconciling():
        await running(here, policy, ports=PORTS)
        for kind, resource in resources.items():
            said = f"{kind} web was deleted by others and recreated"
            for times in (1, 2):
                found = await client.get(resource, "shop", "web")
                await client.delete(resource, "shop", "web", uid=found.metadata.uid, propagation="Background")
                await recorded(here, "Recreated", said, times=times)
            row = await here.running()
            repaired = next(c for c in row.observed.conditions if c.type == "Repaired")
            assert (repaired.status, repaired.reason, repaired.message) == ("True", "Recreated", said)
        assert len(await history(here, "Recreated")) == 4


async def test_a_service_that_the_reconciler_recreates_leaves_no_trace(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, "repair", ports=PORTS)
        await here.update(ports=(msgspec.structs.replace(PORTS[0], service_type="Headless"),))
        await poll_until(
            lambda: client.find(SERVICES, "shop", "web"), lambda found: found is not None and found.headless
        )
        row = await here.running()
        assert all(condition.type != "Repaired" for condition in row.observed.conditions)
        assert await history(here, "Recreated") == []


async def test_programs_added_by_others_show_in_the_status_while_they_exist(here: Environment) -> None:
    def foreign(row: Container) -> Condition | None:
        return next((c for c in row.observed.conditions if c.type == "ForeignPrograms"), None)

    message = "others have added programs to its pods: miner, first"
    beside = {**pod(beside=[{"name": "miner", "image": "busybox:1"}])}
    beside["spec"]["template"]["spec"]["initContainers"] = [{"name": "first", "image": "busybox:1"}]
    async with here.reconciling():
        await running(here, "report")
        await here.patch_as("kubectl-patch", DEPLOYMENT, beside)
        row = await here.until(lambda row: row.observed.reason == "ForeignPrograms")
        assert (row.observed.status, row.observed.message) == ("running", message)
        condition = foreign(row)
        assert condition is not None
        assert (condition.status, condition.reason, condition.message) == ("True", "AddedByOthers", message)
        await here.update(drift_policy="repair")
        await here.until(lambda row: foreign(row) is None and not row.observed.reason)


async def test_adopt_takes_over_additions_that_the_model_can_express(here: Environment) -> None:
    client = await here.connect("local")
    main = {
        "env": [{"name": "X", "value": "1"}, {"name": "S", "valueFrom": SECRET}],
        "resources": {"limits": {"cpu": "500m"}},
        "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}},
    }
    patch = pod(main, beside=[{"name": "miner", "image": "busybox:1"}], nodeSelector={"disk": "ssd"})
    annotations = {"example.com/team": "a", "sidecar.istio.io/inject": "true"}
    patch["spec"]["template"]["metadata"] = {"annotations": annotations}
    async with here.reconciling(rules=RULES):
        before = await running(here, "adopt")
        await here.patch_as("kubectl-patch", DEPLOYMENT, patch)
        row = await here.until(lambda row: row.generation > before.generation and not row.reconciling)
        row = await here.until(lambda row: drifted(row).status == "True")
        assert row.env == (EnvVar("X", "1"),)
        assert row.resources.cpu_limit == "500m"
        assert row.spec.node_selector == {"disk": "ssd"}
        assert row.spec.pod_annotations == {"example.com/team": "a"}
        assert row.spec.security_context is None
        reported = (
            '.spec.template.spec.containers[name="miner"]',
            f"{MAIN}.securityContext.capabilities.add",
            f'{MAIN}.env[name="S"]',
            ".spec.template.metadata.annotations.sidecar.istio.io/inject",
        )
        for field in reported:
            assert f"Deployment web {field} by 'kubectl-patch'" in drifted(row).message
        assert drifted(row).message.count(" by '") == len(reported)
        there = (await whole(client))["spec"]["template"]["spec"]
        assert [each["name"] for each in there["containers"]] == ["main", "miner"]


async def test_permitted_additions_are_no_drift(here: Environment) -> None:
    client = await here.connect("local")
    sidecar = pod(
        beside=[{"name": "istio-proxy", "image": "proxy:1"}],
        volumes=[{"name": "istio-token", "emptyDir": {}}],
    )
    async with here.reconciling(rules=RULES):
        await running(here, "repair")
        await here.patch_as("istio-operator", DEPLOYMENT, sidecar)
        # The same prefix from another manager is not permitted.
        await here.patch_as(
            "kubectl-patch", DEPLOYMENT, pod(volumes=[{"name": "istio-more", "emptyDir": {}}])
        )
        row = await here.until(lambda row: drifted(row).reason == "Repaired")
        said = (
            "taken back: Deployment web .spec.template.spec.volumes[name=\"istio-more\"] by 'kubectl-patch'"
        )
        assert drifted(row).message == said
        there = (await whole(client))["spec"]["template"]["spec"]
        assert [each["name"] for each in there["containers"]] == ["main", "istio-proxy"]
        assert [each["name"] for each in there["volumes"]] == ["istio-token"]
