"""Containers that are CronJobs, and their runs, from the call to the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.waiting import poll_until

BEHAVIOR = "simulate.pilothouse.dev/behavior"
RUN_AT = "simulate.pilothouse.dev/run-at"
NAMESPACE = "cron-jobs"
RUNNING, STOPPED, PAUSED = (
    pb.CONTAINER_STATUS_RUNNING,
    pb.CONTAINER_STATUS_STOPPED,
    pb.CONTAINER_STATUS_PAUSED,
)
SUCCEEDED, FAILED = pb.CONTAINER_STATUS_SUCCEEDED, pb.CONTAINER_STATUS_FAILED


class Schedules:
    """CronJobs of one namespace, in the platform and on the cluster."""

    def __init__(self, server: Server) -> None:
        assert server.cluster is not None
        self.server, self.store, self.calls = server, server.cluster.store, server.admin.containers
        self._minutes = 0

    async def create(
        self, name: str, *, behavior: str = "exit:0", runs_kept: int | None = None, **settings: Any
    ) -> pb.Container:
        given = {"schedule": "0 2 1 1 *", "job": pb.JobSettings(backoff_limit=0), **settings}
        wanted = pb.Container(
            name=name,
            image="busybox:1.37",
            pod_annotations={BEHAVIOR: behavior},
            cron_job=pb.CronJobSettings(**given),
            runs_kept=runs_kept,
        )
        await self.calls.create(namespace=NAMESPACE, container=wanted)
        return await self.until(name, RUNNING)

    async def get(self, name: str) -> pb.Container:
        return await self.calls.get(namespace=NAMESPACE, name=name)

    async def until(self, name: str, status: int, reason: str | None = None) -> pb.Container:
        async def reached() -> pb.Container:
            return await self.get(name)

        return await poll_until(
            reached,
            lambda found: found.status == status and reason in (None, found.reason) and not found.reconciling,
        )

    async def runs(self, name: str) -> list[pb.Run]:
        return [run async for run in self.calls.list_runs(namespace=NAMESPACE, name=name)]

    async def until_runs(self, name: str, *statuses: int) -> list[pb.Run]:
        async def reached() -> list[pb.Run]:
            return await self.runs(name)

        return await poll_until(reached, lambda found: [run.status for run in found] == list(statuses))

    def live(self, name: str) -> dict[str, Any]:
        found = self.store.get(resources.CRON_JOBS, NAMESPACE, name)
        assert found is not None
        return found

    def jobs(self, name: str) -> dict[str, dict[str, Any]]:
        found = self.store.list(resources.JOBS, NAMESPACE)
        return {
            job["metadata"]["name"]: job for job in found if job["metadata"]["name"].startswith(f"{name}-")
        }

    async def tick(self, name: str) -> None:
        """Makes the cluster run it by its schedule; each call is a minute after the one before."""
        self._minutes += 1
        at = datetime.now(UTC) + timedelta(minutes=self._minutes)
        await Kubectl(self.server).ask(
            "PATCH",
            f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{name}",
            {"metadata": {"annotations": {RUN_AT: f"{at:%Y-%m-%dT%H:%M:%SZ}"}}},
            "merge-patch+json",
        )


@pytest.fixture(scope="module")
async def schedules(shared_server: Server) -> Schedules:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
    return Schedules(shared_server)


def condition(container: pb.Container, type_: str) -> tuple[int, str, str]:
    found = next(each for each in container.conditions if each.type == type_)
    return found.status, found.reason, found.message


async def test_a_cron_job_is_scheduled_and_records_its_runs(schedules: Schedules) -> None:
    found = await schedules.create("nightly", time_zone="Europe/Paris")
    assert (found.workload_kind, found.reason) == (pb.WORKLOAD_KIND_CRON_JOB, "Scheduled")
    year = datetime.now(UTC).year
    assert found.message in {f"next run at {each}-01-01T01:00:00Z" for each in (year, year + 1)}
    await schedules.tick("nightly")
    [run] = await schedules.until_runs("nightly", SUCCEEDED)
    assert run.number == 1
    assert run.name in schedules.jobs("nightly")
    assert run.HasField("start_time")
    assert run.HasField("end_time")
    found = await schedules.until("nightly", RUNNING, "Scheduled")
    status, reason, message = condition(found, "LastRun")
    assert (status, reason) == (1, "CompletionsReached")
    assert message.startswith(f"{run.name} ended at ")


async def test_a_requested_run_is_made_once_and_owned_by_the_cron_job(schedules: Schedules) -> None:
    await schedules.create("asked")
    answer = await schedules.calls.run(namespace=NAMESPACE, name="asked")
    assert (answer.run.name, answer.run.status) == ("asked-run-1", pb.CONTAINER_STATUS_PENDING)
    [run] = await schedules.until_runs("asked", SUCCEEDED)
    assert (run.name, run.number) == ("asked-run-1", 1)
    [job] = schedules.jobs("asked").values()
    [owner] = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("CronJob", "asked", True)
    assert job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    await schedules.calls.restart(namespace=NAMESPACE, name="asked")
    runs = await schedules.until_runs("asked", SUCCEEDED, SUCCEEDED)
    assert [(run.name, run.number) for run in runs] == [("asked-run-2", 2), ("asked-run-1", 1)]


async def test_runs_are_watched_and_a_watch_continues_after_its_token(schedules: Schedules) -> None:
    await schedules.create("watched", successful_history_limit=0)
    watch = schedules.calls.watch_runs
    seen: list[tuple[str, int, str]] = []
    token = ""
    for number in (1, 2):
        await schedules.calls.run(namespace=NAMESPACE, name="watched")
        async with watch(namespace=NAMESPACE, name="watched", resume_token=token) as changes:
            async for change in changes:
                run = change.resource
                if change.kind.name in ("ADDED", "MODIFIED", "DELETED"):
                    assert (run.namespace, run.container) == (NAMESPACE, "watched")
                    seen.append((change.kind.name, run.number, pb.ContainerStatus.Name(run.status)[17:]))
                token = change.resume_token or token
                if token and seen and seen[-1][1:] == (number, "SUCCEEDED"):
                    break
    # A short run may be observed only after it has ended.
    assert [each[1:] for each in seen if each[2] == "SUCCEEDED"] == [(1, "SUCCEEDED"), (2, "SUCCEEDED")]
    assert next(each[0] for each in seen if each[1] == 2) == "ADDED"
    await schedules.calls.delete(namespace=NAMESPACE, name="watched")
    async with watch(namespace=NAMESPACE, name="watched", resume_token=token) as changes:
        gone = [change.resource.number async for change in _until_both_are_gone(changes)]
    assert gone == [1, 2]


async def _until_both_are_gone(changes: Any) -> AsyncIterator[Any]:
    async for change in changes:
        if change.kind.name == "DELETED":
            yield change
            if change.resource.number == 2:
                return


async def test_stop_and_pause_suspend_the_schedule_and_runs_continue(schedules: Schedules) -> None:
    calls = schedules.calls
    await schedules.create("held", behavior="run")
    await schedules.tick("held")
    await schedules.until("held", RUNNING, "Active")
    with pytest.raises(PilothouseError, match="CronJob, which has no rollout to hold"):
        await calls.pause(namespace=NAMESPACE, name="held", mode=pb.PAUSE_MODE_HOLD_ROLLOUT)
    for away, back, status in ((calls.stop, calls.start, STOPPED), (calls.pause, calls.resume, PAUSED)):
        await away(namespace=NAMESPACE, name="held")
        found = await schedules.until("held", status, "Active")
        assert condition(found, "Scheduled")[:2] == (2, "SuspendedByCaller")
        assert schedules.live("held")["spec"]["suspend"] is True
        with pytest.raises(PilothouseError, match=f"it is {'stopped' if status == STOPPED else 'paused'}"):
            await calls.restart(namespace=NAMESPACE, name="held")
        await back(namespace=NAMESPACE, name="held")
        await schedules.until("held", RUNNING, "Active")
        assert schedules.live("held")["spec"]["suspend"] is False
    assert len(schedules.jobs("held")) == 1
    await calls.delete(namespace=NAMESPACE, name="held")

    async def gone() -> bool:
        return not schedules.jobs("held")

    await poll_until(gone)


async def test_a_stopped_cron_job_runs_on_request(schedules: Schedules) -> None:
    await schedules.create("by-hand")
    await schedules.calls.stop(namespace=NAMESPACE, name="by-hand")
    await schedules.until("by-hand", STOPPED, "")
    await schedules.calls.run(namespace=NAMESPACE, name="by-hand")
    await schedules.until_runs("by-hand", SUCCEEDED)
    await schedules.until("by-hand", STOPPED, "")
    assert schedules.live("by-hand")["spec"]["suspend"] is True


async def test_an_apply_keeps_a_run_that_is_active_while_stopped(schedules: Schedules) -> None:
    await schedules.create("applied", behavior="run")
    await schedules.calls.stop(namespace=NAMESPACE, name="applied")
    await schedules.calls.run(namespace=NAMESPACE, name="applied")
    await schedules.until("applied", STOPPED, "Active")
    changed = await schedules.calls.update(
        namespace=NAMESPACE,
        name="applied",
        container=pb.Container(drift_policy=pb.DRIFT_POLICY_REPORT),
        update_mask=FieldMask(paths=["drift_policy"]),
    )
    found = await schedules.until("applied", STOPPED)
    assert (found.generation, found.reason) == (changed.generation, "Active")


async def test_the_maximum_of_concurrent_runs_suspends_the_schedule(schedules: Schedules) -> None:
    await schedules.create("many", behavior="run", max_concurrent=2)
    for number in (1, 2):
        await schedules.tick("many")
        await schedules.until_runs("many", *[RUNNING] * number)

    async def suspended() -> bool:
        return bool(schedules.live("many")["spec"]["suspend"])

    await poll_until(suspended)
    found = await schedules.until("many", RUNNING, "Active")
    assert condition(found, "Scheduled")[:2] == (2, "ConcurrencyReached")
    with pytest.raises(PilothouseError, match="has 2 active runs, as many as it may have"):
        await schedules.calls.run(namespace=NAMESPACE, name="many")
    name = next(iter(schedules.jobs("many")))
    await Kubectl(schedules.server).ask("DELETE", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}")
    await poll_until(suspended, lambda there: not there)
    runs = await schedules.until_runs("many", RUNNING, FAILED)
    assert runs[1].reason == "Removed"


async def test_forbid_and_replace_apply_to_requested_runs(schedules: Schedules) -> None:
    await schedules.create("one", behavior="run", concurrency="Forbid")
    await schedules.calls.run(namespace=NAMESPACE, name="one")
    await schedules.until("one", RUNNING, "Active")

    async def suspended() -> bool:
        return bool(schedules.live("one")["spec"]["suspend"])

    await poll_until(suspended)
    with pytest.raises(PilothouseError, match="forbids concurrent runs"):
        await schedules.calls.run(namespace=NAMESPACE, name="one")
    await schedules.create("newest", behavior="run", concurrency="Replace")
    await schedules.tick("newest")
    await schedules.until("newest", RUNNING, "Active")
    await schedules.calls.run(namespace=NAMESPACE, name="newest")
    runs = await schedules.until_runs("newest", RUNNING, FAILED)
    assert (runs[0].name, runs[1].reason) == ("newest-run-1", "Removed")


async def test_runs_are_kept_when_the_cluster_has_deleted_their_jobs(schedules: Schedules) -> None:
    await schedules.create("kept", runs_kept=2, successful_history_limit=0, failed_history_limit=0)
    for number in range(1, 5):
        await schedules.tick("kept")

        async def written(number: int = number) -> bool:
            runs = await schedules.runs("kept")
            return [run.number for run in runs[:1]] == [number] and runs[0].HasField("end_time")

        await poll_until(written)
    runs = await schedules.runs("kept")
    assert [(run.number, run.status) for run in runs] == [(4, SUCCEEDED), (3, SUCCEEDED)]
    assert schedules.jobs("kept") == {}
    assert condition(await schedules.get("kept"), "LastRun")[2].startswith(runs[0].name)


async def test_a_failed_run_is_the_last_run_and_no_failure_of_the_schedule(schedules: Schedules) -> None:
    await schedules.create("broken", behavior="exit:42")
    await schedules.tick("broken")
    [run] = await schedules.until_runs("broken", FAILED)
    assert run.reason == "BackoffLimitExceeded"

    async def last() -> tuple[int | None, str]:
        """Reads the condition; the Job may be failed before its pod shows the exit code."""
        [run] = await schedules.runs("broken")
        status, reason, message = condition(await schedules.get("broken"), "LastRun")
        assert (status, reason) == (2, "BackoffLimitExceeded")
        return run.exit_code, message

    await poll_until(last, lambda seen: seen[0] == 42 and "exit code 42" in seen[1])
    await schedules.until("broken", RUNNING, "Scheduled")


async def test_changes_by_others_follow_the_drift_policy(schedules: Schedules) -> None:
    where = f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs"
    kubectl, theirs = Kubectl(schedules.server), {"spec": {"schedule": "5 5 * * *"}}
    for name, policy in (("mended", "REPAIR"), ("told", "REPORT"), ("adopted", "ADOPT")):
        await schedules.create(name)
        await schedules.calls.update(
            namespace=NAMESPACE,
            name=name,
            container=pb.Container(drift_policy=pb.DriftPolicy.Value(f"DRIFT_POLICY_{policy}")),
            update_mask=FieldMask(paths=["drift_policy"]),
        )
        await schedules.until(name, RUNNING)
        await kubectl.ask("PATCH", f"{where}/{name}", theirs, "merge-patch+json")

    async def drifted(name: str) -> str:
        return condition(await schedules.get(name), "Drifted")[1]

    for name, reason in (("mended", "Repaired"), ("told", "FieldManagerConflict"), ("adopted", "Adopted")):
        await poll_until(partial(drifted, name), reason.__eq__)
    written = [schedules.live(name)["spec"]["schedule"] for name in ("mended", "told", "adopted")]
    assert written == ["0 2 1 1 *", "5 5 * * *", "5 5 * * *"]
    assert (await schedules.get("adopted")).cron_job.schedule == "5 5 * * *"
    assert (await schedules.get("told")).cron_job.schedule == "0 2 1 1 *"


async def test_settings_that_kubernetes_would_refuse_are_refused_by_field(schedules: Schedules) -> None:
    for field, name, settings in (
        ("container.name", "a" * 53, {}),
        ("container.cron_job.schedule", "x", {"schedule": "0 0 * * 7"}),
        ("container.cron_job.schedule", "x", {"schedule": "TZ=UTC 0 0 * * *"}),
        ("container.cron_job.time_zone", "x", {"time_zone": "Mars/Olympus"}),
        ("container.cron_job.concurrency", "x", {"concurrency": "Sometimes"}),
        ("container.cron_job.max_concurrent", "x", {"concurrency": "Forbid", "max_concurrent": 2}),
        ("container.cron_job.job.restart_policy", "x", {"job": pb.JobSettings(restart_policy="Always")}),
    ):
        with pytest.raises(PilothouseError) as refused:
            await schedules.create(name, **settings)
        assert refused.value.metadata["field"] == field


async def test_each_setting_reaches_the_cluster_and_is_shown(schedules: Schedules) -> None:
    settings = pb.CronJobSettings(
        schedule="*/10 8-18 * * mon-fri",
        time_zone="Europe/Paris",
        concurrency="Forbid",
        starting_deadline_seconds=200,
        successful_history_limit=7,
        failed_history_limit=2,
        job_labels={"team": "data"},
        job_annotations={"note": "of each"},
        job=pb.JobSettings(
            parallelism=2, completions=2, backoff_limit=1, ttl_seconds=60, restart_policy="OnFailure"
        ),
    )
    wanted = pb.Container(name="whole", image="busybox:1.37", cron_job=settings)
    await schedules.calls.create(namespace=NAMESPACE, container=wanted)
    found = await schedules.until("whole", RUNNING)
    assert found.cron_job == settings
    spec = schedules.live("whole")["spec"]
    jobs = spec["jobTemplate"]
    assert {name: spec[name] for name in spec if name != "jobTemplate"} == {
        "schedule": "*/10 8-18 * * mon-fri",
        "timeZone": "Europe/Paris",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 200,
        "successfulJobsHistoryLimit": 7,
        "failedJobsHistoryLimit": 2,
        "suspend": False,
    }
    assert jobs["metadata"]["labels"]["team"] == "data"
    assert jobs["metadata"]["annotations"] == {"note": "of each"}
    assert {name: jobs["spec"][name] for name in jobs["spec"] if name != "template"} == {
        "parallelism": 2,
        "completions": 2,
        "backoffLimit": 1,
        "ttlSecondsAfterFinished": 60,
    }
    assert jobs["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
