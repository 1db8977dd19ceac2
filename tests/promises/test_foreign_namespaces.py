"""A namespace whose Kubernetes namespace is somebody's is read-only for every call, found by reflection."""

from __future__ import annotations

import json

import pytest

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc.method_rules import Rule
from tests.promises.calling import Caller
from tests.promises.requests import OWN
from tests.promises.world import World

# Methods that name a namespace, change something, and touch none of the namespace's objects on its cluster.
OF_THE_PLATFORM = {"UpdateNamespace", "DeleteNamespace", "GrantRole", "RevokeRole"}
# Methods of a namespace without its name in their request: samples name their own, and touch no cluster.
WITHOUT_NAMESPACE = {"RecordUsage"}


async def taken(world: World, reason: str) -> Caller:
    """Has the reconciler have found that the namespace is somebody's; a caller who has just logged in."""
    condition = {"type": "Applied", "status": "False", "reason": reason}
    words = "it exists and is not managed"
    async with world.sql() as sql:
        await sql.execute(
            "UPDATE namespaces SET conditions = $1::jsonb, message = $2 WHERE name = $3",
            json.dumps([condition]),
            words,
            OWN,
        )
    return await world.log_in("admin")


def acting(world: World) -> list[Rule]:
    """Every method that names a namespace and is no plain read, but for those of the platform."""
    return [
        rule
        for rule in world.rules.values()
        if rule.namespace_field
        and rule.audit != options.AUDIT_LEVEL_READ
        and rule.name not in OF_THE_PLATFORM
    ]


@pytest.mark.parametrize("reason", ["NameTaken", "LabelLost"])
async def test_nothing_is_done_in_it(full_world: World, reason: str) -> None:
    caller = await taken(full_world, reason)
    rules = acting(full_world)
    assert {
        *("ImportContainers", "ImportServices", "AttachVolume", "DetachVolume"),
        *("Exec", "StreamLogs", "RevealSecret"),
    } <= {rule.name for rule in rules}
    done = []
    for rule in rules:
        outcome = await caller.invoke(rule, full_world.request(rule))
        if (outcome.code, outcome.reason) != ("FAILED_PRECONDITION", "NAMESPACE_NOT_OURS"):
            done.append((rule.name, outcome.code, outcome.message))
        else:
            assert outcome.message == f'namespace "{OWN}" is read-only: it exists and is not managed'
    assert done == []
    # It is read as ever, and others' namespaces are as they were.
    for rule in full_world.rules.values():
        if rule.namespace_field and rule.audit == options.AUDIT_LEVEL_READ and rule.shape == "unary_unary":
            assert (await caller.invoke(rule, full_world.request(rule))).code == "OK", rule.name


async def test_what_is_the_platforms_own_is_done_all_the_same(full_world: World) -> None:
    caller = await taken(full_world, "NameTaken")
    for name in ("GrantRole", "RevokeRole", "UpdateNamespace", "DeleteNamespace"):
        outcome = await caller.invoke(full_world.rule(name), full_world.request(full_world.rule(name)))
        assert outcome.code == "OK", (name, outcome.message)


async def test_no_method_changes_a_namespace_without_naming_it(world: World) -> None:
    """The rule depends on it: a method with its namespace in another field would be left out."""
    left_out = {
        rule.name
        for rule in world.rules.values()
        if not rule.namespace_field
        and rule.audit != options.AUDIT_LEVEL_READ
        and rule.access == options.ACCESS_PERMISSION
        and rule.scope != options.SCOPE_PLATFORM
    }
    assert left_out <= WITHOUT_NAMESPACE


@pytest.mark.full
async def test_without_the_rule_each_would_go_on(full_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control."""
    monkeypatch.setattr(Rule, "acts_in_namespace", False)
    caller = await taken(full_world, "NameTaken")
    rule = full_world.rule("CreateContainer")
    assert (await caller.invoke(rule, full_world.request(rule))).code == "OK"
    rule = full_world.rule("RevealSecret")
    assert (await caller.invoke(rule, full_world.request(rule))).code == "OK"
