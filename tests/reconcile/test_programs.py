"""Containers of several programs on their cluster: which programs are foreign, and the drift of each program."""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import (
    Container,
    ContainerSpec,
    EnvVar,
    InitContainer,
    Program,
    SecurityContext,
)
from pilothouse_server.importing.drift_adoption import adopt, adopt_allowed
from pilothouse_server.kubernetes.objects import DEPLOYMENTS
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.resources import Condition
from tests.kubernetes.containers import container
from tests.reconcile.environment import Environment
from tests.waiting import poll_until

DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/web"
EXPORTER = Program("exporter", "exporter:1", env=(EnvVar("A", "1"), EnvVar("B", "2")))
PROXY = Program("proxy", "envoy:1")
PREPARE = InitContainer("prepare", "busybox:1", command=("true",))
SPEC = ContainerSpec(sidecars=(EXPORTER, PROXY), init_containers=(PREPARE,))
TEMPLATE = ".spec.template.spec"


def patch(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers), **more}}}}


def drifted(row: Container) -> Condition:
    return next((c for c in row.observed.conditions if c.type == "Drifted"), Condition("Drifted", "Unknown"))


def types(row: Container) -> set[str]:
    return {condition.type for condition in row.observed.conditions}


async def running(here: Environment, policy: str) -> Container:
    await here.namespace()
    await here.create(drift_policy=policy, spec=SPEC)
    return await here.running()


async def test_only_programs_added_by_others_are_foreign(here: Environment) -> None:
    async with here.reconciling():
        assert "ForeignPrograms" not in types(await running(here, "report"))
        await here.patch_as("kubectl-patch", DEPLOYMENT, patch({"name": "miner", "image": "busybox:1"}))
        row = await here.until(lambda row: row.observed.reason == "ForeignPrograms")
        assert row.observed.message == "others have added programs to its pods: miner"


async def test_a_change_of_a_sidecar_is_repaired(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await running(here, "repair")
        change = patch({"name": "exporter", "image": "exporter:evil", "env": [{"name": "C", "value": "3"}]})
        await here.patch_as("kubectl-patch", DEPLOYMENT, change)
        row = await here.until(lambda row: drifted(row).reason == "Repaired")
        for field in (".image", '.env[name="C"]'):
            assert f'{TEMPLATE}.containers[name="exporter"]{field} by' in drifted(row).message

        async def programs() -> list[dict[str, Any]]:
            live = await client.read(DEPLOYMENTS, "shop", "web")
            found: list[dict[str, Any]] = live["spec"]["template"]["spec"]["containers"]
            return found

        await poll_until(programs, lambda found: found[1]["image"] == "exporter:1")
        assert [each["name"] for each in (await programs())[1]["env"]] == ["A", "B"]


async def test_changes_of_our_programs_are_adopted_but_an_added_program_is_not(here: Environment) -> None:
    async with here.reconciling():
        before = await running(here, "adopt")
        change = patch(
            {
                "name": "exporter",
                "image": "exporter:2",
                "env": [{"name": "A", "value": "changed"}],
                "tty": True,
            },
            {"name": "miner", "image": "busybox:1", "tty": True},
            initContainers=[{"name": "prepare", "args": ["--fast"]}],
            dnsConfig={"searches": ["example.com"]},
            hostNetwork=True,
        )
        await here.patch_as("kubectl-patch", DEPLOYMENT, change)
        row = await here.until(lambda row: row.generation > before.generation and not row.reconciling)
        exporter = msgspec.structs.replace(
            EXPORTER, image="exporter:2", env=(EnvVar("A", "changed"), EnvVar("B", "2"))
        )
        assert row.spec.sidecars == (exporter, PROXY)
        assert row.spec.init_containers == (msgspec.structs.replace(PREPARE, args=("--fast",)),)
        assert row.spec.extra_fields == {
            "spec.template.spec.containers[name=exporter].tty": "true",
            "spec.template.spec.dnsConfig": '{"searches": ["example.com"]}',
        }
        row = await here.until(lambda row: drifted(row).status == "True")
        for left in ('.containers[name="miner"]', ".hostNetwork"):
            assert f"{TEMPLATE}{left}" in drifted(row).message
        assert "dnsConfig" not in drifted(row).message


def test_a_privilege_of_another_program_is_not_adopted() -> None:
    admin = SecurityContext(capabilities_add=("SYS_ADMIN",))
    spec = ContainerSpec(sidecars=(EXPORTER, msgspec.structs.replace(PROXY, security_context=admin)))
    subject = container(spec=spec)
    live = manifests.workload(subject)
    live["metadata"]["uid"] = "d-1"
    program = live["spec"]["template"]["spec"]["containers"][1]
    program |= {"image": "exporter:2", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}
    at = f'{TEMPLATE}.containers[name="exporter"]'
    paths = [f"{at}.image", f"{at}.securityContext.capabilities.add"]
    assert adopt(subject, live, paths).spec.sidecars[0].security_context == admin
    allowed = adopt_allowed(subject, live, paths, KeyPatterns(""))
    assert allowed.spec.sidecars[0] == msgspec.structs.replace(EXPORTER, image="exporter:2")
