"""A call that names a namespace stands in that namespace's log, also when it is refused, fails or has only begun.

But for callers who do not reach the namespace: they see their own records, which must not tell them that it exists.
"""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.promises.calling import Caller
from tests.promises.requests import OWN, request_for, workload
from tests.promises.world import FOREIGN, World
from tests.waiting import poll_until

# A role that lets its holders reach a namespace, and hardly more.
SMALL = {"name": "small", "permissions": ["metrics.query"]}


@pytest.fixture
def world(shared_world: World) -> World:
    """The world of this file: each test has a user of its own."""
    return shared_world


async def placed(world: World, username: str) -> dict[str, set[str | None]]:
    """Method -> the namespaces that the records of a user stand in; None is none."""
    async with world.sql() as sql:
        rows = await sql.fetch(
            "SELECT o.request_path, n.name FROM operation_logs AS o LEFT JOIN namespaces AS n ON n.id = o.namespace_id "
            "WHERE o.username = $1 AND o.resource_type <> 'session'",
            username,
        )
    found: dict[str, set[str | None]] = {}
    for row in rows:
        found.setdefault(row["request_path"], set()).add(row["name"])
    return found


async def refused_everywhere(world: World, caller: Caller, namespace: str) -> set[str]:
    """Calls every method that takes its namespace from the request; the methods that were refused."""
    methods = set()
    for rule in world.rules.values():
        if rule.shape.startswith("unary") and rule.namespace_field == "namespace":
            outcome = await caller.invoke(rule, request_for(rule, {"namespace": namespace}))
            if outcome.code in ("PERMISSION_DENIED", "NOT_FOUND"):
                methods.add(rule.method)
    return methods


async def test_denials_stand_in_the_namespace_that_is_named(world: World) -> None:
    await world.must("CreateRole", {"role": SMALL})
    somebody = await world.make_user("somebody", {OWN: "small"})
    denied = await refused_everywhere(world, somebody, OWN)
    assert len(denied) > 30

    async def all_placed() -> bool:
        found = await placed(world, "somebody")
        return {method for method, names in found.items() if names == {OWN}} >= denied

    await poll_until(all_placed)


async def test_replays_stand_in_it_too(world: World) -> None:
    container = {"namespace": OWN, "requestId": str(uuid4()), "container": workload("again")}
    stop = {"namespace": OWN, "requestId": str(uuid4()), "name": "again"}
    somebody = await world.make_user("developer", {OWN: "developer"})
    for method, request in (("CreateContainer", container), ("StopContainer", stop)):
        for _ in range(2):
            await world.must(method, request, somebody)
    async with world.sql() as sql:
        places = await sql.fetch(
            "SELECT n.name FROM operation_logs AS o LEFT JOIN namespaces AS n ON n.id = o.namespace_id "
            "WHERE o.username = 'developer' AND o.metadata ? 'replayed'"
        )
    assert [place["name"] for place in places] == [OWN, OWN]


async def test_what_is_not_reached_is_not_told_by_ones_own_records(world: World) -> None:
    stranger = await world.make_user("outsider", {OWN: "viewer"})
    refused = await refused_everywhere(world, stranger, FOREIGN)
    assert len(refused) > 30

    async def recorded() -> bool:
        return (await placed(world, "outsider")).keys() >= refused

    await poll_until(recorded)
    found = await placed(world, "outsider")
    assert {name for method in refused for name in found[method]} == {None}


async def test_failures_of_who_reaches_all_namespaces_stand_there_too(world: World) -> None:
    missing = {"namespace": OWN, "name": "nothing"}
    for name in ("GetContainer", "DeleteVolume", "RevealSecret"):
        rule = world.rule(name)
        outcome = await world.admin.invoke(rule, request_for(rule, missing))
        assert outcome.code == "NOT_FOUND", name
        async with world.sql() as sql:
            place = await sql.fetchval(
                "SELECT n.name FROM operation_logs AS o JOIN namespaces AS n ON n.id = o.namespace_id "
                "WHERE o.request_path = $1 AND o.error_code = 'NOT_FOUND'",
                rule.method,
            )
        assert place == OWN, name


async def test_a_record_names_its_namespace_as_it_was(world: World) -> None:
    """By the id alone the record's namespace would be unknown once the namespace is forgotten."""
    for rule in world.rules.values():
        if rule.shape.startswith("unary") and rule.name not in ("DeleteNamespace", "ForgetNamespace"):
            await world.admin.invoke(rule, world.request(rule))
    nameless = (
        "SELECT DISTINCT o.request_path, o.action, n.name FROM operation_logs AS o "
        "JOIN namespaces AS n ON n.id = o.namespace_id WHERE o.metadata ->> 'namespace' IS DISTINCT FROM n.name"
    )
    named = "SELECT count(DISTINCT o.request_path) FROM operation_logs AS o WHERE o.metadata ? 'namespace'"
    async with world.sql() as sql:
        assert await sql.fetchval(named) > 30
        assert [tuple(row) for row in await sql.fetch(nameless)] == []
