"""The ordinary steps of a starting container are gathered; a ready or failed container is observed immediately."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    Deployment,
    ObjectCondition,
    ObjectMeta,
    Pod,
    PodState,
    ReplicaSet,
    Waiting,
    WorkloadState,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.observe.cluster_view import (
    MOST_STARTING_SECONDS,
    STARTING_SECONDS,
    ClusterView,
)
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations

UID = str(UUID(int=1))


class View(ClusterView):
    """A view whose clock stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(AppliedGenerations(), lambda: None, clock=lambda: self.now)

    def is_due(self) -> bool:
        return self.seconds_to_next() == 0.0


def meta(uid: str = UID, *, generation: int = 1, deleted_at: datetime | None = None) -> ObjectMeta:
    return ObjectMeta(
        name="web",
        namespace="shop",
        uid="1",
        labels={CONTAINER_UID: uid},
        generation=generation,
        deletion_timestamp=deleted_at,
    )


def deployment(*conditions: tuple[str, str], uid: str = UID, generation: int = 1) -> Deployment:
    state = WorkloadState(conditions=tuple(ObjectCondition(*each) for each in conditions))
    return Deployment(metadata=meta(uid, generation=generation), status=state)


def pod(
    waits: str = "", *, ready: bool = False, restarts: int = 0, deleted_at: datetime | None = None
) -> Pod:
    waiting = Waiting(reason=waits) if waits else None
    status = ContainerStatus(
        name="web", ready=ready, restart_count=restarts, state=ContainerState(waiting=waiting)
    )
    return Pod(
        metadata=meta(deleted_at=deleted_at),
        status=PodState(
            phase="Running" if ready else "Pending",
            conditions=(ObjectCondition("Ready", str(ready)),),
            container_statuses=(status,),
        ),
    )


@pytest.fixture
def view() -> View:
    """Returns a view of a container with a new Deployment and a pod that is being created."""
    made = View()
    made.workload_changed("Deployment", None, deployment())
    made.replica_set_changed(None, ReplicaSet(metadata=meta()))
    made.pod_changed(None, pod("ContainerCreating"))
    return made


def test_ordinary_steps_are_gathered(view: View) -> None:
    assert view.seconds_to_next() == pytest.approx(STARTING_SECONDS, abs=0.1)
    view.now += 0.3
    view.workload_changed(
        "Deployment", deployment(), deployment(("Progressing", "True"), ("Available", "False"))
    )
    assert not view.is_due()
    view.now += 0.3
    assert view.take(10) == [UID]
    # The next step is gathered only if the observer calls `starts`; otherwise it is observed immediately.
    view.pod_changed(pod("ContainerCreating"), pod("PodInitializing"))
    assert view.is_due()
    view.take(10)
    view.starts(UID)
    view.pod_changed(pod("PodInitializing"), pod("ContainerCreating"))
    assert not view.is_due()


@pytest.mark.parametrize(
    "seen",
    [
        pod(ready=True),
        pod("ErrImagePull"),
        pod("CrashLoopBackOff", restarts=1),
        pod(restarts=1),
        pod("ContainerCreating", deleted_at=datetime(2026, 1, 1, tzinfo=UTC)),
    ],
    ids=["ready", "no image", "crash loop", "restarted", "deleted"],
)
def test_relevant_pod_changes_are_observed_immediately(view: View, seen: Pod) -> None:
    view.pod_changed(pod("ContainerCreating"), seen)
    assert view.is_due()


@pytest.mark.parametrize(
    "seen",
    [
        deployment(("Progressing", "False")),
        deployment(("ReplicaFailure", "True")),
        deployment(generation=2),
        None,
    ],
    ids=["deadline", "no pods", "another template", "gone"],
)
def test_relevant_deployment_changes_are_observed_immediately(view: View, seen: Deployment | None) -> None:
    view.workload_changed("Deployment", deployment(), seen)
    assert view.is_due()


def test_many_starting_containers_are_gathered_longer_but_not_for_ever() -> None:
    view = View()
    for number in range(5_000):
        view.workload_changed("Deployment", None, deployment(uid=str(UUID(int=number + 1))))
    assert view.seconds_to_next() == STARTING_SECONDS
    view.now += STARTING_SECONDS
    assert 0 < len(view.take(5_000)) < 100
    view.now += MOST_STARTING_SECONDS
    assert len(view.take(5_000)) > 4_900


def test_an_explicit_mark_is_due_immediately(view: View) -> None:
    view.mark(UID)
    assert view.is_due()
