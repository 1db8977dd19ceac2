"""The first part of promise 16: records are readable and name the change.

Every hashed field of a record can be read by the API.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.method_rules import Rule
from tests.audit.canonical import canonical
from tests.promises.calling import Caller
from tests.promises.environment import Environment

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# The imports change several resources. ChangePassword shows nothing of the caller and changes no visible field.
# The record of ResolveOrphans names the objects that were decided about.
_APART = {"ImportContainers", "ImportServices", "ImportObjects", "ChangePassword", "ResolveOrphans"}
# These resource types have no uid, or their records name none.
_WITHOUT_UID = {
    "audit_log", "database", "encryption_key", "image", "operation", "permission", "role_grant", "session", "usage",
}  # fmt: skip


async def all_records(environment: Environment) -> Sequence[pb.Operation]:
    """Returns the whole log by the API, from its beginning."""
    async with environment.sql():
        return [each async for each in environment.server.admin.audit.list_operations(order_by="sequence")]


def unreadable(records: Sequence[pb.Operation]) -> list[str]:
    """Returns the faults of the records' sequence numbers and hashes.

    The records are those that the API shows.
    """
    faults: list[str] = []
    for number, record in enumerate(records, start=1):
        if record.sequence != number:
            faults.append(f"{number}: sequence {record.sequence}")
        digest = hashlib.sha256(canonical(record)).digest()
        if digest.hex() != record.record_hash:
            faults.append(f"{number}: hash of {record.request_path}")
    return faults


async def make_every_change(environment: Environment) -> dict[str, pb.Operation]:
    """Makes every mutation; returns the last record of each method."""
    for rule in sorted(environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
        if rule.mutates:
            outcome = await environment.caller_of(rule).invoke(rule, environment.request(rule))
            assert outcome.code == "OK", f"{rule.name}: {outcome.code} {outcome.message}"
    return {record.request_path: record for record in await all_records(environment)}


def unsaid(rules: Sequence[Rule], records: dict[str, pb.Operation]) -> list[str]:
    """Returns the facts that the records of mutations lack."""
    faults: list[str] = []
    for rule in rules:
        if not rule.mutates or rule.name in _APART:
            continue
        record = records[rule.method]
        if rule.action == "update" and not record.changes:
            faults.append(f"{rule.name}: no change")
        if rule.access == options.ACCESS_PERMISSION and not (record.granting_role and record.grant_id):
            faults.append(f"{rule.name}: no grant")
        if rule.resource_type not in _WITHOUT_UID and not record.resource_uid:
            faults.append(f"{rule.name}: no resource_uid")
    return faults


async def test_hashed_fields_are_readable_and_name_the_change(full_environment: Environment) -> None:
    for name in (
        "GetContainer",
        "GetVolume",
        "GetService",
        "GetSecret",
        "GetConfigMap",
        "GetNamespace",
        "GetUser",
    ):
        rule = full_environment.rule(name)
        assert (await full_environment.admin.invoke(rule, full_environment.request(rule))).code == "OK"
    records = await make_every_change(full_environment)
    everything = await all_records(full_environment)
    assert unreadable(everything) == []
    said = unsaid(list(full_environment.rules.values()), records)
    assert not said, "; ".join(said)
    gotten = [each for each in everything if each.action == "get" and each.error_code == ""]
    assert {each.resource_type for each in gotten if each.resource_uid} >= {
        "container", "volume", "service", "secret", "config_map", "namespace", "user",
    }  # fmt: skip
    # The checkers detect faults.
    everything[3].duration_ms += 1
    assert any("hash of" in fault for fault in unreadable(everything))
    del records[next(iter(records))]
    update = next(rule for rule in full_environment.rules.values() if rule.name == "UpdateUser")
    records[update.method].ClearField("changes")
    assert unsaid([update], records) == ["UpdateUser: no change"]


async def test_the_record_of_an_update_shows_the_old_and_new_values(shared_environment: Environment) -> None:
    await shared_environment.must(
        "CreateContainer", {"namespace": "own", "container": {"name": "web", "image": "nginx:1.27"}}
    )
    changed = {"name": "web", "labels": {"tier": "front"}, "replicas": 2, "resources": {"cpu_limit": "1"}}
    await shared_environment.must(
        "UpdateContainer",
        {"namespace": "own", "name": "web", "container": changed, "updateMask": "labels,replicas,resources"},
    )
    record = next(each for each in reversed(await all_records(shared_environment)) if each.action == "update")
    assert [(each.path, json.loads(each.before), json.loads(each.after)) for each in record.changes] == [
        ("generation", 1, 2),
        ("labels.tier", None, "front"),
        ("replicas", 1, 2),
        ("resources", None, {"cpu_limit": "1"}),
    ]
    assert record.granting_role == "admin"
    assert record.resource_uid


async def test_a_changed_secret_value_is_recorded(shared_environment: Environment) -> None:
    """Changes a secret's value to one of the same length.

    Responses show no value, and the same length leaves every size unchanged.
    """
    values = {"kept": "same", "gone": "old", "new": "old"}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    await shared_environment.must(
        "CreateSecret", {"namespace": "own", "secret": {"name": "keys", "data": encoded}}
    )

    async def changes(**update: Any) -> dict[str, tuple[str, str]]:
        await shared_environment.must("UpdateSecret", {"namespace": "own", "name": "keys", **update})
        record = next(
            each for each in reversed(await all_records(shared_environment)) if each.action == "update"
        )
        return {
            each.path: (each.before, each.after)
            for each in record.changes
            if not each.path.startswith(("generation", "key_sizes"))
        }

    said = '"[redacted]"'
    other = {"stringData": {"new": "two"}}
    assert await changes(secret=other, updateMask="stringData") == {"data.new": (said, said)}
    assert await changes(removeKeys=["gone"], setData={"more": encoded["gone"]}) == {
        "data.gone": (said, "null"),
        "data.more": ("null", said),
    }
    assert await changes(secret={"labels": {"a": "b"}}, updateMask="labels") == {"labels.a": ("null", '"b"')}


async def test_a_valid_trace_id_is_recorded_and_an_invalid_one_is_not(environment: Environment) -> None:
    rule = environment.rule("WhoAmI")
    for header in (f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", "rubbish"):
        caller = Caller(environment.admin.channel)
        caller.metadata = (*environment.admin.metadata, ("traceparent", header))
        await caller.invoke(rule, environment.request(rule))
    found = [each.trace_id for each in await all_records(environment) if each.request_path == rule.method]
    assert found == [TRACE, "", ""]


async def test_the_record_of_a_long_request_has_its_digest(shared_environment: Environment) -> None:
    rule = shared_environment.rule("CreateConfigMap")
    request = shared_environment.request(rule)
    request.config_map.data["large"] = "x" * 100_000
    outcome = await shared_environment.admin.invoke(rule, request)
    assert outcome.code == "OK", outcome.message
    record = next(each for each in await all_records(shared_environment) if each.request_path == rule.method)
    cut = json.loads(record.request_body_json)["[truncated]"]
    whole = request.SerializeToString(deterministic=True)
    assert cut == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}


@pytest.mark.parametrize("name", ["CreateSecret", "UpdateSecret"])
async def test_the_digest_of_a_body_does_not_depend_on_secret_values(
    full_environment: Environment, name: str
) -> None:
    rule = full_environment.rule(name)
    digests = set()
    for letter in b"ab":
        request = full_environment.request(rule)
        request.secret.data["key"] = bytes([letter]) * 100_000
        request.secret.annotations["note"] = "x" * 20_000
        digests.add(redaction.body(request)["[truncated]"]["sha256"])
    assert len(digests) == 1
