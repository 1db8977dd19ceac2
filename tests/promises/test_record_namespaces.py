"""A call that names a namespace has its record in that namespace's log.

This also holds if the call is refused, fails or has only begun. Callers who do not reach the namespace are the
exception: they see their own records, which must not reveal that the namespace exists.
"""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.promises.calling import Caller
from tests.promises.environment import FOREIGN, Environment
from tests.promises.requests import OWN, request_for, workload
from tests.waiting import poll_until

# A role that makes a namespace reachable and allows little more.
SMALL = {"name": "small", "permissions": ["metrics.query"]}


@pytest.fixture
def environment(shared_environment: Environment) -> Environment:
    """Returns the environment of this file, in which each test has its own user."""
    return shared_environment


async def placed(environment: Environment, username: str) -> dict[str, set[str | None]]:
    """Returns the namespaces of a user's records by method; None means no namespace."""
    async with environment.sql() as sql:
        rows = await sql.fetch(
            "SELECT o.request_path, n.name FROM operation_logs AS o LEFT JOIN namespaces AS n ON n.id = o.namespace_id "
            "WHERE o.username = $1 AND o.resource_type <> 'session'",
            username,
        )
    found: dict[str, set[str | None]] = {}
    for row in rows:
        found.setdefault(row["request_path"], set()).add(row["name"])
    return found


async def refused_everywhere(environment: Environment, caller: Caller, namespace: str) -> set[str]:
    """Calls every method that takes its namespace from the request.

    Returns the methods that were refused.
    """
    methods = set()
    for rule in environment.rules.values():
        if rule.shape.startswith("unary") and rule.namespace_field == "namespace":
            outcome = await caller.invoke(rule, request_for(rule, {"namespace": namespace}))
            if outcome.code in ("PERMISSION_DENIED", "NOT_FOUND"):
                methods.add(rule.method)
    return methods


async def test_denials_are_recorded_in_the_named_namespace(environment: Environment) -> None:
    await environment.must("CreateRole", {"role": SMALL})
    somebody = await environment.make_user("somebody", {OWN: "small"})
    denied = await refused_everywhere(environment, somebody, OWN)
    assert len(denied) > 30

    async def all_placed() -> bool:
        found = await placed(environment, "somebody")
        return {method for method, names in found.items() if names == {OWN}} >= denied

    await poll_until(all_placed)


async def test_replays_are_recorded_in_the_named_namespace(environment: Environment) -> None:
    container = {"namespace": OWN, "requestId": str(uuid4()), "container": workload("again")}
    stop = {"namespace": OWN, "requestId": str(uuid4()), "name": "again"}
    somebody = await environment.make_user("developer", {OWN: "developer"})
    for method, request in (("CreateContainer", container), ("StopContainer", stop)):
        for _ in range(2):
            await environment.must(method, request, somebody)
    async with environment.sql() as sql:
        places = await sql.fetch(
            "SELECT n.name FROM operation_logs AS o LEFT JOIN namespaces AS n ON n.id = o.namespace_id "
            "WHERE o.username = 'developer' AND o.metadata ? 'replayed'"
        )
    assert [place["name"] for place in places] == [OWN, OWN]


async def test_own_records_do_not_reveal_a_namespace_out_of_reach(environment: Environment) -> None:
    stranger = await environment.make_user("outsider", {OWN: "viewer"})
    refused = await refused_everywhere(environment, stranger, FOREIGN)
    assert len(refused) > 30

    async def recorded() -> bool:
        return (await placed(environment, "outsider")).keys() >= refused

    await poll_until(recorded)
    found = await placed(environment, "outsider")
    assert {name for method in refused for name in found[method]} == {None}


async def test_failures_of_an_administrator_are_recorded_in_the_namespace(environment: Environment) -> None:
    missing = {"namespace": OWN, "name": "nothing"}
    for name in ("GetContainer", "DeleteVolume", "RevealSecret"):
        rule = environment.rule(name)
        outcome = await environment.admin.invoke(rule, request_for(rule, missing))
        assert outcome.code == "NOT_FOUND", name
        async with environment.sql() as sql:
            place = await sql.fetchval(
                "SELECT n.name FROM operation_logs AS o JOIN namespaces AS n ON n.id = o.namespace_id "
                "WHERE o.request_path = $1 AND o.error_code = 'NOT_FOUND'",
                rule.method,
            )
        assert place == OWN, name


async def test_a_record_stores_the_name_of_its_namespace(environment: Environment) -> None:
    """Every record must store the name of its namespace.

    With the id alone, the name would be unknown once the namespace is forgotten.
    """
    for rule in environment.rules.values():
        if rule.shape.startswith("unary") and rule.name not in ("DeleteNamespace", "ForgetNamespace"):
            await environment.admin.invoke(rule, environment.request(rule))
    nameless = (
        "SELECT DISTINCT o.request_path, o.action, n.name FROM operation_logs AS o "
        "JOIN namespaces AS n ON n.id = o.namespace_id WHERE o.metadata ->> 'namespace' IS DISTINCT FROM n.name"
    )
    named = "SELECT count(DISTINCT o.request_path) FROM operation_logs AS o WHERE o.metadata ? 'namespace'"
    async with environment.sql() as sql:
        assert await sql.fetchval(named) > 30
        assert [tuple(row) for row in await sql.fetch(nameless)] == []
