"""Start, stop, pause, resume and restart of each kind of workload, by the public API and on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.errors import FailedPreconditionError, PilothouseError
from pilothouse_simulator.values import resources
from pilothouse_simulator.values.resources import ResourceType
from tests.harness import Server
from tests.waiting import poll_until

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]
NAMESPACE = "verbs"
BEHAVIOR = "simulate.pilothouse.dev/behavior"
RUNNING, STOPPED, PAUSED, SUCCEEDED = (
    pb.CONTAINER_STATUS_RUNNING,
    pb.CONTAINER_STATUS_STOPPED,
    pb.CONTAINER_STATUS_PAUSED,
    pb.CONTAINER_STATUS_SUCCEEDED,
)
SUSPEND, HOLD = pb.PAUSE_MODE_SUSPEND, pb.PAUSE_MODE_HOLD_ROLLOUT
NO_NODE = {"pilothouse.dev/no-node": "true"}


class Kind(msgspec.Struct, frozen=True):
    """A row of the table.

    `stopped` and `held` return whether the object on the cluster is; `held` is None if the kind has no rollout.
    `restarted` returns a value that a restart changes.
    """

    name: str
    resource: ResourceType
    settings: dict[str, Any]
    stopped: Callable[[JsonObject], bool]
    held: Callable[[JsonObject], bool] | None
    restarted: Callable[[JsonObject], Any]


def _template(live: JsonObject) -> Any:
    return live["spec"]["template"]["metadata"].get("annotations")


def _partition(live: JsonObject) -> Any:
    return live["spec"]["updateStrategy"].get("rollingUpdate", {}).get("partition")


KINDS = [
    Kind(
        "deployment",
        resources.DEPLOYMENTS,
        {"deployment": pb.DeploymentSettings(), "replicas": 2},
        lambda live: live["spec"]["replicas"] == 0,
        lambda live: bool(live["spec"].get("paused")),
        _template,
    ),
    Kind(
        "stateful-set",
        resources.STATEFUL_SETS,
        {"stateful_set": pb.StatefulSetSettings(update_partition=1), "replicas": 2},
        lambda live: live["spec"]["replicas"] == 0,
        # All ordinals are held; the user's own partition would hold only the first.
        lambda live: _partition(live) == 2,
        _template,
    ),
    Kind(
        "daemon-set",
        resources.DAEMON_SETS,
        {"daemon_set": pb.DaemonSetSettings()},
        lambda live: live["spec"]["template"]["spec"].get("nodeSelector") == NO_NODE,
        lambda live: live["spec"]["updateStrategy"]["type"] == "OnDelete",
        _template,
    ),
    Kind(
        "job",
        resources.JOBS,
        {"job": pb.JobSettings(backoff_limit=0), "pod_annotations": {BEHAVIOR: "run"}},
        lambda live: bool(live["spec"].get("suspend")),
        None,
        lambda live: live["metadata"]["name"],
    ),
    Kind(
        "cron-job",
        resources.CRON_JOBS,
        {
            "cron_job": pb.CronJobSettings(schedule="0 2 1 1 *", job=pb.JobSettings(backoff_limit=0)),
            "pod_annotations": {BEHAVIOR: "run"},
        },
        lambda live: bool(live["spec"].get("suspend")),
        None,
        lambda live: live["metadata"]["annotations"]["pilothouse.dev/run"],
    ),
]


class Walk:
    """One container of a kind, with the name of the kind."""

    def __init__(self, server: Server, kind: Kind) -> None:
        assert server.cluster is not None
        self.store, self.calls, self.kind = server.cluster.store, server.admin.containers, kind
        self.named: dict[str, Any] = {"namespace": NAMESPACE, "name": kind.name}

    async def until(self, status: int, holds: Callable[[JsonObject], bool] = lambda _: True) -> JsonObject:
        """Returns the object on the cluster, once the container has the status and `holds` is true of the object."""

        async def look() -> JsonObject | None:
            row = await self.calls.get(**self.named)
            found = self.store.get(self.kind.resource, NAMESPACE, row.kubernetes_name)
            return found if not row.reconciling and row.status == status and found and holds(found) else None

        found = await poll_until(look, what=f"status {status} of {self.kind.name}")
        assert found is not None
        return found

    async def refused(self, call: str, reason: str, **fields: Any) -> None:
        """Asserts that a call is refused with this reason."""
        with pytest.raises(PilothouseError) as refusal:
            await getattr(self.calls, call)(**self.named, **fields)
        assert isinstance(refusal.value, FailedPreconditionError), refusal.value
        assert refusal.value.reason == reason


@pytest.fixture(scope="module")
async def walked(shared_server: Server) -> Server:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
    return shared_server


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_each_verb_changes_the_cluster_as_the_table_states(walked: Server, kind: Kind) -> None:
    walk, calls = Walk(walked, kind), walked.admin.containers
    service = [pb.Port(container_port=80, service_type=pb.SERVICE_TYPE_HEADLESS)]
    ports = service if kind.name == "stateful-set" else []
    wanted = pb.Container(name=kind.name, image="nginx:1.27", ports=ports, **kind.settings)
    await calls.create(namespace=NAMESPACE, container=wanted)
    first = await walk.until(RUNNING, lambda live: not kind.stopped(live))

    # Stop and start; pause and resume of a stopped container are refused.
    await calls.stop(**walk.named)
    await walk.until(STOPPED, kind.stopped)
    await walk.refused("pause", "ILLEGAL_TRANSITION", mode=SUSPEND)
    await walk.refused("resume", "ILLEGAL_TRANSITION")
    await calls.start(**walk.named)
    assert (await walk.until(RUNNING, lambda live: not kind.stopped(live)))["spec"] == first["spec"]

    # SUSPEND does the same with another status.
    await calls.pause(**walk.named, mode=SUSPEND)
    await walk.until(PAUSED, kind.stopped)
    await walk.refused("start", "ILLEGAL_TRANSITION")
    await calls.resume(**walk.named)
    assert (await walk.until(RUNNING, lambda live: not kind.stopped(live)))["spec"] == first["spec"]

    if kind.held is None:
        await walk.refused("pause", "PAUSE_MODE_UNSUPPORTED", mode=HOLD)
    else:
        held = kind.held
        await calls.pause(**walk.named, mode=HOLD)
        assert not kind.stopped(await walk.until(RUNNING, held))
        await calls.resume(**walk.named)
        # The user's settings are restored.
        restored = await walk.until(RUNNING, lambda live: not held(live))
        assert restored["spec"] == first["spec"]
    await walk.refused("pause", "PAUSE_MODE_UNSUPPORTED", mode=pb.PAUSE_MODE_FREEZE)

    before = kind.restarted(first)
    await calls.restart(**walk.named)
    await walk.until(RUNNING, lambda live: kind.restarted(live) != before)


async def test_a_finished_job_can_only_run_again(walked: Server) -> None:
    (kind,) = (each for each in KINDS if each.name == "job")
    walk = Walk(walked, msgspec.structs.replace(kind, name="finished"))
    wanted = pb.Container(
        name="finished",
        image="busybox:1.37",
        job=pb.JobSettings(backoff_limit=0),
        pod_annotations={BEHAVIOR: "exit:0"},
    )
    await walk.calls.create(namespace=NAMESPACE, container=wanted)
    await walk.until(SUCCEEDED)
    for call in ("start", "stop", "resume"):
        await walk.refused(call, "RUN_ENDED")
    await walk.refused("pause", "RUN_ENDED", mode=SUSPEND)
    await walk.refused("pause", "PAUSE_MODE_UNSUPPORTED", mode=HOLD)
    for again, name in ((walk.calls.run, "finished-2"), (walk.calls.restart, "finished-3")):
        await again(**walk.named)
        assert (await walk.calls.get(**walk.named)).kubernetes_name == name
        await walk.until(SUCCEEDED)
