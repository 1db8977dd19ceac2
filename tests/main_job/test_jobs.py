"""Containers that are Jobs, and their runs, from the call to the cluster."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_client.errors import InvalidArgumentError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.waiting import poll_until

BEHAVIOR = "simulate.pilothouse.dev/behavior"
SUCCEEDED, FAILED = pb.CONTAINER_STATUS_SUCCEEDED, pb.CONTAINER_STATUS_FAILED


def job(
    name: str, *, behavior: str = "exit:0", settings: pb.JobSettings | None = None, **fields: Any
) -> pb.Container:
    return pb.Container(
        name=name,
        image="busybox:1.37",
        annotations={BEHAVIOR: behavior},
        job=settings or pb.JobSettings(backoff_limit=0),
        **fields,
    )


@pytest.fixture(scope="module")
async def demo(shared_server: Server) -> Server:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="jobs"))
    return shared_server


async def until(server: Server, name: str, status: int) -> pb.Container:
    async def reached() -> bool:
        found = await server.admin.containers.get(namespace="jobs", name=name)
        return found.status == status and not found.reconciling

    await poll_until(reached)
    return await server.admin.containers.get(namespace="jobs", name=name)


async def runs(server: Server, name: str) -> list[pb.Run]:
    return [run async for run in server.admin.containers.list_runs(namespace="jobs", name=name)]


def jobs_of(server: Server, name: str) -> dict[str, Any]:
    assert server.cluster is not None
    found = server.cluster.store.list(resources.JOBS, "jobs")
    return {each["metadata"]["name"]: each for each in found if each["metadata"]["name"].startswith(name)}


async def test_a_job_succeeds_and_runs_again(demo: Server) -> None:
    containers = demo.admin.containers
    await containers.create(namespace="jobs", container=job("once"))
    first = await until(demo, "once", SUCCEEDED)
    assert (first.kubernetes_name, first.reason) == ("once", "CompletionsReached")
    [run] = await runs(demo, "once")
    assert (run.number, run.name, run.status) == (1, "once", SUCCEEDED)
    assert [run.HasField(name) for name in ("start_time", "end_time", "exit_code")] == [True, True, False]
    for call in (containers.stop, containers.pause, containers.start, containers.resume):
        with pytest.raises(PilothouseError, match="its newest run has ended"):
            await call(namespace="jobs", name="once")
    answer = await containers.run(namespace="jobs", name="once")
    assert (answer.run.number, answer.run.name, answer.container.kubernetes_name) == (2, "once-2", "once-2")
    assert answer.container.status == pb.CONTAINER_STATUS_PENDING
    second = await until(demo, "once", SUCCEEDED)
    assert second.kubernetes_name == "once-2"
    assert [run.name for run in await runs(demo, "once")] == ["once-2", "once"]
    assert set(jobs_of(demo, "once")) == {"once", "once-2"}


async def test_the_usage_of_a_run_is_limited_to_its_time(demo: Server) -> None:
    await demo.admin.containers.create(namespace="jobs", container=job("measured"))
    await until(demo, "measured", SUCCEEDED)
    [run] = await runs(demo, "measured")
    metrics, samples = demo.admin.metrics, []
    # The cluster's time runs ahead of the server's, which accepts samples of the next minutes only.
    async with demo.database.system() as sql:
        began = datetime.now(UTC) - timedelta(minutes=1)
        await sql.execute(
            "UPDATE container_runs SET start_time = $1, end_time = $2 WHERE name = 'measured'",
            began,
            began + timedelta(seconds=30),
        )
    for at, cores in ((began, 0.5), (began - timedelta(minutes=2), 4.0)):
        sample = metrics_pb2.UsageSample(namespace="jobs", container="measured", cpu_cores_used=cores)
        sample.timestamp.FromDatetime(at)
        samples.append(sample)
    recorded = await metrics.record_usage([metrics_pb2.RecordUsageRequest(samples=samples)])
    assert recorded.accepted_count == 2
    named: dict[str, Any] = {"namespace": "jobs", "container": "measured"}
    [series] = [each async for each in metrics.query_usage(**named, run=1)]
    assert [point.cpu_cores_max for point in series.points] == [0.5]
    [whole] = [each async for each in metrics.query_usage(**named)]
    assert 4.0 in {point.cpu_cores_max for point in whole.points}
    with pytest.raises(PilothouseError, match='run "2" not found'):
        [each async for each in metrics.query_usage(**named, run=2)]
    for fields in ({"namespace": "jobs"}, {**named, "end_time": run.end_time}):
        with pytest.raises(InvalidArgumentError, match=r"run: (needs|must not be given with start_time)"):
            [each async for each in metrics.query_usage(**fields, run=1)]


async def test_a_failed_job_reports_its_pod_and_exit_code(demo: Server) -> None:
    await demo.admin.containers.create(namespace="jobs", container=job("broken", behavior="exit:42"))
    found = await until(demo, "broken", FAILED)
    assert found.reason == "BackoffLimitExceeded"

    async def message() -> str:
        return (await demo.admin.containers.get(namespace="jobs", name="broken")).message

    # The Job may have failed before its pod shows the exit code.
    await poll_until(message, lambda seen: bool(re.search("pod broken-[a-z0-9]+: .*exit code 42", seen)))
    [run] = await runs(demo, "broken")
    assert (run.status, run.reason, run.exit_code) == (FAILED, "BackoffLimitExceeded", 42)


async def test_a_job_is_suspended_by_stop_and_pause(demo: Server) -> None:
    containers = demo.admin.containers
    await containers.create(namespace="jobs", container=job("worker", behavior="run"))
    await until(demo, "worker", pb.CONTAINER_STATUS_RUNNING)
    with pytest.raises(PilothouseError, match="no rollout to hold"):
        await containers.pause(namespace="jobs", name="worker", mode=pb.PAUSE_MODE_HOLD_ROLLOUT)
    with pytest.raises(PilothouseError, match="has not ended"):
        await containers.run(namespace="jobs", name="worker")
    for away, back, status in (
        (containers.stop, containers.start, pb.CONTAINER_STATUS_STOPPED),
        (containers.pause, containers.resume, pb.CONTAINER_STATUS_PAUSED),
    ):
        await away(namespace="jobs", name="worker")
        await until(demo, "worker", status)
        assert jobs_of(demo, "worker")["worker"]["spec"]["suspend"] is True
        await back(namespace="jobs", name="worker")
        await until(demo, "worker", pb.CONTAINER_STATUS_RUNNING)
        assert jobs_of(demo, "worker")["worker"]["spec"]["suspend"] is False


async def test_restart_replaces_a_run_that_has_not_ended(demo: Server) -> None:
    containers = demo.admin.containers
    await containers.create(namespace="jobs", container=job("again", behavior="run"))
    await until(demo, "again", pb.CONTAINER_STATUS_RUNNING)
    restarted = await containers.restart(namespace="jobs", name="again")
    assert restarted.kubernetes_name == "again-2"
    await until(demo, "again", pb.CONTAINER_STATUS_RUNNING)

    async def replaced() -> bool:
        return [run.reason for run in await runs(demo, "again")][1:] == ["Removed"]

    await poll_until(replaced)
    assert set(jobs_of(demo, "again")) == {"again-2"}


async def test_a_changed_job_runs_only_on_request(demo: Server) -> None:
    containers = demo.admin.containers
    await containers.create(namespace="jobs", container=job("changing", behavior="run"))
    await until(demo, "changing", pb.CONTAINER_STATUS_RUNNING)

    async def change(image: str, *, run: bool = False) -> pb.Container:
        return await containers.update(
            namespace="jobs",
            name="changing",
            container=pb.Container(image=image),
            update_mask=FieldMask(paths=["image"]),
            run=run,
        )

    await change("busybox:1.38")
    await until(demo, "changing", pb.CONTAINER_STATUS_RUNNING)
    [(name, found)] = jobs_of(demo, "changing").items()
    assert name == "changing"
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:1.37"
    with pytest.raises(PilothouseError, match="has not ended"):
        await change("busybox:1.39", run=True)
    await containers.stop(namespace="jobs", name="changing")
    await until(demo, "changing", pb.CONTAINER_STATUS_STOPPED)
    assert jobs_of(demo, "changing")["changing"]["spec"]["suspend"] is True
    await containers.start(namespace="jobs", name="changing")
    await containers.restart(namespace="jobs", name="changing")
    await until(demo, "changing", pb.CONTAINER_STATUS_RUNNING)
    found = jobs_of(demo, "changing")["changing-2"]
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:1.38"
    await containers.delete(namespace="jobs", name="changing")

    async def gone() -> bool:
        return not jobs_of(demo, "changing")

    await poll_until(gone)


async def test_a_rollback_reruns_a_job_only_on_request(demo: Server) -> None:
    containers = demo.admin.containers
    await containers.create(namespace="jobs", container=job("back"))
    await until(demo, "back", SUCCEEDED)
    mask = FieldMask(paths=["image"])
    newer = pb.Container(image="busybox:1.38")
    await containers.update(namespace="jobs", name="back", container=newer, update_mask=mask)
    answer = await containers.rollback(namespace="jobs", name="back")
    assert (answer.container.image, answer.container.status) == ("busybox:1.37", SUCCEEDED)
    await until(demo, "back", SUCCEEDED)
    assert [run.number for run in await runs(demo, "back")] == [1]
    answer = await containers.rollback(namespace="jobs", name="back", revision=2, rerun_jobs=True)
    assert (answer.container.image, answer.container.kubernetes_name) == ("busybox:1.38", "back-2")
    await until(demo, "back", SUCCEEDED)
    assert [run.number for run in await runs(demo, "back")] == [2, 1]
    found = jobs_of(demo, "back")["back-2"]
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:1.38"


async def test_a_job_deleted_by_its_ttl_is_not_made_again(demo: Server) -> None:
    settings = pb.JobSettings(ttl_seconds=0)
    await demo.admin.containers.create(namespace="jobs", container=job("fleeting", settings=settings))
    await until(demo, "fleeting", SUCCEEDED)

    async def gone() -> bool:
        return not jobs_of(demo, "fleeting")

    await poll_until(gone)
    found = await demo.admin.containers.update(
        namespace="jobs",
        name="fleeting",
        container=pb.Container(image="busybox:1.38"),
        update_mask=FieldMask(paths=["image"]),
    )
    found = await until(demo, "fleeting", SUCCEEDED)
    assert found.observed_generation == 2
    assert not jobs_of(demo, "fleeting")
    [run] = await runs(demo, "fleeting")
    assert (run.status, run.HasField("end_time")) == (SUCCEEDED, True)


async def test_settings_that_kubernetes_would_refuse_are_refused_by_field(demo: Server) -> None:
    for field, container in {
        "container.name": job("a" * 58),
        "container.job.completions": job("x", settings=pb.JobSettings(completion_mode="Indexed")),
        "container.job.restart_policy": job("x", settings=pb.JobSettings(restart_policy="Always")),
        "container.job.max_failed_indexes": job("x", settings=pb.JobSettings(max_failed_indexes=1)),
        "container.job.success_policy": job(
            "x", settings=pb.JobSettings(success_policy=[pb.SuccessRule(succeeded_count=1)])
        ),
        "container.job.pod_failure_policy[0]": job(
            "x", settings=pb.JobSettings(pod_failure_policy=[pb.PodFailureRule(action="Ignore")])
        ),
        "container.replicas": job("x", replicas=2),
        "container.runs_kept": pb.Container(name="x", image="a:1", runs_kept=3),
    }.items():
        with pytest.raises(PilothouseError) as refused:
            await demo.admin.containers.create(namespace="jobs", container=container)
        assert refused.value.metadata["field"] == field


async def test_each_setting_reaches_the_cluster_and_is_shown(demo: Server) -> None:
    settings = pb.JobSettings(
        completions=4,
        parallelism=2,
        completion_mode="Indexed",
        backoff_limit=3,
        backoff_limit_per_index=1,
        max_failed_indexes=2,
        active_deadline_seconds=600,
        ttl_seconds=900,
        restart_policy="Never",
        pod_replacement_policy="Failed",
        pod_failure_policy=[
            pb.PodFailureRule(action="FailIndex", program="main", operator="In", exit_codes=[3, 42]),
            pb.PodFailureRule(
                action="Ignore", pod_conditions=[pb.PodCondition(type="DisruptionTarget", status="True")]
            ),
        ],
        success_policy=[pb.SuccessRule(succeeded_indexes="0,2-3", succeeded_count=2)],
    )
    containers = demo.admin.containers
    await containers.create(
        namespace="jobs", container=job("indexed", behavior="run", settings=settings, runs_kept=2)
    )
    found = await until(demo, "indexed", pb.CONTAINER_STATUS_RUNNING)
    assert found.job == settings
    assert found.runs_kept == 2
    spec = jobs_of(demo, "indexed")["indexed"]["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    wanted = {
        "completions": 4,
        "parallelism": 2,
        "completionMode": "Indexed",
        "backoffLimit": 3,
        "backoffLimitPerIndex": 1,
        "maxFailedIndexes": 2,
        "activeDeadlineSeconds": 600,
        "ttlSecondsAfterFinished": 900,
        "podReplacementPolicy": "Failed",
        "successPolicy": {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 2}]},
    }
    assert {key: spec[key] for key in wanted} == wanted
    by_code, by_condition = spec["podFailurePolicy"]["rules"]
    assert by_code == {
        "action": "FailIndex",
        "onExitCodes": {"containerName": "main", "operator": "In", "values": [3, 42]},
    }
    assert by_condition["action"] == "Ignore"
    assert by_condition["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


async def test_excess_runs_are_deleted_with_their_jobs(demo: Server) -> None:
    await demo.admin.containers.create(namespace="jobs", container=job("pruned", runs_kept=2))
    await until(demo, "pruned", SUCCEEDED)
    for _ in range(3):
        await demo.admin.containers.run(namespace="jobs", name="pruned")
        await until(demo, "pruned", SUCCEEDED)

    async def there() -> tuple[list[int], set[str]]:
        """Returns the numbers of the runs, newest first, and the names of the Jobs."""
        return [run.number for run in await runs(demo, "pruned")], set(jobs_of(demo, "pruned"))

    await poll_until(there, lambda found: found == ([4, 3], {"pruned-3", "pruned-4"}))


async def test_a_job_counts_its_concurrent_pods_until_it_has_ended(demo: Server) -> None:
    quota = namespace_pb2.ResourceQuota(cpu="1")
    space = namespace_pb2.Namespace(name="job-quota", resource_quota=quota)
    await demo.admin.namespaces.create(namespace=space)
    containers = demo.admin.containers
    half = pb.Resources(cpu_request="500m")
    two = pb.JobSettings(parallelism=2, completions=4)

    async def used() -> str:
        return (await demo.admin.namespaces.get_quota_usage(name="job-quota")).used.cpu

    await containers.create(
        namespace="job-quota", container=job("two", behavior="run", settings=two, resources=half)
    )
    assert await used() == "1"
    with pytest.raises(PilothouseError) as refused:
        await containers.create(namespace="job-quota", container=job("more", resources=half))
    assert refused.value.reason == "QUOTA_EXCEEDED"
    await containers.delete(namespace="job-quota", name="two")
    await poll_until(used, "0".__eq__)
    await containers.create(namespace="job-quota", container=job("one", resources=half))
    await poll_until(used, "0".__eq__)
    await containers.create(
        namespace="job-quota", container=job("all", behavior="run", settings=two, resources=half)
    )
    with pytest.raises(PilothouseError) as refused:
        await containers.run(namespace="job-quota", name="one")
    assert refused.value.reason == "QUOTA_EXCEEDED"


async def test_a_dry_run_of_a_job_makes_and_starts_nothing(demo: Server) -> None:
    containers = demo.admin.containers
    made = await containers.create(namespace="jobs", container=job("tried"), validate_only=True)
    assert made.job.backoff_limit == 0
    await containers.create(namespace="jobs", container=job("tried"))
    await until(demo, "tried", SUCCEEDED)
    answer = await containers.run(namespace="jobs", name="tried", validate_only=True)
    assert answer.run.name == "tried-2"
    with pytest.raises(
        PilothouseError, match="Job jobs/tried-2 exists and does not belong to this container"
    ):
        await _with_taken_name(demo, "tried-2")
    assert (await containers.get(namespace="jobs", name="tried")).kubernetes_name == "tried"
    assert set(jobs_of(demo, "tried")) == {"tried", "tried-2"}


async def _with_taken_name(demo: Server, name: str) -> None:
    """Executes a dry run of a run whose Job name is taken."""
    assert demo.cluster is not None
    found = jobs_of(demo, "tried")["tried"]
    template = {"spec": found["spec"]["template"]["spec"]}
    demo.cluster.store.create(
        resources.JOBS, {"metadata": {"name": name, "namespace": "jobs"}, "spec": {"template": template}}
    )
    await demo.admin.containers.run(namespace="jobs", name="tried", validate_only=True)
