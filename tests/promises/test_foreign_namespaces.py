"""A namespace is read-only if others manage its Kubernetes namespace.

The test finds every call by reflection.
"""

from __future__ import annotations

import json

import pytest

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc.method_rules import Rule
from tests.promises.calling import Caller
from tests.promises.environment import Environment
from tests.promises.requests import OWN

# Methods that name a namespace, change something, and change none of the namespace's objects on its cluster.
OF_THE_PLATFORM = {"UpdateNamespace", "DeleteNamespace", "GrantRole", "RevokeRole"}
# Methods without a namespace in their request: each sample names its own. They change nothing on a cluster.
WITHOUT_NAMESPACE = {"RecordUsage"}


async def taken(environment: Environment, reason: str) -> Caller:
    """Stores the reconciler's finding that the namespace is managed by others.

    Returns a caller that has just logged in.
    """
    condition = {"type": "Applied", "status": "False", "reason": reason}
    words = "it exists and is not managed"
    async with environment.sql() as sql:
        await sql.execute(
            "UPDATE namespaces SET conditions = $1::jsonb, message = $2 WHERE name = $3",
            json.dumps([condition]),
            words,
            OWN,
        )
    return await environment.log_in("admin")


def acting(environment: Environment) -> list[Rule]:
    """Returns every method that acts in a namespace.

    A method that only reads or is of the platform does not count.
    """
    return [
        rule
        for rule in environment.rules.values()
        if rule.namespace_field
        and rule.audit != options.AUDIT_LEVEL_READ
        and rule.name not in OF_THE_PLATFORM
    ]


@pytest.mark.parametrize("reason", ["NameTaken", "LabelLost"])
async def test_no_method_acts_in_a_foreign_namespace(full_environment: Environment, reason: str) -> None:
    caller = await taken(full_environment, reason)
    rules = acting(full_environment)
    assert {
        *("ImportContainers", "ImportServices", "AttachVolume", "DetachVolume"),
        *("Exec", "StreamLogs", "RevealSecret"),
    } <= {rule.name for rule in rules}
    done = []
    for rule in rules:
        outcome = await caller.invoke(rule, full_environment.request(rule))
        if (outcome.code, outcome.reason) != ("FAILED_PRECONDITION", "NAMESPACE_NOT_OURS"):
            done.append((rule.name, outcome.code, outcome.message))
        else:
            assert outcome.message == f'namespace "{OWN}" is read-only: it exists and is not managed'
    assert done == []
    # The namespace can still be read.
    for rule in full_environment.rules.values():
        if rule.namespace_field and rule.audit == options.AUDIT_LEVEL_READ and rule.shape == "unary_unary":
            assert (await caller.invoke(rule, full_environment.request(rule))).code == "OK", rule.name


async def test_methods_of_the_platform_still_work(full_environment: Environment) -> None:
    caller = await taken(full_environment, "NameTaken")
    for name in ("GrantRole", "RevokeRole", "UpdateNamespace", "DeleteNamespace"):
        outcome = await caller.invoke(
            full_environment.rule(name), full_environment.request(full_environment.rule(name))
        )
        assert outcome.code == "OK", (name, outcome.message)


async def test_no_method_changes_a_namespace_without_naming_it(environment: Environment) -> None:
    """Checks the conditions that the rule depends on.

    The rule would not cover a method that has its namespace in another field.
    """
    left_out = {
        rule.name
        for rule in environment.rules.values()
        if not rule.namespace_field
        and rule.audit != options.AUDIT_LEVEL_READ
        and rule.access == options.ACCESS_PERMISSION
        and rule.scope != options.SCOPE_PLATFORM
    }
    assert left_out <= WITHOUT_NAMESPACE


@pytest.mark.full
async def test_without_the_rule_methods_act_in_a_foreign_namespace(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control."""
    monkeypatch.setattr(Rule, "acts_in_namespace", False)
    caller = await taken(full_environment, "NameTaken")
    rule = full_environment.rule("CreateContainer")
    assert (await caller.invoke(rule, full_environment.request(rule))).code == "OK"
    rule = full_environment.rule("RevealSecret")
    assert (await caller.invoke(rule, full_environment.request(rule))).code == "OK"
