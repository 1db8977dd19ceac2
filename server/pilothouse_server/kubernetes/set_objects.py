"""StatefulSets, DaemonSets and CronJobs: the fields of them that are read. `objects` has the other kinds."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pilothouse_server.kubernetes.objects import (
    MOST,
    Count,
    Job,
    KubernetesObject,
    Name,
    ObjectMeta,
    ObjectReference,
    Partial,
    PodTemplate,
    Resource,
    Time,
    WorkloadObject,
    WorkloadSpec,
    WorkloadState,
)


class RollingUpdate(Partial, frozen=True, rename="camel"):
    partition: Count = 0


class UpdateStrategy(Partial, frozen=True, rename="camel"):
    type: str = ""
    rolling_update: RollingUpdate | None = None


class ClaimRetentionPolicy(Partial, frozen=True, rename="camel"):
    when_deleted: str = ""
    when_scaled: str = ""


class StatefulSetSpec(WorkloadSpec, frozen=True, rename="camel"):
    ordinals: dict[str, Count] = msgspec.field(default_factory=dict)
    update_strategy: UpdateStrategy = UpdateStrategy()
    pod_management_policy: str = ""
    persistent_volume_claim_retention_policy: ClaimRetentionPolicy = ClaimRetentionPolicy()


class StatefulSetState(WorkloadState, frozen=True, rename="camel"):
    current_revision: Name = ""
    update_revision: Name = ""


class StatefulSet(WorkloadObject, frozen=True, rename="camel"):
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetState = StatefulSetState()

    @property
    def to_update(self) -> int:
        if self.spec.update_strategy.type == "OnDelete":
            return 0
        return max(0, self.replicas - self.partition)

    @property
    def partition(self) -> int:
        """Pods with a lower ordinal keep the former template."""
        rolling = self.spec.update_strategy.rolling_update
        return 0 if rolling is None else rolling.partition

    @property
    def holds_rollout(self) -> bool:
        return self.partition >= self.replicas > 0

    def keeps_former(self, pod: str) -> bool:
        if self.spec.update_strategy.type == "OnDelete":
            return True
        ordinal = pod.rpartition("-")[2]
        return ordinal.isdecimal() and int(ordinal) - self.spec.ordinals.get("start", 0) < self.partition


class DaemonSetSpec(WorkloadSpec, frozen=True, rename="camel"):
    update_strategy: UpdateStrategy = UpdateStrategy()


class DaemonSetState(WorkloadState, frozen=True, rename="camel"):
    """Numbers of nodes: those that should have a pod, and those that have one."""

    desired: Count = msgspec.field(name="desiredNumberScheduled", default=0)
    replicas: Count = msgspec.field(name="currentNumberScheduled", default=0)
    updated_replicas: Count = msgspec.field(name="updatedNumberScheduled", default=0)
    ready_replicas: Count = msgspec.field(name="numberReady", default=0)
    available_replicas: Count = msgspec.field(name="numberAvailable", default=0)


class DaemonSet(WorkloadObject, frozen=True, rename="camel"):
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetState = DaemonSetState()

    @property
    def replicas(self) -> int:
        """The number of nodes that should have a pod; 0 until its controller has seen it."""
        return self.status.desired

    @property
    def to_update(self) -> int:
        return 0 if self.holds_rollout else self.replicas

    @property
    def holds_rollout(self) -> bool:
        return self.spec.update_strategy.type == "OnDelete"

    def keeps_former(self, pod: str) -> bool:
        return self.holds_rollout


class JobTemplate(Partial, frozen=True, rename="camel"):
    metadata: ObjectMeta = ObjectMeta()
    spec: WorkloadSpec = WorkloadSpec()


class CronJobSpec(WorkloadSpec, frozen=True, rename="camel"):
    suspend: bool = False
    job_template: JobTemplate = JobTemplate()


class CronJobState(WorkloadState, frozen=True, rename="camel"):
    active: Annotated[tuple[ObjectReference, ...], MOST] = ()
    last_schedule_time: Time | None = None


class CronJob(WorkloadObject, frozen=True, rename="camel"):
    spec: CronJobSpec = CronJobSpec()
    status: CronJobState = CronJobState()
    # The Jobs that it owns, added by an observer; not a field of the API.
    jobs: tuple[Job, ...] = ()

    @property
    def pod_template(self) -> PodTemplate:
        return self.spec.job_template.spec.template

    @property
    def replicas(self) -> int:
        """The number of its Jobs that have not ended, as its controller reports it."""
        return len(self.status.active)

    @property
    def followed(self) -> bool:
        return True


CRON_JOBS = Resource("/apis/batch/v1", "cronjobs", "CronJob", CronJob, marked="content")
CRON_JOB_METADATA = Resource("/apis/batch/v1", "cronjobs", "CronJob", KubernetesObject, metadata_only=True)
STATEFUL_SETS = Resource("/apis/apps/v1", "statefulsets", "StatefulSet", StatefulSet, marked="content")
STATEFUL_SET_METADATA = Resource(
    "/apis/apps/v1", "statefulsets", "StatefulSet", KubernetesObject, metadata_only=True
)
DAEMON_SETS = Resource("/apis/apps/v1", "daemonsets", "DaemonSet", DaemonSet, marked="content")
DAEMON_SET_METADATA = Resource(
    "/apis/apps/v1", "daemonsets", "DaemonSet", KubernetesObject, metadata_only=True
)
