"""Jobs: as recorded, and by the rules they promise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pilothouse_simulator.values.resources import PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_SUCCESS, _FAILURE = "20-job-success", "21-job-failure-and-backoff"
# A script that the simulated programs do not understand.
_LOOP = "trap exit TERM; i=0; while [ $i -lt 6 ]; do sleep 1; i=$((i+1)); done"
_TRAP, _SUSPENSION = "22-job-suspend-resume", "22b-job-suspend-resume"


async def _learn_pod(run: Replay) -> None:
    """The name of the pod that the recording deletes, which no answer before has shown."""
    pods = run.cluster.store.list(PODS, "rec-job2")
    names = [pod["metadata"]["name"] for pod in pods]
    run.substitutions.learn("replace-8ptsx", next(name for name in names if name.startswith("replace-")))


def _options(*, skipped: Iterable[int] = (2,), **fields: Any) -> Options:
    """Without the watch of events: how often a busy kubelet says the same is no rule."""
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
