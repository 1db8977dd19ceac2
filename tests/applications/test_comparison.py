"""An object that was applied and read back is unchanged; a difference names its fields, and masks secrets."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, assume, given, reject, settings
from tests.applications.test_documents import CANARY, CLAIM, CONFIG_MAP, POLICY, SECRET
from tests.applications.translating import read_texts, stored, stored_secret, wanted_of, yaml_of
from tests.translator.manifests import EXAMPLE, SAMPLE, SERVICE, WEB, web
from tests.translator.test_accounting import deployments

from pilothouse_server.applications.comparison import PERMISSIONS, ComparedObject, compared
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.errors import InvalidArgument

SHAPES = sorted((Path(__file__).parents[1] / "shapes" / "manifests").glob("*.yaml"))
STATEFUL_SET = WEB.replace("kind: Deployment", "kind: StatefulSet").replace(
    "spec:\n", "spec:\n  serviceName: web\n", 1
)


def values_of(asked: Any) -> dict[str, bytes] | None:
    return dict(asked.data) if isinstance(asked, Asked) else None


async def again(text: str) -> list[ComparedObject]:
    """Compares a text with the objects that its first apply stores."""
    wanted = await wanted_of(text)
    return [compared(each, stored(each), values=values_of(each.value)) for each in wanted.values()]


async def change(before: str, after: str, *, replace: bool = False) -> ComparedObject:
    """Returns the only object that differs between two texts."""
    there = await wanted_of(before)
    found = [
        compared(each, stored(there[key]), values=values_of(there[key].value), replace=replace)
        for key, each in (await wanted_of(after)).items()
    ]
    (only,) = [each for each in found if each.action != "unchanged"]
    return only


def plain(value: Any) -> Any:
    """Returns a manifest without characters that YAML allows but the API refuses."""
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return re.sub(r"[^ -~]", "x", value) if isinstance(value, str) else value


@pytest.mark.full
@given(deployments())
@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_an_applied_manifest_is_unchanged_when_read_back(manifest: dict[str, Any]) -> None:
    text = yaml_of(plain(manifest))
    read = asyncio.run(read_texts(text))
    # Some generated manifests break API rules that Kubernetes has as well.
    assume(not read.problems)
    try:
        found = [compared(each, stored(each)) for each in read.wanted]
    except InvalidArgument:
        reject()
    assert [
        (str(each.wanted.key), each.fields, each.problems) for each in found if each.action != "unchanged"
    ] == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("---\n".join((WEB, SERVICE, SECRET, CLAIM, CONFIG_MAP, POLICY)), id="each-kind"),
        pytest.param(STATEFUL_SET, id="stateful-set"),
        pytest.param(EXAMPLE.read_text(), id="example"),
        pytest.param(SAMPLE.read_text() if SAMPLE.exists() else "", id="sample"),
    ],
)
async def test_applications_are_unchanged_the_second_time(text: str) -> None:
    assert {each.action for each in await again(text)} <= {"unchanged"}


async def test_an_equivalent_spelling_is_not_a_change() -> None:
    other = WEB.replace("nginx:1.27", "docker.io/library/nginx:1.27")
    there = stored((await wanted_of(web(container="resources: {limits: {cpu: 100m}}")))["container/web"])
    wanted = await wanted_of(
        other.replace("        ports", "        resources: {limits: {cpu: 0.1}}\n        ports")
    )
    assert compared(wanted["container/web"], there).action == "unchanged"


async def test_a_container_change_lists_its_fields_before_and_after() -> None:
    found = await change(WEB, web(container="env:\n- {name: A, value: b}").replace("1.27", "1.28"))
    assert (found.action, found.changed, found.permission) == ("update", ("env", "image"), "container.update")
    assert [(each.path, each.before, each.after) for each in found.fields] == [
        ("env", "", '[{"name":"A","value":"b","value_from":"ENV_VALUE_FROM_LITERAL"}]'),
        ("image", '"nginx:1.27"', '"nginx:1.28"'),
    ]
    before = stored((await wanted_of(WEB))["container/web"])
    scaled = msgspec.structs.replace(before, replicas=7, display_name="Front")
    assert found.merge is not None
    after = found.merge(scaled)
    assert (after.image, after.replicas, after.display_name) == ("nginx:1.28", 7, "Front")


async def test_a_caller_without_read_permission_sees_only_that_an_object_changes() -> None:
    found = await change(CONFIG_MAP, CONFIG_MAP.replace("debug", "info"))
    assert [each.path for each in found.shown(lambda _: True).fields] == ["data.LOG"]
    hidden = found.shown(lambda permission: permission != "config.get")
    assert (hidden.action, hidden.fields) == ("update", ())


async def test_values_of_a_secret_are_never_shown() -> None:
    found = await change(SECRET, SECRET.replace(f"password: {CANARY}", "password: other"))
    assert [(each.path, each.before, each.after, each.masked) for each in found.fields] == [
        ("data.password", "", "", True)
    ]
    assert found.asked is not None
    assert found.asked.paths == ("data",)
    assert CANARY not in repr(found)


async def test_a_changed_secret_type_is_a_problem() -> None:
    wanted = (await wanted_of(SECRET + "type: example.com/other\n"))["secret/db"]
    there = stored_secret((await wanted_of(SECRET))["secret/db"].value)
    (problem,) = compared(wanted, there).problems
    assert (problem.reason, problem.kind, problem.name) == ("SECRET_TYPE_IMMUTABLE", "Secret", "db")


async def test_a_carried_objects_change_shows_paths_and_masks_credentials() -> None:
    changed = POLICY.replace("[Ingress]", "[Ingress, Egress]").replace(
        "{name: closed}", "{name: closed, labels: {a: b}}"
    )
    found = await change(POLICY, changed)
    assert [each.path for each in found.fields] == ["metadata.labels", "spec.policyTypes"]
    wanted = (await wanted_of(changed))["object/closed"]
    there = stored((await wanted_of(POLICY))["object/closed"])
    masked = compared(wanted, there, secret_paths=[("spec", "policyTypes")])
    assert [(each.path, each.masked, each.after) for each in masked.fields] == [
        ("metadata.labels", False, '{"a":"b"}'),
        ("spec.policyTypes", True, ""),
    ]


async def test_a_changed_workload_kind_is_a_problem() -> None:
    found = await change(WEB, STATEFUL_SET)
    assert [each.path for each in found.problems] == ["kind"]


async def test_an_immutable_setting_needs_replace() -> None:
    parallel = STATEFUL_SET.replace("spec:\n", "spec:\n  podManagementPolicy: Parallel\n", 1)
    (problem,) = (await change(STATEFUL_SET, parallel)).problems
    assert problem.reason == "REPLACE_NEEDED"
    found = await change(STATEFUL_SET, parallel, replace=True)
    assert (found.action, found.problems) == ("replace", ())


async def test_a_claim_may_only_grow() -> None:
    found = await change(CLAIM, CLAIM.replace("1Gi", "2Gi"))
    assert [(each.path, each.before, each.after) for each in found.fields] == [("size", '"1Gi"', '"2Gi"')]
    (problem,) = (await change(CLAIM, CLAIM.replace("ReadWriteOnce", "ReadWriteMany"))).problems
    assert problem.path == "volume.access_modes"


def test_each_noun_has_the_permissions_of_its_own_calls() -> None:
    assert set(PERMISSIONS.values()) == {"config", "storage", "service", "object", "container"}
