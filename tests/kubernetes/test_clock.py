"""Times that a cluster wrote are compared with its clock, which may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pilothouse_server.containers.model import Observed
from pilothouse_server.containers.observation import observe
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import NAMESPACES
from pilothouse_server.kubernetes.pod_observation import observe_pod
from pilothouse_server.kubernetes.transport import clock_ahead
from pilothouse_simulator import SimulatedCluster
from tests.kubernetes import recorded
from tests.kubernetes.containers import container
from tests.kubernetes.test_observation import deployment
from tests.virtual_time import virtual_time

NOW = datetime(2026, 11, 24, 14, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Tue, 24 Nov 2026 14:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 15:00:00 GMT", 3600.0),
        ("Tue, 24 Nov 2026 13:00:00 GMT", -3600.0),
        ("Tue, 24 Nov 2026 14:00:00 -0000", 0.0),
    ],
)
def test_the_date_of_a_response_gives_the_clock_difference(date: str, ahead: float) -> None:
    assert clock_ahead(date, NOW) == timedelta(seconds=ahead)


@pytest.mark.parametrize(
    "date",
    [
        "",
        "soon",
        "Tue, 99 Nov 2026 14:00:00 GMT",
        "\x00",
        "Fri, 31 Dec 9999 23:59:59 -1200",
    ],
)
def test_an_invalid_date_gives_no_clock_difference(date: str) -> None:
    assert clock_ahead(date, NOW) is None


@virtual_time
async def test_a_client_uses_the_clusters_clock() -> None:
    async with SimulatedCluster(nodes=1, ahead_seconds=-3600.0) as cluster:
        client = await ClusterClient.from_kubeconfig(cluster.kubeconfig(), name="behind")
        try:
            await client.get(NAMESPACES, None, "default")
            assert abs(client.now() - cluster.clock.now()) < timedelta(seconds=5)
        finally:
            await client.close()


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_a_crash_loop_settles_by_the_clusters_clock(ahead: float) -> None:
    looping = container(observed=Observed(status="crash_loop_back_off", reason="CrashLoopBackOff"))
    pods = recorded.pods("05-pod-crashloop")
    up = next(
        pod for pod in pods if (pod_seen := observe_pod(pod, "main")).restart_count == 2 and pod_seen.ready
    )
    started = observe_pod(up, "main").started_at
    assert started is not None
    for after, status in ((4.0, "crash_loop_back_off"), (11.0, "running")):
        there = started + timedelta(seconds=after)
        here = there - timedelta(seconds=ahead)
        seen = observe(looping, deployment(), (), [up], now=here, cluster_now=there)
        assert seen.observed.status == status
