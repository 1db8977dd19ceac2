"""Jobs: as recorded, and by their documented rules."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.controllers.jobs_counting import format_indexes, parse_indexes
from pilothouse_simulator.values.resources import JOBS, NAMESPACES, PODS
from pilothouse_simulator.values.selectors import build_predicate
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import change, condition, container, exists, job, poll_cluster, stored
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_SUCCESS, _FAILURE = "20-job-success", "21-job-failure-and-backoff"
# A script that the simulated programs do not support.
_LOOP = "trap exit TERM; i=0; while [ $i -lt 6 ]; do sleep 1; i=$((i+1)); done"
_TRAP, _SUSPENSION = "22-job-suspend-resume", "22b-job-suspend-resume"


async def _learn_pod(run: Replay) -> None:
    """Learns the name of the pod that the recording deletes, which no earlier response has shown."""
    pods = run.cluster.store.list(PODS, "rec-job2")
    names = [pod["metadata"]["name"] for pod in pods]
    run.substitutions.learn("replace-8ptsx", next(name for name in names if name.startswith("replace-")))


def _options(*, skipped: Iterable[int] = (2,), **fields: Any) -> Options:
    """Returns options that skip the watch of events, because the number of repeated events varies."""
    return Options(
        varying=NODE_VALUES,
        skip=frozenset(skipped),
        read_deadline_seconds=0.5,
        stream_deadline_seconds=0.5,
        **fields,
    )


@virtual_time
async def test_jobs_that_succeed_are_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _SUCCESS, _options(skipped={2, 14}, racing=frozenset({4, 5})))
    check(_SUCCESS, differences)


@virtual_time
async def test_a_succeeding_a_failing_and_a_suspended_job_are_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, "05-job", _options(skipped=()))
    check("05-job", differences)


@virtual_time
async def test_jobs_that_fail_are_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _FAILURE, _options(after={14: _learn_pod}))
    check(_FAILURE, differences)


@virtual_time
async def test_an_apply_that_drops_the_templates_metadata_is_refused_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _TRAP, _options())
    check(_TRAP, differences)


@virtual_time
async def test_a_job_that_is_suspended_and_resumed_is_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _SUSPENSION, _options(names={_LOOP: "trap exit TERM; sleep 6"}))
    check(_SUSPENSION, differences)


_INDEXED: JsonObject = {"completionMode": "Indexed", "completions": 3, "parallelism": 3}
_ONE_FAILS = 'if [ "$JOB_COMPLETION_INDEX" = 1 ]; then exit 3; else exit 0; fi'


def _status(cluster: SimulatedCluster, name: str = "work") -> JsonObject:
    status: JsonObject = stored(cluster, JOBS, name)["status"]
    return status


def _ended(cluster: SimulatedCluster, kind: str, name: str = "work") -> bool:
    return condition(stored(cluster, JOBS, name), kind).get("status") == "True"


@virtual_time
async def test_an_index_is_retried_up_to_its_own_limit() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        body = job("work", container(script=_ONE_FAILS), **_INDEXED, backoffLimitPerIndex=1)
        cluster.store.create(JOBS, body)
        await poll_cluster(cluster, lambda: _ended(cluster, "Failed"))
        status = _status(cluster)
        assert condition(stored(cluster, JOBS, "work"), "Failed")["reason"] == "FailedIndexes"
        assert (status["failedIndexes"], status["completedIndexes"], status["failed"]) == ("1", "0,2", 2)
        counts = {
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"]
            for pod in cluster.store.list(PODS)
            if pod["status"]["phase"] == "Failed"
        }
        assert counts == {"0", "1"}


@pytest.mark.parametrize(
    ("rule", "spec", "reason", "failed"),
    [
        ("FailIndex", {**_INDEXED, "backoffLimitPerIndex": 5}, "FailedIndexes", 1),
        (
            "FailIndex",
            {**_INDEXED, "backoffLimitPerIndex": 5, "maxFailedIndexes": 0},
            "MaxFailedIndexesExceeded",
            1,
        ),
        ("FailJob", {"backoffLimit": 5}, "PodFailurePolicy", 1),
        ("Count", {"backoffLimit": 1}, "BackoffLimitExceeded", 2),
    ],
)
@virtual_time
async def test_a_rule_for_an_exit_code_ends_a_job(
    rule: str, spec: JsonObject, reason: str, failed: int
) -> None:
    codes = {"operator": "In", "values": [3]}
    policy = {"rules": [{"action": rule, "onExitCodes": codes}]}
    script = _ONE_FAILS if "completionMode" in spec else "exit 3"
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(JOBS, job("work", container(script=script), podFailurePolicy=policy, **spec))
        await poll_cluster(cluster, lambda: _ended(cluster, "Failed"))
        assert condition(stored(cluster, JOBS, "work"), "Failed")["reason"] == reason
        assert condition(stored(cluster, JOBS, "work"), "FailureTarget")["reason"] == reason
        assert _status(cluster)["failed"] == failed


@virtual_time
async def test_an_ignored_failure_does_not_count() -> None:
    codes = {"operator": "NotIn", "values": [9]}
    policy = {"rules": [{"action": "Ignore", "onExitCodes": codes}]}
    async with SimulatedCluster(speed=40) as cluster:
        body = job("work", container(script="exit 3"), backoffLimit=0, podFailurePolicy=policy)
        cluster.store.create(JOBS, body)
        await poll_cluster(cluster, lambda: len(cluster.store.list(PODS)) == 2)
        assert "failed" not in _status(cluster)
        assert "conditions" not in _status(cluster)


@virtual_time
async def test_pods_removed_by_lower_parallelism_are_not_counted() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(JOBS, job("work", completions=4, parallelism=4))
        await poll_cluster(cluster, lambda: _status(cluster).get("ready") == 4)
        change(cluster, JOBS, "work", parallelism=1)
        await poll_cluster(cluster, lambda: len(cluster.store.list(PODS)) == 1)
        status = _status(cluster)
        assert (status["active"], status["terminating"], status.get("failed")) == (1, 0, None)


@virtual_time
async def test_a_job_completes_although_its_sidecar_still_runs() -> None:
    sidecar = container("proxy", restartPolicy="Always")
    async with SimulatedCluster(speed=20) as cluster:
        body = job("work", container(script="sleep 1"))
        body["spec"]["template"]["spec"]["initContainers"] = [sidecar]
        cluster.store.create(JOBS, body)
        await poll_cluster(cluster, lambda: _ended(cluster, "Complete"))


@virtual_time
async def test_a_job_of_another_controller_is_ignored() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(JOBS, job("theirs", managedBy="example.com/queue"))
        cluster.store.create(JOBS, job("work", container(script="exit 0")))
        await poll_cluster(cluster, lambda: _ended(cluster, "Complete"))
        assert _status(cluster, "theirs") == {}


@virtual_time
async def test_a_namespace_with_running_jobs_can_be_deleted() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(NAMESPACES, {"metadata": {"name": "going"}})
        body = job("work", completions=2, parallelism=2)
        body["metadata"]["namespace"] = "going"
        cluster.store.create(JOBS, body)
        await poll_cluster(cluster, lambda: len(cluster.store.list(PODS, "going")) == 2)
        cluster.store.delete(NAMESPACES, None, "going")
        await poll_cluster(cluster, lambda: not exists(cluster, NAMESPACES, "going"))


@virtual_time
async def test_a_job_continues_after_a_restart_and_counts_each_pod_once(tmp_path: Path) -> None:
    path = tmp_path / "state"
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        body = job("work", container(script="sleep 2"), completions=6, parallelism=2)
        cluster.store.create(JOBS, body)
        await poll_cluster(cluster, lambda: _status(cluster).get("succeeded", 0) >= 2)
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        await poll_cluster(cluster, lambda: _ended(cluster, "Complete"))
        assert _status(cluster)["succeeded"] == len(cluster.store.list(PODS)) == 6
        successful = build_predicate(JOBS, "", "status.successful=6")
        assert successful is not None
        assert successful(stored(cluster, JOBS, "work"))


@pytest.mark.parametrize(
    ("indexes", "text"),
    [([], ""), ([3], "3"), ([0, 1], "0,1"), ([0, 1, 2, 4, 6, 7, 8, 9], "0-2,4,6-9"), ([5, 7, 8], "5,7,8")],
)
def test_indexes_are_written_as_ranges(indexes: list[int], text: str) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text) == set(indexes)
