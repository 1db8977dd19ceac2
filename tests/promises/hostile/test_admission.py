"""Promise 13: a caller that occupies or requests all it can delays no others.

The effect on others counts from the moment at which thousands of calls begin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Database, connection
from tests.promises.hostile.attacker import attacking
from tests.promises.hostile.environment import Environment
from tests.promises.hostile.environment import environment as made_environment
from tests.promises.hostile.holding_attacks import SAMPLES, SAMPLES_SECONDS, all_usage

_ATTACKS = "tests.promises.hostile.holding_attacks"
_FAULTS_MODULE = "tests.promises.hostile.admission_faults"
_HELD, _QUERIES, _MEASURED = 2_100, 40, 50
pytestmark = pytest.mark.soak(part="hostile")


def holding(made: Environment, kind: str, count: int, **order: Any) -> Any:
    """Starts an attack of `count` concurrent calls, begun again when they end."""
    return attacking(_ATTACKS, "held", address=made.address, count=count, options={"kind": kind}, **order)


@pytest.mark.parametrize("kind", ["watches of health", "reflections", "log-ins without a request"])
async def test_anonymous_callers_that_occupy_all_they_can_delay_no_others(
    environment: Environment, kind: str
) -> None:
    verdict = await environment.attacked(lambda: holding(environment, kind, _HELD))
    assert verdict.faults() == []
    assert all(report["begun"] >= _HELD for report in verdict.reports), verdict.reports


@pytest.mark.parametrize(
    ("kind", "count"),
    [("calls without a request", _HELD), ("watches", _HELD), ("wide pages", 20), ("large requests", 32)],
)
async def test_a_user_that_occupies_all_it_can_delays_no_others(
    environment: Environment, kind: str, count: int
) -> None:
    # A caller who may not create containers is refused before the request is parsed.
    role = "developer" if kind == "large requests" else "viewer"
    token = await environment.user("attacker", role, "own-1")
    is_of_a_moment = kind == "watches"
    verdict = await environment.attacked(
        lambda: holding(environment, kind, count, token=token, namespace="own-1"),
        # Opening watches costs much more than keeping them open, and takes only a moment. Each window has few
        # calls in that time.
        pairs=5 if is_of_a_moment else 3,
        warm=is_of_a_moment,
    )
    # Each call of a user is recorded singly, however many there are.
    assert [fault for fault in verdict.faults() if not fault.startswith("the log")] == []
    assert all(report["begun"] >= count for report in verdict.reports), verdict.reports


async def beside_queries_of_usage(environment: Environment, *, pairs: int = 3) -> list[str]:
    """Returns the faults of bystanders while a user queries all usage.

    The user makes forty queries of 40,000 points each.
    """
    await environment.populate("measured", _MEASURED)
    async with connection(environment.database.admin_dsn) as sql:
        await sql.execute(
            "INSERT INTO container_resource_usage"
            " (container_id, namespace_id, timestamp, cpu_cores_used, memory_bytes_used)"
            " SELECT containers.id, namespace_id, now() - make_interval(secs => number * $1::integer), 0.5, number"
            " FROM containers JOIN namespaces ON namespaces.id = namespace_id, generate_series(1, $2) AS number"
            " WHERE namespaces.name = 'measured'",
            SAMPLES_SECONDS,
            SAMPLES,
        )
        await sql.execute("ANALYZE container_resource_usage")
    asked = {field.name: value for field, value in all_usage("measured").ListFields()}
    points = [len(series.points) async for series in environment.admin.metrics.query_usage(**asked)]
    # The oldest samples are earlier than the first point by the time that this test has taken.
    assert min(points) > SAMPLES - 60, points
    assert len(points) == _MEASURED
    token = await environment.user("attacker", "viewer", "measured")
    verdict = await environment.attacked(
        lambda: holding(environment, "queries of usage", _QUERIES, token=token, namespace="measured"),
        pairs=pairs,
    )
    assert all(report["begun"] >= _QUERIES for report in verdict.reports), verdict.reports
    return [fault for fault in verdict.faults() if not fault.startswith("the log")]


async def test_queries_of_all_usage_delay_no_others(environment: Environment) -> None:
    assert await beside_queries_of_usage(environment) == []


async def test_one_limit_for_all_calls_is_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} one_number_for_all"
    ) as made:
        verdict = await made.attacked(lambda: holding(made, "watches of health", _HELD), pairs=1)
    assert any("RESOURCE_EXHAUSTED" in fault for fault in verdict.faults()), verdict.faults()
    assert any(fault.startswith("health failed") for fault in verdict.faults()), verdict.faults()


async def test_concurrent_wide_pages_are_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} wide_pages_side_by_side"
    ) as made:
        token = await made.user("attacker", "viewer", "own-1")
        verdict = await made.attacked(
            lambda: holding(made, "wide pages", 100, token=token, namespace="own-1"), pairs=3
        )
    assert any(fault.startswith("the p99 rose") for fault in verdict.faults()), verdict.ratios


async def test_concurrent_queries_of_usage_are_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} wide_pages_side_by_side"
    ) as made:
        faults = await beside_queries_of_usage(made, pairs=1)
    assert any(fault.startswith("the p99 rose") for fault in faults), faults


async def test_concurrent_large_requests_are_found(database: Database, tmp_path: Path) -> None:
    async with made_environment(
        database, tmp_path, injected_fault=f"{_FAULTS_MODULE} large_requests_side_by_side"
    ) as made:
        token = await made.user("attacker", "developer", "own-1")
        verdict = await made.attacked(
            lambda: holding(made, "large requests", 32, token=token, namespace="own-1"), pairs=1
        )
    assert any(fault.startswith("the p99 rose") for fault in verdict.faults()), verdict.ratios
