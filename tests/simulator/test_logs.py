"""Pod logs: every response and refusal as recorded, and the rules of following, tails and times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.logs import LogAnswer, LogRequest, read_log
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.resources import PODS
from tests.simulator.recorded_cluster import recorded_cluster
from tests.simulator.replay import Options, check, create, replay
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time
from tests.waiting import within

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_LOGS = "08a-logs"
# The recording does not show how its pods were created; these scripts print the same, at about the same times.
_TALK = """
sleep 0.4
for i in 0 1 2; do echo line $i; echo err $i >&2; sleep 0.5; done
echo err 3 >&2; echo line 3; sleep 0.5
for i in 4 5 6 7 8 9 10 11; do echo line $i; echo err $i >&2; sleep 0.5; done
sleep 2; echo 'no newline at the end'; echo 'ünïcode ✓'; sleep 1000
"""
_SCRIPTS: dict[str, list[tuple[str, str]]] = {
    "talk": [("main", _TALK)],
    "brief": [("main", "for i in 1 2 3; do echo $i; sleep 1; done")],
    "two": [("main", "echo one; sleep 1000"), ("second", "echo other; sleep 1000")],
    "crash": [("main", "echo attempt at 3713.02; echo boom; exit 1")],
}
# Skipped: the request names a second of the recording, and the response depends on which lines are in that second. A
# test below covers the case.
_TIMED = frozenset({10})


def _pod(name: str, containers: list[JsonObject], **spec: Any) -> JsonObject:
    for container in containers:
        container.setdefault("image", "busybox:1")
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def _script(name: str, text: str) -> JsonObject:
    return {"name": name, "command": ["sh", "-c", text]}


async def _make_recorded_pods(cluster: SimulatedCluster) -> None:
    path = "/api/v1/namespaces/rec-logs/pods"
    for name, scripts in _SCRIPTS.items():
        policy = "Never" if name == "brief" else "Always"
        containers = [_script(container, text) for container, text in scripts]
        body = _pod(name, containers, terminationGracePeriodSeconds=0, restartPolicy=policy)
        await create(cluster, path, body)
    await create(cluster, path, _pod("nopull", [{"name": "main", "image": "registry.invalid/nosuch:1"}]))
    huge = {"name": "main", "resources": {"requests": {"cpu": "1000"}}}
    await create(cluster, path, _pod("pending", [huge]))


@virtual_time
async def test_logs_are_as_recorded() -> None:
    async with recorded_cluster(8) as cluster:
        differences = await replay(cluster, _LOGS, Options(skip=_TIMED), prepare=_make_recorded_pods)
    check(_LOGS, differences)


async def _running(cluster: SimulatedCluster, name: str, text: str, **spec: Any) -> None:
    """Creates a pod with one scripted container and waits until the container has started."""
    cluster.store.create(PODS, {**_pod(name, [_script("main", text)], **spec), "metadata": {
        "name": name, "namespace": "default"}})  # fmt: skip
    await poll_cluster(cluster, lambda: _status(cluster, name).get("phase") in ("Running", "Succeeded"))


def _status(cluster: SimulatedCluster, name: str) -> JsonObject:
    pod = cluster.store.get(PODS, "default", name)
    return pod["status"] if pod is not None else {}


async def _chunks(answer: LogAnswer) -> list[str]:
    assert answer.chunks is not None, answer
    return [chunk.decode() async for chunk in answer.chunks]


async def _text(cluster: SimulatedCluster, name: str, **options: Any) -> str:
    return "".join(await _chunks(await read_log(cluster.kubelets, "default", name, LogRequest(**options))))


@virtual_time
async def test_following_sends_each_line_and_ends_after_the_container() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _running(cluster, "brief", "for i in 1 2 3; do echo $i; sleep 1; done", restartPolicy="Never")
        begun = cluster.clock.elapsed()
        answer = await read_log(cluster.kubelets, "default", "brief", LogRequest(follow=True))
        async with within(10):
            assert await _chunks(answer) == ["1\n", "2\n", "3\n"]
        assert cluster.clock.elapsed() - begun >= 3.0
        assert _status(cluster, "brief")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


@virtual_time
async def test_following_ends_when_the_pod_is_removed_by_force() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _running(cluster, "endless", "while true; do echo tick; sleep 1; done")
        answer = await read_log(cluster.kubelets, "default", "endless", LogRequest(follow=True))
        assert answer.chunks is not None
        assert await anext(answer.chunks) == b"tick\n"
        cluster.store.delete(PODS, "default", "endless", grace_period_seconds=0)
        async with within(10):
            rest = [chunk async for chunk in answer.chunks]
        assert set(rest) <= {b"tick\n"}


@virtual_time
async def test_timestamps_are_those_of_the_lines() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _running(cluster, "timed", "echo a; sleep 2; echo b; sleep 100")
        await poll_cluster(cluster, lambda: _status(cluster, "timed")["phase"] == "Running")
        await cluster.clock.sleep(3)
        lines = (await _text(cluster, "timed", timestamps=True)).splitlines()
        moments = [parse_time(line.split(" ")[0][:26] + "Z") for line in lines]
        assert [line.split(" ")[1] for line in lines] == ["a", "b"]
        assert timedelta(seconds=1.9) < moments[1] - moments[0] < timedelta(seconds=2.1)
        since = moments[1] - timedelta(seconds=1)
        assert await _text(cluster, "timed", since_time=since) == "b\n"
        assert await _text(cluster, "timed", since_seconds=3600) == "a\nb\n"


@virtual_time
async def test_a_restarted_container_keeps_the_log_of_its_previous_run() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _running(cluster, "again", "echo up; sleep 1; exit 1")
        await poll_cluster(
            cluster, lambda: _status(cluster, "again")["containerStatuses"][0]["restartCount"] == 1
        )
        assert await _text(cluster, "again", previous=True) == "up\n"


@pytest.mark.parametrize(
    ("tail", "limit", "expected"),
    [(None, None, "1\n2\n3\n"), (2, None, "2\n3\n"), (9, None, "1\n2\n3\n"), (0, None, ""), (None, 3, "1\n2"),
     (2, 1, "2")],
)  # fmt: skip
@virtual_time
async def test_a_log_is_limited_by_lines_and_by_bytes(
    tail: int | None, limit: int | None, expected: str
) -> None:
    async with SimulatedCluster(speed=20) as cluster:
        await _running(cluster, "three", "echo 1; echo 2; echo 3; sleep 100")
        assert await _text(cluster, "three", tail_lines=tail, limit_bytes=limit) == expected
