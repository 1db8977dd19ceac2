"""A user's repeated refusals beyond the first of a minute are summed.

No refusal is lost, and no other user's refusals are summed with them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pilothouse_server.rpc.interceptors import audit
from pilothouse_server.rpc.refusals import Refusals
from tests.conftest import Database, connection, number_changes
from tests.promises.environment import Environment, quiet_environment
from tests.promises.requests import OWN, request_for

CALLS = 50
_FIRST = audit._OF_A_USER.of_a_kind


async def refuse(environment: Environment) -> None:
    """Has one user denied again and again, and another user once for each method.

    The calls end with PERMISSION_DENIED, or with NOT_FOUND for a resource or namespace.
    """
    restless = await environment.make_user("restless", {OWN: "viewer"})
    other = await environment.make_user("other", {OWN: "viewer"})
    for name, code, fields in (
        ("DeleteContainer", "PERMISSION_DENIED", {"name": "web"}),
        ("GetContainer", "NOT_FOUND", {"name": "nothing"}),
        ("WatchContainers", "NOT_FOUND", {"namespace": "nowhere"}),
    ):
        rule = environment.rule(name)
        request = request_for(rule, {"namespace": OWN, **fields})
        outcomes = await asyncio.gather(*(restless.invoke(rule, request) for _ in range(CALLS)))
        assert {outcome.code for outcome in outcomes} == {code}
        assert (await other.invoke(rule, request)).code == code


async def told(dsn: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Returns the counts of single and summed refusals, by user and method."""
    async with connection(dsn) as sql:
        await number_changes(sql)
        rows: list[Any] = await sql.fetch(
            "SELECT username, request_path, count(*) FILTER (WHERE metadata ->> 'summed' IS NULL) AS singly, "
            "coalesce(sum((metadata ->> 'summed')::int), 0) AS summed, "
            "bool_and(started_at <= completed_at) AS in_order "
            "FROM operation_logs WHERE error_code IN ('PERMISSION_DENIED', 'NOT_FOUND') GROUP BY 1, 2"
        )
    assert all(row["in_order"] for row in rows)
    return {
        (row["username"], row["request_path"].rpartition("/")[2]): (row["singly"], row["summed"])
        for row in rows
    }


async def test_repeated_refusals_of_a_user_are_summed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("DeleteContainer", "GetContainer", "WatchContainers")
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        await refuse(environment)
        before = await told(database.admin_dsn)
    expected = {("restless", method): (_FIRST, 0) for method in methods}
    others = {("other", method): (1, 0) for method in methods}
    assert before == expected | others
    after = await told(database.admin_dsn)
    assert after == dict.fromkeys(expected, (_FIRST, CALLS - _FIRST)) | others
    async with connection(database.admin_dsn) as sql:
        namespace_ownership = await sql.fetch(
            "SELECT DISTINCT request_path, namespace_id IS NULL AS nowhere, metadata -> 'names' AS names "
            "FROM operation_logs WHERE metadata ? 'summed'"
        )
    # A sum belongs to the log of the namespace that was named, if the user reaches that namespace.
    assert {row["request_path"].rpartition("/")[2]: row["nowhere"] for row in namespace_ownership} == {
        "DeleteContainer": False,
        "GetContainer": False,
        "WatchContainers": True,
    }


@pytest.mark.full
async def test_refusals_that_are_all_recorded_singly_are_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the bound, all refusals are recorded singly."""
    monkeypatch.setattr(Refusals, "singly", lambda *_arguments: True)
    await refuse(environment)
    found = await told(environment.server.database.admin_dsn)
    assert found["restless", "GetContainer"] == (CALLS, 0)
