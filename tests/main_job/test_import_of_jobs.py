"""Existing Jobs and CronJobs are taken over without a new pod."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.waiting import poll_until

NAMESPACE = "old-jobs"
BEHAVIOR = "simulate.pilothouse.dev/behavior"
JOBS, CRON_JOBS = (f"/apis/batch/v1/namespaces/{NAMESPACE}/{kind}" for kind in ("jobs", "cronjobs"))
KINDS = [pb.WORKLOAD_KIND_JOB, pb.WORKLOAD_KIND_CRON_JOB]


def spec(behavior: str, **more: Any) -> dict[str, Any]:
    program = {"name": "work", "image": "busybox:1.37"}
    metadata = {"labels": {"app": "old"}, "annotations": {BEHAVIOR: behavior}}
    template = {"metadata": metadata, "spec": {"restartPolicy": "OnFailure", "containers": [program]}}
    return {"backoffLimit": 1, "template": template, **more}


@pytest.fixture(scope="module")
async def imported(shared_server: Server) -> dict[str, pb.ImportedContainer]:
    """Makes a namespace with Jobs and CronJobs, imports it, and returns the results by name."""
    assert shared_server.cluster is not None
    kubectl, store = Kubectl(shared_server), shared_server.cluster.store
    await kubectl.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for name, behavior in (("going", "run"), ("done", "exit:0")):
        await kubectl.ask("POST", JOBS, {"metadata": {"name": name}, "spec": spec(behavior)})
    run_at = {"simulate.pilothouse.dev/run-at": "2036-01-01T00:00:00Z"}
    schedule = {
        "schedule": "0 4 1 1 *",
        "timeZone": "Europe/Paris",
        "concurrencyPolicy": "Forbid",
        "jobTemplate": {"metadata": {"labels": {"kind": "backup"}}, "spec": spec("run", parallelism=2)},
    }
    metadata = {"name": "nightly", "annotations": run_at}
    await kubectl.ask("POST", CRON_JOBS, {"metadata": metadata, "spec": schedule})
    off = {**schedule, "suspend": True, "concurrencyPolicy": "Allow"}
    await kubectl.ask("POST", CRON_JOBS, {"metadata": {"name": "off"}, "spec": off})

    async def settled() -> bool:
        done = store.get(resources.JOBS, NAMESPACE, "done")
        assert done is not None
        ended = any(each["type"] == "Complete" for each in done["status"].get("conditions", ()))
        return ended and len(pods(shared_server)) == 4

    await poll_until(settled)
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE), adopt=True)
    before = pods(shared_server)
    answer = await shared_server.admin.containers.import_(namespace=NAMESPACE, kinds=KINDS)
    results = {each.deployment: each for each in answer.results}
    for name in results:

        async def applied(name: str = name) -> bool:
            found = await shared_server.admin.containers.get(namespace=NAMESPACE, name=name)
            status = pb.ContainerStatus.Name(found.status)
            return not found.reconciling and status != "CONTAINER_STATUS_PENDING"

        await poll_until(applied)
    assert pods(shared_server) == before
    return results


def pods(server: Server) -> set[str]:
    assert server.cluster is not None
    return {each["metadata"]["uid"] for each in server.cluster.store.list(resources.PODS, NAMESPACE)}


async def get(server: Server, name: str) -> pb.Container:
    return await server.admin.containers.get(namespace=NAMESPACE, name=name)


async def test_all_workloads_except_runs_of_a_cron_job_are_taken_over(
    shared_server: Server, imported: dict[str, pb.ImportedContainer]
) -> None:
    assert {name: list(each.problems) for name, each in imported.items()} == {
        "done": [],
        "going": [],
        "nightly": [],
        "off": [],
    }
    assert {name: each.container.drift_policy for name, each in imported.items()} == dict.fromkeys(
        imported, pb.DRIFT_POLICY_REPAIR
    )
    assert not imported["nightly"].notes
    assert list(imported["off"].notes) == [
        "spec.concurrencyPolicy: Allow, up to 3 active runs (cron_job.max_concurrent); at this limit, the "
        "CronJob is suspended"
    ]
    assert shared_server.cluster is not None
    run = next(
        each["metadata"]["name"]
        for each in shared_server.cluster.store.list(resources.JOBS, NAMESPACE)
        if each["metadata"]["name"].startswith("nightly-")
    )
    answer = await shared_server.admin.containers.import_(namespace=NAMESPACE, names=[run], kinds=KINDS)
    assert list(answer.results[0].problems) == [
        "metadata.ownerReferences: it is a run of CronJob nightly: import the CronJob"
    ]


async def test_a_job_keeps_its_state_and_runs_again(
    shared_server: Server, imported: dict[str, pb.ImportedContainer]
) -> None:
    going, done = await get(shared_server, "going"), await get(shared_server, "done")
    assert (going.status, going.job.restart_policy) == (pb.CONTAINER_STATUS_RUNNING, "OnFailure")
    assert (done.status, done.reason) == (pb.CONTAINER_STATUS_SUCCEEDED, "CompletionsReached")
    assert dict(going.pod_labels) == {"app": "old"}
    await shared_server.admin.containers.run(namespace=NAMESPACE, name="done")

    async def again() -> list[tuple[str, int]]:
        found = shared_server.admin.containers.list_runs(namespace=NAMESPACE, name="done")
        return [(run.name, run.status) async for run in found]

    succeeded = pb.CONTAINER_STATUS_SUCCEEDED
    await poll_until(again, [("done-2", succeeded), ("done", succeeded)].__eq__)


async def test_a_schedule_continues_or_stays_suspended(
    shared_server: Server, imported: dict[str, pb.ImportedContainer]
) -> None:
    nightly, off = await get(shared_server, "nightly"), await get(shared_server, "off")
    assert (nightly.status, off.status) == (pb.CONTAINER_STATUS_RUNNING, pb.CONTAINER_STATUS_STOPPED)
    assert (nightly.cron_job.time_zone, nightly.cron_job.job.parallelism) == ("Europe/Paris", 2)
    assert dict(nightly.cron_job.job_labels) == {"kind": "backup"}
    await shared_server.admin.containers.run(namespace=NAMESPACE, name="off")

    async def listed() -> list[str]:
        found = shared_server.admin.containers.list_runs(namespace=NAMESPACE, name="off")
        return [run.name async for run in found if run.status == pb.CONTAINER_STATUS_RUNNING]

    await poll_until(listed, ["off-run-1"].__eq__)
