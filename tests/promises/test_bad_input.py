"""Bad input, end to end.

Each bad request is refused with its code, its reason and a message that names the field. It leaves nothing but
its record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database, number_changes
from tests.harness import PASSWORD
from tests.promises.calling import OPERATION_KEY, Caller
from tests.promises.environment import Environment, quiet_environment
from tests.promises.requests import OWN, REQUESTS, Fields, workload
from tests.promises.tables import RECORDS, contents

_TIGHT = "tight"
_WEB = {**workload("web"), "ports": [{"containerPort": 80, "serviceName": "taken"}]}


@dataclass(frozen=True)
class Case:
    """A call that must be refused.

    `field` is the field that the message begins with and BadRequest names. `words` is a further part of the
    message. `beside` are the tables that count refusals.
    """

    what: str
    method: str
    fields: Fields
    code: str = "INVALID_ARGUMENT"
    reason: str = "INVALID_FIELD"
    field: str = ""
    words: str = ""
    beside: frozenset[str] = frozenset()


def _container(what: str, changes: Fields, field: str, reason: str = "INVALID_FIELD", **more: Any) -> Case:
    fields = {"namespace": OWN, "container": {**workload("new"), **changes}}
    return Case(what, "CreateContainer", fields, field=field, reason=reason, **more)


def _creating(namespace: str, **changes: Any) -> Fields:
    return {"namespace": namespace, "container": {**workload("new"), **changes}}


def _update(changes: Fields, mask: str) -> Fields:
    return {"namespace": OWN, "name": "web", "container": changes, "updateMask": mask}


_ONE_DIRECTORY = {"emptyDirs": [{"name": "a"}]}
_CASES = (
    Case(
        "wrong password",
        "Login",
        {"username": "admin", "password": "not the password"},
        code="UNAUTHENTICATED",
        reason="INVALID_CREDENTIALS",
        words="password",
        # The lockout counts failed logins.
        beside=frozenset({"login_throttles", "login_origins"}),
    ),
    Case(
        "unknown namespace",
        "CreateContainer",
        _creating("nowhere"),
        code="NOT_FOUND",
        reason="NAMESPACE_NOT_FOUND",
        words='namespace "nowhere"',
    ),
    Case(
        "no namespace",
        "CreateContainer",
        {"container": workload("new")},
        reason="REQUIRED",
        field="namespace",
    ),
    Case(
        "duplicate container",
        "CreateContainer",
        _creating(OWN, name="web"),
        code="ALREADY_EXISTS",
        reason="CONTAINER_ALREADY_EXISTS",
        words='container "web"',
    ),
    Case(
        "duplicate service",
        "CreateContainer",
        _creating(OWN, ports=[{"containerPort": 80, "serviceName": "taken"}]),
        code="ALREADY_EXISTS",
        reason="SERVICE_ALREADY_EXISTS",
        words='service "taken"',
    ),
    Case(
        "duplicate namespace",
        "CreateNamespace",
        {"namespace": {"name": OWN}},
        code="ALREADY_EXISTS",
        reason="NAMESPACE_ALREADY_EXISTS",
        words='namespace "own"',
    ),
    Case(
        "duplicate user in another case",
        "CreateUser",
        {"user": {"username": "ADMIN", "email": "other@example.org"}, "password": PASSWORD},
        code="ALREADY_EXISTS",
        reason="USER_ALREADY_EXISTS",
        words="user name",
    ),
    _container("name that climbs", {"name": "../etc"}, "container.name"),
    _container("image in capitals", {"image": "Nginx:1.27"}, "container.image"),
    _container("image with two tags", {"image": "nginx:1:2"}, "container.image"),
    _container("digest too short", {"image": "nginx@sha256:abc"}, "container.image"),
    _container("no image", {"image": ""}, "container.image", "INVALID_CONTAINER"),
    _container("port too high", {"ports": [{"containerPort": 65536}]}, "container.ports[0].container_port"),
    _container(
        "second port is none",
        {"ports": [{"containerPort": 80}, {"containerPort": 0}]},
        "container.ports[1].container_port",
        "REQUIRED",
    ),
    _container(
        "node port too low",
        {"ports": [{"containerPort": 80, "nodePort": 80, "serviceType": "SERVICE_TYPE_NODE_PORT"}]},
        "container.ports[0].node_port",
        "INVALID_CONTAINER",
    ),
    _container(
        "quantity that is none",
        {"resources": {"memoryRequest": "12 apples"}},
        "container.resources.memory_request",
    ),
    _container("negative quantity", {"resources": {"cpuLimit": "-1"}}, "container.resources.cpu_limit"),
    _container(
        "request above limit",
        {"resources": {"cpuRequest": "2", "cpuLimit": "1"}},
        "container.resources.cpu_request",
        "INVALID_CONTAINER",
    ),
    Case(
        "quantity of a volume",
        "CreateVolume",
        {
            "namespace": OWN,
            "volume": {"name": "new", "type": "VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM", "size": "big"},
        },
        field="volume.size",
    ),
    Case(
        "quantity of a quota",
        "CreateNamespace",
        {"namespace": {"name": "new", "resourceQuota": {"cpu": "much"}}},
        field="namespace.resource_quota.cpu",
    ),
    _container("label key", {"labels": {"a/b/c": "x"}}, 'container.labels["a/b/c"]'),
    _container("label value", {"labels": {"app": "not a value"}}, 'container.labels["app"]'),
    _container(
        "mount path relative",
        {**_ONE_DIRECTORY, "volumeMounts": [{"volume": "a", "mountPath": "data"}]},
        "container.volume_mounts[0].mount_path",
    ),
    _container(
        "mount that leaves its volume",
        {**_ONE_DIRECTORY, "volumeMounts": [{"volume": "a", "mountPath": "/data", "subPath": "../b"}]},
        "container.volume_mounts[0].sub_path",
    ),
    _container(
        "mount of nothing",
        {"volumeMounts": [{"volume": "none", "mountPath": "/data"}]},
        "container.volume_mounts[0].volume",
        "INVALID_CONTAINER",
        words='"none"',
    ),
    _container(
        "two mounts at one path",
        {
            **_ONE_DIRECTORY,
            "volumeMounts": [{"volume": "a", "mountPath": "/data"}, {"volume": "a", "mountPath": "/data"}],
        },
        "container.volume_mounts[1]",
        "INVALID_CONTAINER",
    ),
    _container(
        "environment from a secret that is not there",
        {
            "env": [
                {"name": "A", "valueFrom": "ENV_VALUE_FROM_SECRET", "sourceName": "none", "sourceKey": "k"}
            ]
        },
        "container.env[0].source_name",
        "INVALID_CONTAINER",
        words='"none"',
    ),
    Case(
        "quota of cpu",
        "CreateContainer",
        _creating(_TIGHT, resources={"cpuRequest": "1500m"}),
        code="RESOURCE_EXHAUSTED",
        reason="QUOTA_EXCEEDED",
        words='quota of namespace "tight" exceeded: cpu ',
    ),
    Case(
        "negative quota",
        "UpdateNamespace",
        {
            "name": OWN,
            "namespace": {"resourceQuota": {"containers": -1}},
            "updateMask": "resourceQuota",
        },
        field="namespace.resource_quota.containers",
    ),
    Case(
        "update of an unknown field",
        "UpdateContainer",
        _update({"image": "nginx:1.28"}, "imagine"),
        reason="INVALID_UPDATE_MASK",
        field="update_mask",
        words='"imagine"',
    ),
    Case(
        "update to a bad image",
        "UpdateContainer",
        _update({"image": "a b"}, "image"),
        field="container.image",
    ),
    Case(
        "update of what somebody else changed",
        "UpdateContainer",
        _update({"image": "nginx:1.28", "etag": "b2xk"}, "image"),
        code="ABORTED",
        reason="ETAG_MISMATCH",
        words="etag",
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tried(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    """Yields one environment for all tests, because these calls do not change it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with (
            new_database(postgres, template_database.name) as database,
            quiet_environment(database, tmp_path_factory.mktemp("server"), monkeypatch) as environment,
        ):
            await environment.must("CreateContainer", {"namespace": OWN, "container": _WEB})
            await environment.must(
                "CreateNamespace", {"namespace": {"name": _TIGHT, "resourceQuota": {"cpu": "1"}}}
            )
            yield environment


async def _refused(environment: Environment, case: Case, caller: Caller | None = None) -> list[str]:
    """Makes a call that must be refused; returns the deviations from the case."""
    async with environment.sql() as sql:
        leaving_out = RECORDS | case.beside
        before = await contents(sql, leaving_out)
        outcome = await environment.call(case.method, case.fields, caller)
        after = await contents(sql, leaving_out)
        operation_id = str(outcome.trailing[OPERATION_KEY])
        await number_changes(sql)
        records = await sql.fetch(
            "SELECT error_code FROM operation_logs WHERE operation_id = $1::text::uuid", operation_id
        )
    bad_request = outcome.detail(error_details_pb2.BadRequest)
    fields = [] if bad_request is None else [each.field for each in bad_request.field_violations]
    good: Mapping[str, bool] = {
        f"code {outcome.code}": outcome.code == case.code,
        f"reason {outcome.reason}": outcome.reason == case.reason,
        f"fields {fields}": fields == ([case.field] if case.field else []),
        f"message {outcome.message!r}": (
            case.words in outcome.message and outcome.message.startswith(case.field and f"{case.field}: ")
        ),
        f"records {records}": [record["error_code"] for record in records] == [case.code],
        **{f"{table} has changed": after[table] == digest for table, digest in before.items()},
    }
    return [fault for fault, right in good.items() if not right]


@pytest.mark.parametrize("case", _CASES, ids=[case.what for case in _CASES])
async def test_bad_input_is_refused_and_leaves_nothing(tried: Environment, case: Case) -> None:
    assert await _refused(tried, case) == []


@pytest.mark.parametrize("mask", [None, ""], ids=["left out", "empty"])
async def test_an_update_that_names_no_field_is_refused_for_every_noun(
    tried: Environment, mask: str | None
) -> None:
    updates = [rule.name for rule in tried.rules.values() if "updateMask" in REQUESTS[rule.name]]
    assert len(updates) >= 8
    for method in updates:
        fields = {name: value for name, value in REQUESTS[method].items() if name != "updateMask"}
        case = Case(
            method,
            method,
            fields if mask is None else {**fields, "updateMask": mask},
            reason="REQUIRED",
            field="update_mask",
        )
        assert await _refused(tried, case) == [], method


async def test_an_expired_token_is_refused_and_leaves_nothing(tried: Environment) -> None:
    caller = await tried.log_in("admin")
    async with tried.sql() as sql:
        await sql.execute(
            "UPDATE sessions SET access_expires_at = now() - interval '1 second' "
            "WHERE created_at = (SELECT max(created_at) FROM sessions)"
        )
    case = Case(
        "expired token",
        "CreateContainer",
        _creating(OWN),
        code="UNAUTHENTICATED",
        reason="INVALID_TOKEN",
        words="token",
    )
    assert await _refused(tried, case, caller) == []


async def test_a_call_that_leaves_changes_is_found(tried: Environment) -> None:
    """The control: a call that succeeds is not one of these refusals."""
    good = Case("nothing bad", "CreateContainer", _creating(OWN, name="good"))
    faults = await _refused(tried, good)
    assert {"code OK", "containers has changed", "reconcile_work has changed"} <= set(faults)
