"""Computes a container's changes from the facts that decide them, and refuses illegal ones: pure functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from pilothouse_server.containers import admission, repository, rules
from pilothouse_server.containers.job_status import next_run, run_end
from pilothouse_server.containers.model import Container, DesiredState, Status
from pilothouse_server.containers.namespace_facts import ChangeFacts
from pilothouse_server.containers.observation import until_all_ready, until_no_pods
from pilothouse_server.containers.repository import ContainerChange
from pilothouse_server.containers.schedule_status import refusal_of_run
from pilothouse_server.containers.workloads import has_runs, has_schedule, lists_runs, workload_type
from pilothouse_server.errors import FailedPrecondition, invalid
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace

_STATUS_OF_STATE: dict[DesiredState, Status] = {
    "stopped": "stopped",
    "paused": "paused",
    "running": "pending",
}


def changed(stored: Container, wanted: Container, moment: datetime) -> ContainerChange:
    """Returns the change of the desired state, with its status if the change alone decides it."""
    if wanted.desired_state != stored.desired_state:
        status = _STATUS_OF_STATE[wanted.desired_state]
        reason, message = ("", "") if wanted.desired_state == "running" else until_no_pods(stored)
        observed = msgspec.structs.replace(wanted.observed, status=status, reason=reason, message=message)
        wanted = msgspec.structs.replace(wanted, observed=observed)
    elif wanted.spec.run != stored.spec.run and has_runs(wanted):
        observed = msgspec.structs.replace(wanted.observed, status="pending", reason="Creating", message="")
        wanted = msgspec.structs.replace(wanted, observed=observed)
    elif wanted.replicas > stored.replicas:
        wanted = msgspec.structs.replace(
            wanted, observed=until_all_ready(wanted.observed, wanted.wanted_replicas)
        )
    differs = wanted.observed.status != stored.observed.status
    return ContainerChange(
        stored=stored,
        wanted=wanted,
        moment=moment,
        history=repository.HistoryLine(wanted.observed) if differs else None,
        mounted=mounted(stored) ^ mounted(wanted),
    )


def restarted(stored: Container, moment: datetime) -> ContainerChange:
    spec = msgspec.structs.replace(stored.spec, restarted_at=moment)
    restarting = msgspec.structs.replace(stored.observed, reason="Restarting")
    return ContainerChange(
        stored=stored,
        wanted=msgspec.structs.replace(stored, spec=spec),
        moment=moment,
        history=repository.HistoryLine(restarting),
    )


def new_run(facts: ChangeFacts) -> ContainerChange:
    """Returns the change that starts a new run; it replaces a Job's run that has not ended.

    Raises FailedPrecondition for an inactive namespace, ResourceExhausted for its quota.
    """
    refuse_inactive_namespace(facts.namespace)
    return with_quota(changed(facts.stored, next_run(facts.stored), facts.moment), facts)


def with_quota(change: ContainerChange, facts: ChangeFacts) -> ContainerChange:
    """Returns the change with its share of the quota, if the share differs. Raises ResourceExhausted."""
    quota, share = None, rules.quota_share(change.wanted)
    if share != rules.quota_share(facts.stored):
        admission.refuse_exceeded_quota(facts.namespace, facts.used, share)
        quota = share
    return msgspec.structs.replace(
        change,
        quota=quota,
        namespace_version=facts.namespace.row_version,
        limits=None if quota is None else admission.limits_of(facts.namespace.quota),
    )


def starting_run(merge: Callable[[Container], Container]) -> Callable[[Container], Container]:
    """Returns `merge`, extended to start a new run; the function raises as `refuse_running` does."""

    def merge_and_run(stored: Container) -> Container:
        refuse_running(stored)
        return next_run(merge(stored))

    return merge_and_run


def marked(stored: Container, moment: datetime) -> ContainerChange | None:
    """Returns the change that deletes a container; None if it is already being deleted."""
    if stored.deletion_requested_at is not None:
        return None
    return ContainerChange(stored=stored, wanted=stored, moment=moment, deleting=True)


def mounted(container: Container) -> set[str]:
    """Returns the volumes that list the container as a user; none while it is being deleted."""
    if container.deletion_requested_at is not None:
        return set()
    return {volume.name for volume in container.volumes}


def refuse_deleting(container: Container) -> None:
    """Raises FailedPrecondition if the container is being deleted."""
    if container.deletion_requested_at is not None:
        raise FailedPrecondition(
            f'container "{container.name}" is being deleted', reason="CONTAINER_TERMINATING"
        )


def illegal_transition(verb: str, container: Container) -> FailedPrecondition:
    """Returns the error for a call that the present state forbids; it names the state."""
    return FailedPrecondition(
        f'cannot {verb} container "{container.name}": it is {container.desired_state}',
        reason="ILLEGAL_TRANSITION",
        metadata={"state": container.desired_state, "status": container.observed.status},
    )


def refuse_ended(container: Container, verb: str) -> None:
    """Raises FailedPrecondition if the newest run of a Job has ended."""
    if run_end(container) is not None:
        raise FailedPrecondition(
            f'cannot {verb} container "{container.name}": its newest run has ended; RunContainer starts a new one',
            reason="RUN_ENDED",
            metadata={"status": container.observed.status},
        )


def refuse_without_runs(container: Container) -> None:
    """Raises InvalidArgument for a container that is neither a Job nor a CronJob."""
    if not lists_runs(container):
        words = "is neither a Job nor a CronJob: only these have runs"
        raise invalid("name", f'container "{container.name}" {words}')


def refuse_running(container: Container) -> None:
    """Raises FailedPrecondition if no run may start now, InvalidArgument for a container without runs.

    A run of a Job may start once the newest run has ended; for a CronJob, `refusal_of_run` decides.
    """
    refuse_without_runs(container)
    if has_schedule(container):
        if why := refusal_of_run(container):
            raise FailedPrecondition(
                f'container "{container.name}" {why}',
                reason="RUN_NOT_ENDED",
                metadata={"status": container.observed.status},
            )
        return
    if run_end(container) is None:
        raise FailedPrecondition(
            f'the newest run of container "{container.name}" has not ended; RestartContainer replaces it',
            reason="RUN_NOT_ENDED",
            metadata={"status": container.observed.status, "run": str(container.spec.run)},
        )


def refuse_rollout(container: Container) -> None:
    """Raises FailedPrecondition for a Job or a CronJob: their changes are not rolled out."""
    if lists_runs(container):
        kind = workload_type(container).kind
        raise FailedPrecondition(
            f'container "{container.name}" is a {kind}, which has no rollout to hold: use SUSPEND',
            reason="PAUSE_MODE_UNSUPPORTED",
        )
