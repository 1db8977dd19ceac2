"""No hot loop: pauses grow and are bounded, and a `Retry-After` of the API server is obeyed."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    LABEL_LOST,
    NAME_TAKEN,
    ClusterError,
    Conflict,
    Forbidden,
    InternalError,
    Invalid,
    Refused,
    StorageStalled,
    Throttled,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, NAMESPACES, KubernetesObject
from pilothouse_server.reconcile.observe.health import HealthSettings
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.observe.sweep import SweepSettings
from pilothouse_server.reconcile.queue.backoff import (
    REFUSED_FIRST_SECONDS,
    REFUSED_MOST_SECONDS,
    TRANSIENT_FIRST_SECONDS,
    TRANSIENT_MOST_SECONDS,
    after_error,
)
from pilothouse_server.runtime.backoff import backoff_seconds
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_simulator import SimulatedCluster
from tests.reconcile.environment import QUICK, Environment
from tests.virtual_time import pass_time, virtual_time
from tests.waiting import Stopwatch, poll_until

ATTEMPTS = some.integers(min_value=1, max_value=10**9)
TRANSIENT = some.sampled_from((Unreachable("x"), StorageStalled("x"), InternalError("x"), Unauthorized("x")))
REFUSALS = some.sampled_from((Invalid("x", code=422), TooLarge("x", code=413), Forbidden("x", code=403)))


@given(ATTEMPTS, some.floats(0.01, 10.0), some.floats(10.0, 1000.0))
def test_a_pause_is_between_half_and_all_of_the_doubled_time(
    attempts: int, first: float, most: float
) -> None:
    pause = backoff_seconds(attempts, first, most)
    full = min(most, first * 2.0 ** min(attempts - 1, 64))
    assert full / 2 <= pause <= full


@given(ATTEMPTS, TRANSIENT)
def test_a_transient_error_is_retried_soon_but_never_hot(attempts: int, error: ClusterError) -> None:
    assert TRANSIENT_FIRST_SECONDS / 2 <= after_error(error, attempts) <= TRANSIENT_MOST_SECONDS


@given(ATTEMPTS, REFUSALS)
def test_a_refusal_is_retried_less_often(attempts: int, error: ClusterError) -> None:
    assert REFUSED_FIRST_SECONDS / 2 <= after_error(error, attempts) <= REFUSED_MOST_SECONDS


@given(ATTEMPTS)
def test_a_name_conflict_is_checked_twice_a_minute(attempts: int) -> None:
    """No event reports that it was resolved."""
    assert after_error(Conflict("x", status_reason=NAME_TAKEN), attempts) <= 30.0
    assert after_error(Refused("x", code=409, status_reason=LABEL_LOST), attempts) <= 30.0


@given(ATTEMPTS, some.floats(0.001, 300.0))
def test_a_pause_is_at_least_the_retry_after_of_the_server(attempts: int, seconds: float) -> None:
    assert after_error(Throttled("later", retry_after_seconds=seconds), attempts) >= seconds


@given(TRANSIENT, some.integers(1, 40))
def test_pauses_grow_up_to_their_limit(error: ClusterError, attempts: int) -> None:
    if TRANSIENT_FIRST_SECONDS * 2.0**attempts <= TRANSIENT_MOST_SECONDS:
        # The shortest pause of a step equals the longest of the step before.
        assert after_error(error, attempts + 1) >= after_error(error, attempts)
    else:
        assert after_error(error, attempts + 1) >= TRANSIENT_MOST_SECONDS / 2


@virtual_time
async def test_no_request_is_sent_before_the_retry_after_has_passed() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        client = await ClusterClient.from_kubeconfig(cluster.kubeconfig(), name="busy")
        now = asyncio.get_running_loop().time
        asked: list[float] = []
        cluster.faults.on_request = lambda method, path: asked.append(now())
        informer: Informer[KubernetesObject] = Informer(
            client, CONFIG_MAPS, "", lambda old, new: None, lambda error: None, namespace="default"
        )
        cluster.faults.retry_after_seconds, cluster.faults.error_code = 20, 429
        cluster.faults.error_rate = 1.0
        following = asyncio.create_task(informer.run())
        try:
            for _ in range(100):
                # Other requests of this server and of its callers wait, too.
                with pytest.raises(Throttled) as refused:
                    await client.get(NAMESPACES, None, "default")
                assert 0 < refused.value.retry_after_seconds <= 20
                await pass_time(1.0)
            gaps = [later - earlier for earlier, later in pairwise(asked)]
            # In each of six rounds, two concurrent requests may both have been sent.
            assert len(asked) <= 12
            assert all(gap < 0.5 or gap >= 20 for gap in gaps), gaps
            cluster.faults.clear()
            await pass_time(45.0)
            assert informer.synced.is_set()
            assert (await client.get(NAMESPACES, None, "default")).metadata.name == "default"
        finally:
            await cancel_and_wait(following)
            await client.close()


@pytest.mark.full
@pytest.mark.parametrize("code", [500, 503, 504, 403])
async def test_requests_are_few_while_the_cluster_fails(here: Environment, code: int) -> None:
    settings = msgspec.structs.replace(
        QUICK,
        health=HealthSettings(probe_seconds=1.0, answer_seconds=2.0),
        sweep=SweepSettings(period_seconds=60.0, grace_seconds=0.5),
        usage_period_seconds=60.0,
    )
    async with here.reconciling(settings):
        await here.namespace()
        for number in range(5):
            await here.create(f"web-{number}")
        for number in range(5):
            await here.running(f"web-{number}")
        asked: Counter[str] = Counter()
        refusing = Stopwatch()
        here.cluster.faults.on_request = lambda method, path: asked.update([f"{method} {path}"])
        here.cluster.faults.error_code, here.cluster.faults.error_rate = code, 1.0
        here.cluster.faults.drop_watches()
        for number in range(5):
            await here.update(f"web-{number}", image="nginx:1.28")

        async def attempts() -> int:
            rows = await here.rows("SELECT attempts FROM reconcile_work WHERE resource_type = 'container'")
            return int(min(row["attempts"] for row in rows))

        await poll_until(attempts, lambda least: least >= 3, seconds=60.0)
        took = refusing.passed()
        # The first request is immediate; then at most one in each half second of the shortest pause.
        assert max(asked.values()) <= 2 + 4 * took, asked
        assert sum(asked.values()) <= 25 * (1 + took), asked
        here.cluster.faults.clear()
        for number in range(5):
            await here.running(f"web-{number}")
