"""Warning events of the cluster enter the history once, whichever server observes and however often they repeat."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from pilothouse_server.containers.model import ContainerSpec, Exec, Probe, Probes
from pilothouse_server.kubernetes.events import list_events
from pilothouse_server.reconcile.observe import explanations
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.values import resources
from tests.reconcile.environment import Environment
from tests.waiting import poll_until

BEHAVIOR = "simulate.pilothouse.dev/behavior"


async def lines(here: Environment, name: str, reason: str) -> int:
    found = await here.rows(
        "SELECT h.id FROM container_status_history AS h JOIN containers AS c ON c.id = h.container_id "
        "WHERE c.name = $1 AND h.reason = $2",
        name,
        reason,
    )
    return len(found)


async def recorded(here: Environment, name: str, reason: str) -> None:
    await poll_until(lambda: lines(here, name, reason), bool)


async def test_an_observer_that_takes_over_does_not_record_again(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create("first", annotations={BEHAVIOR: "unschedulable"})
        await recorded(here, "first", "FailedScheduling")
    async with here.reconciling():
        # Events are requested in the order of the troubles, so the second line proves that the first was requested.
        await here.create("second", annotations={BEHAVIOR: "unschedulable"})
        await recorded(here, "second", "FailedScheduling")
    assert await lines(here, "first", "FailedScheduling") == 1
    assert await lines(here, "second", "FailedScheduling") == 1


@pytest.mark.full
async def test_a_continuing_crash_loop_is_recorded_once(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create(annotations={BEHAVIOR: "crash-loop"})
        await recorded(here, "web", "BackOff")
        await here.until(lambda row: row.observed.restart_count >= 3)
    assert await lines(here, "web", "BackOff") == 1
    assert await lines(here, "web", "CrashLoopBackOff") == 1


@pytest.mark.full
async def test_a_missing_program_and_a_failed_liveness_probe_are_reported(here: Environment) -> None:
    dead = Probe(Exec(("false",)), period_seconds=1, failure_threshold=1)
    async with here.reconciling():
        await here.namespace()
        await here.create("absent", spec=ContainerSpec(command=("/nosuch",)))
        await here.create("dead", spec=ContainerSpec(probes=Probes(liveness=dead)))
        row = await here.until(lambda row: row.observed.restart_count >= 3, "absent")
        assert "no such file" in row.observed.message
        row = await here.until(lambda row: "Liveness probe failed" in row.observed.message, "dead")
        assert (row.observed.status, row.observed.reason) == ("crash_loop_back_off", "CrashLoopBackOff")
    history = await here.rows(
        "SELECT h.current_status FROM container_status_history AS h JOIN containers AS c ON c.id = h.container_id "
        "WHERE c.name = 'absent' AND h.previous_status IS DISTINCT FROM h.current_status ORDER BY h.id"
    )
    statuses = [line["current_status"] for line in history]
    assert statuses.count("crash_loop_back_off") == 1, statuses


async def test_an_evicted_pod_is_recorded_even_if_its_successor_runs_already(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create()
        pod = (await here.running()).observed.pod_name
        await here.end_pod(pod, "Evicted", "The node was low on resource: memory. ")
        await recorded(here, "web", "Evicted")
        row = await here.running()
        assert row.observed.pod_name != pod
    # Recorded once, whether the pod was seen before its successor existed (then by the status) or after.
    (line,) = await here.rows("SELECT message FROM container_status_history WHERE reason = 'Evicted'")
    assert "The node was low on resource: memory." in line["message"]


async def test_text_that_postgresql_cannot_store_blocks_no_observation(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create(annotations={BEHAVIOR: "readiness-failing"})
        row = await here.until(lambda row: bool(row.observed.pod_name))
        pod = here.cluster.store.get(resources.PODS, "shop", row.observed.pod_name)
        assert pod is not None
        # The kubelet repeats the program's output in its event.
        EventRecorder(here.cluster.store, here.cluster.clock).record(
            resources.PODS, pod, "FailedPostStartHook", "it said a\0b", component="kubelet", warning=True
        )
        await recorded(here, "web", "FailedPostStartHook")
        await here.create("other")
        await here.running("other")
    (line,) = await here.rows(
        "SELECT message FROM container_status_history WHERE reason = 'FailedPostStartHook'"
    )
    assert line["message"].endswith("it said a\ufffdb")


@pytest.mark.full
async def test_many_concurrent_event_requests_are_rate_limited(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    clock = began = monotonic()

    async def counted(*arguments: Any) -> Any:
        asked.append(clock)
        return await list_events(*arguments)

    async def recorded_in_time(name: str) -> bool:
        """Returns whether the line was recorded; each poll advances the clock."""
        nonlocal clock
        clock += 0.02
        return bool(await lines(here, name, "FailedScheduling"))

    monkeypatch.setattr(explanations, "list_events", counted)
    monkeypatch.setattr(explanations, "monotonic", lambda: clock)
    async with here.reconciling():
        await here.namespace()
        names = [f"web-{number}" for number in range(30)]
        for name in names:
            await here.create(name, annotations={BEHAVIOR: "unschedulable"})
        for name in names:
            await poll_until(lambda name=name: recorded_in_time(name))  # type: ignore[misc]
    # A burst of 20, then 5 a second.
    assert len(asked) >= 30
    for number, moment in enumerate(asked):
        assert number <= 20 + 5 * (moment - began)
