"""The kinds of workload, in one table that has all differences between them.

A container runs as a Kubernetes object that creates its pods. The kind of the object follows from the container's
settings (`ContainerSpec.workload`). The rest of the server works with a `WorkloadObject` and the `WorkloadType` of its
container.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse_manifests.cron_jobs import CRON_JOB, CRON_JOB_SETTINGS, POD_TEMPLATE
from pilothouse_manifests.fields import FieldPart
from pilothouse_manifests.jobs import JOB, JOB_SETTINGS, SUSPEND
from pilothouse_manifests.table import DEPLOYMENT, DEPLOYMENT_SETTINGS, ROLLING_UPDATE, key_of
from pilothouse_manifests.workloads import (
    DAEMON_SET,
    DELETE,
    FIXED_SETTINGS,
    ON_DELETE,
    RETAIN,
    STATEFUL_SET,
    STATEFUL_SET_SETTINGS,
)
from pilothouse_manifests.writing import writer
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import (
    CronJobSettings,
    DaemonSetSettings,
    DeploymentSettings,
    JobSettings,
    StatefulSetSettings,
    WorkloadKind,
    WorkloadSettings,
)
from pilothouse_server.kubernetes.objects import (
    DEPLOYMENT_METADATA,
    DEPLOYMENTS,
    JOB_METADATA,
    JOBS,
    KubernetesObject,
    Manifest,
    ReplicaSet,
    Resource,
    WorkloadObject,
)
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.set_objects import (
    CRON_JOB_METADATA,
    CRON_JOBS,
    DAEMON_SET_METADATA,
    DAEMON_SETS,
    STATEFUL_SET_METADATA,
    STATEFUL_SETS,
    CronJob,
    StatefulSet,
)


class Newest(msgspec.Struct, frozen=True, gc=False):
    """The newest template of a workload that was observed.

    `name`: as pods have it (`PodObservation.revision`). `is_present`: whether it is known to be the workload's present
    template. `older`: the names of older templates. `replica_set`: the name of its replica set.
    """

    name: str
    is_present: bool
    older: frozenset[str] = frozenset()
    replica_set: str = ""


class WorkloadType(msgspec.Struct, frozen=True):
    """One kind of workload.

    `resource` and `metadata`: how its objects are read, completely or only their metadata. `settings`: the struct of
    its settings. `part`: its spec in Kubernetes, without selector and template. `write` returns that part of the spec;
    its second argument is whether the rollout, or the schedule, is held. `newest` returns the newest template, from the
    observed replica sets and pods. `has_rolled_out` returns whether the rollout of an object can be held: an object
    that never rolled out would get no pods.

    `adopted_hold`: the path of the field that holds a rollout, if others may hold a rollout with it. `states_replicas`:
    the first apply sets the number of pods. `services_first`: the Services must exist before its pods are created.
    `names_pods`: messages name the pod that they are about. `fixed`: immutable settings, which only a new object can
    change. `per_node`: it has a pod on each suitable node and no number of replicas, so callers cannot set one, and a
    node selector stops it. `runs`: each run is an object of its own, whose pods end by themselves and whose template is
    immutable. `scheduled`: it creates such objects by a schedule. `template`: the path of the pod template.
    """

    name: WorkloadKind
    resource: Resource[Any]
    metadata: Resource[KubernetesObject]
    settings: type[WorkloadSettings]
    part: FieldPart
    write: Callable[[Container, bool], Manifest]
    newest: Callable[[WorkloadObject, Sequence[ReplicaSet], Sequence[PodObservation]], Newest | None]
    has_rolled_out: Callable[[WorkloadObject], bool]
    adopted_hold: str = ""
    states_replicas: bool = False
    services_first: bool = False
    names_pods: bool = False
    fixed: tuple[str, ...] = ()
    per_node: bool = False
    runs: bool = False
    scheduled: bool = False
    template: tuple[str, ...] = ("spec", "template")

    @property
    def kind(self) -> str:
        """`Deployment` ..."""
        return self.resource.kind

    @property
    def scales(self) -> bool:
        """Whether it has a number of pods that is set through its scale subresource."""
        return self.rolls_out and not self.per_node

    @property
    def rolls_out(self) -> bool:
        """Whether its pods run permanently, and a change replaces them."""
        return not self.runs and not self.scheduled


REVISION: Final = "deployment.kubernetes.io/revision"
PAUSED: Final = key_of(DEPLOYMENT, "hold_rollout")
_write_deployment = writer(DEPLOYMENT_SETTINGS, place=lambda name: name.removeprefix("deployment."))


def _deployment(container: Container, held: bool) -> Manifest:
    # Written even if it is false, because others may set a field that is left out.
    return {**_write_deployment(container.spec.workload), PAUSED: held}


def _newest_replica_set(
    deployment: WorkloadObject, replica_sets: Sequence[ReplicaSet], _pods: Sequence[PodObservation]
) -> Newest | None:
    newest = max(replica_sets, key=_revision, default=None)
    if newest is None:
        return None
    revision, name = deployment.metadata.annotation(REVISION), newest.metadata.name
    return Newest(
        name,
        is_present=not revision or newest.metadata.annotation(REVISION) == revision,
        older=frozenset(each.metadata.name for each in replica_sets if each is not newest),
        replica_set=name,
    )


def _revision(replica_set: ReplicaSet) -> int:
    revision = replica_set.metadata.annotation(REVISION)
    return int(revision) if revision.isdecimal() else 0


_write_stateful_set = writer(STATEFUL_SET_SETTINGS, place=lambda name: name.removeprefix("stateful_set."))


def _stateful_set(container: Container, held: bool) -> Manifest:
    settings = container.spec.workload
    assert isinstance(settings, StatefulSetSettings)
    spec = _write_stateful_set(settings)
    # Always written, because only newer clusters have a default, which is empty.
    spec["serviceName"] = settings.service_name or headless_service(container)
    if settings.update_strategy != ON_DELETE:
        # Written even if it is 0, because others may set a field that is left out.
        partition = max(container.replicas, settings.update_partition) if held else settings.update_partition
        spec.setdefault("updateStrategy", {}).setdefault("rollingUpdate", {})["partition"] = partition
    if container.wanted_replicas < container.replicas and settings.claim_retention.when_scaled == DELETE:
        # A stopped container keeps its claims; a container that is scaled to 0 does not.
        spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = RETAIN
    return spec


def headless_service(container: Container) -> str:
    """Returns the name of the first headless Service of the container's ports; empty if there is none."""
    ports = (port for port in container.ports if port.service_type == "Headless")
    return next((port.service_name or container.name for port in ports), "")


def _newest_revision(
    stateful_set: WorkloadObject, _replica_sets: Sequence[ReplicaSet], pods: Sequence[PodObservation]
) -> Newest | None:
    assert isinstance(stateful_set, StatefulSet)
    name = stateful_set.status.update_revision
    if not name:
        return None
    older = frozenset(pod.revision for pod in pods) - {name}
    return Newest(name, is_present=stateful_set.followed, older=older)


_write_daemon_set = writer(DAEMON_SET, place=lambda name: name.removeprefix("daemon_set."))


def _daemon_set(container: Container, held: bool) -> Manifest:
    settings = container.spec.workload
    assert isinstance(settings, DaemonSetSettings)
    spec = _write_daemon_set(settings)
    if held:
        return {**spec, "updateStrategy": {"type": ON_DELETE}}
    # Written even if it is the default, because others may set a field that is left out.
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", ROLLING_UPDATE)
    if settings.max_surge not in ("", "0", "0%") and not settings.max_unavailable:
        # Kubernetes' default is 1, which it refuses together with max_surge.
        strategy["rollingUpdate"]["maxUnavailable"] = 0
    return spec


def _youngest_revision(
    daemon_set: WorkloadObject, _replica_sets: Sequence[ReplicaSet], pods: Sequence[PodObservation]
) -> Newest | None:
    # The youngest pod has the newest template: a DaemonSet's status names no revision, and the generation in its pods'
    # labels changes with any change of its spec. The pods are sorted by age.
    name = next((pod.revision for pod in reversed(pods) if pod.revision), "")
    if not name:
        return None
    older = frozenset(pod.revision for pod in pods) - {name}
    is_present = daemon_set.followed and daemon_set.status.updated_replicas > 0
    return Newest(name, is_present=is_present, older=older)


_write_job = writer(JOB_SETTINGS, place=lambda name: name.removeprefix("job."))


def _job(container: Container, _held: bool) -> Manifest:
    # Written even if it is false, as for a Deployment.
    return {**_write_job(container.spec.workload), SUSPEND: container.desired_state != "running"}


_write_cron_job = writer(CRON_JOB_SETTINGS, place=lambda name: name.removeprefix("cron_job."))


def _cron_job(container: Container, held: bool) -> Manifest:
    # Written even if it is false, as for a Deployment.
    return {
        **_write_cron_job(container.spec.workload),
        SUSPEND: held or container.desired_state != "running",
    }


def _newest_job(
    cron_job: WorkloadObject, _replica_sets: Sequence[ReplicaSet], _pods: Sequence[PodObservation]
) -> Newest | None:
    assert isinstance(cron_job, CronJob)
    return Newest(cron_job.jobs[-1].metadata.name, is_present=True) if cron_job.jobs else None


WORKLOADS: Final[Mapping[WorkloadKind, WorkloadType]] = {
    each.name: each
    for each in (
        WorkloadType(
            name="deployment",
            resource=DEPLOYMENTS,
            metadata=DEPLOYMENT_METADATA,
            settings=DeploymentSettings,
            part=DEPLOYMENT,
            write=_deployment,
            newest=_newest_replica_set,
            has_rolled_out=lambda found: bool(found.metadata.annotation(REVISION)),
            adopted_hold=f".spec.{PAUSED}",
        ),
        WorkloadType(
            name="stateful_set",
            resource=STATEFUL_SETS,
            metadata=STATEFUL_SET_METADATA,
            settings=StatefulSetSettings,
            part=STATEFUL_SET,
            write=_stateful_set,
            newest=_newest_revision,
            has_rolled_out=lambda found: True,
            states_replicas=True,
            services_first=True,
            names_pods=True,
            fixed=FIXED_SETTINGS,
        ),
        WorkloadType(
            name="daemon_set",
            resource=DAEMON_SETS,
            metadata=DAEMON_SET_METADATA,
            settings=DaemonSetSettings,
            part=DAEMON_SET,
            write=_daemon_set,
            newest=_youngest_revision,
            has_rolled_out=lambda found: True,
            names_pods=True,
            per_node=True,
        ),
        WorkloadType(
            name="job",
            resource=JOBS,
            metadata=JOB_METADATA,
            settings=JobSettings,
            part=JOB,
            write=_job,
            newest=lambda found, _replica_sets, _pods: Newest(found.metadata.name, is_present=True),
            has_rolled_out=lambda _: False,
            runs=True,
        ),
        WorkloadType(
            name="cron_job",
            resource=CRON_JOBS,
            metadata=CRON_JOB_METADATA,
            settings=CronJobSettings,
            part=CRON_JOB,
            write=_cron_job,
            newest=_newest_job,
            has_rolled_out=lambda _: False,
            scheduled=True,
            template=POD_TEMPLATE,
        ),
    )
}
# The same table, by Kubernetes kind.
WORKLOAD_KINDS: Final[Mapping[str, WorkloadType]] = {each.kind: each for each in WORKLOADS.values()}


def workload_type(container: Container) -> WorkloadType:
    """Returns the kind of a container's workload."""
    return WORKLOADS[container.workload_kind]


def has_runs(container: Container) -> bool:
    """Returns whether each run of a container is an object of its own; the container has the newest one's name."""
    return workload_type(container).runs


def has_schedule(container: Container) -> bool:
    """Returns whether the runs of a container are objects that its own object creates."""
    return workload_type(container).scheduled


def lists_runs(container: Container) -> bool:
    """Returns whether a container has runs, of either kind."""
    return not workload_type(container).rolls_out


def is_ready_at_start(container: Container) -> bool:
    """Returns whether pods that run permanently count as ready as soon as their main program starts."""
    probes = container.spec.probes
    return workload_type(container).rolls_out and probes.readiness is None and probes.startup is None
