"""Our objects on one cluster by container, and the containers that have changed.

Objects are found by the container's uid in their labels; the pod template carries it, so replica sets and pods have it
too. The pods of imported workloads do not: `imported_pods` finds their container and calls `put`. All methods are
synchronous: informers call them from their loops, and the observer reads the view between awaits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic

from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.objects import (
    Job,
    KubernetesObject,
    Namespace,
    Pod,
    ReplicaSet,
    WorkloadObject,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.kubernetes.pod_observation import is_starting
from pilothouse_server.namespaces.manifests import POD_SECURITY
from pilothouse_server.reconcile.observe.schedule import Schedule
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations

# How long a check for changes by others waits: the worker records its own apply a moment after the watch event.
SUSPECT_SECONDS = 1.0
# Ordinary steps of a starting pod are written together after STARTING_SECONDS, or as soon as it is ready or fails:
# otherwise each step would be a write and an event. The time is longer by OF_EACH_SECONDS for each starting container,
# up to MOST_STARTING_SECONDS.
STARTING_SECONDS, OF_EACH_SECONDS, MOST_STARTING_SECONDS = 0.5, 0.005, 2.0
# Conditions of a workload that report a fault.
_TROUBLE = {("ReplicaFailure", "True"), ("Progressing", "False")}
# The form in which the server writes UUIDs.
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Objects:
    """The objects of one container by name.

    Workloads also by kind, because kinds may share a name.

    `ended`: workloads that had ended and are deleted, until their end is written: a TTL may delete them immediately.
    """

    __slots__ = ("ended", "pods", "replica_sets", "workloads")

    def __init__(self) -> None:
        self.workloads: dict[tuple[str, str], WorkloadObject] = {}
        self.ended: dict[tuple[str, str], WorkloadObject] = {}
        self.replica_sets: dict[str, ReplicaSet] = {}
        self.pods: dict[str, Pod] = {}

    @property
    def empty(self) -> bool:
        return not (self.workloads or self.ended or self.replica_sets or self.pods)

    @property
    def all_workloads(self) -> dict[tuple[str, str], WorkloadObject]:
        """Its workloads, including those that have ended and are deleted."""
        return {**self.ended, **self.workloads}

    @property
    def jobs(self) -> list[Job]:
        """Its Jobs, including those that have ended and are deleted."""
        return [each for each in self.all_workloads.values() if isinstance(each, Job)]


class ClusterView:
    """The view of one cluster. `changed` is called when there is something to check."""

    def __init__(
        self,
        applied_generations: AppliedGenerations,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._applied_generations = applied_generations
        self._changed = changed
        self._schedule = Schedule(changed, clock)
        self.containers: dict[str, Objects] = {}
        # When to check whether others changed the workload of a container.
        self._suspects = Schedule(changed, clock)
        # When to check whether others changed a namespace, by its name on the cluster.
        self._suspect_namespaces = Schedule(changed, clock)
        self._clock = clock
        # By container: until when its ordinary steps are gathered.
        self._starting: dict[str, float] = {}
        self._relabelled: set[str] = set()
        self.lost: set[str] = set()
        self.lost_namespaces: set[str] = set()
        # Pod Security levels that are new or have changed, by the namespace's name on the cluster.
        self._levels: dict[str, str] = {}

    def workload_changed(self, kind: str, old: WorkloadObject | None, new: WorkloadObject | None) -> None:
        """Stores a workload of a kind (`Deployment` …) as its informer reports it."""
        if old is None and new is not None and (made := container_uid(new)) is not None:
            # The worker that created it writes the first state.
            self.starts(made)
        if (uid := self._put("workloads", old, new, kind)) is None:
            return
        if new is None:
            if old is not None and not any(owner.controller for owner in old.metadata.owner_references):
                self.lost.add(uid)
            if old is not None and old.finished is not None:
                self.containers.setdefault(uid, Objects()).ended[kind, old.metadata.name] = old
        elif old is not None and old.metadata.generation != new.metadata.generation:
            self._suspects.postpone(uid, in_seconds=SUSPECT_SECONDS)
        elif old is not None and fingerprints.changed(new.mark, old.mark):
            # A change of labels or annotations does not raise the generation, which would show whose change it was.
            self._relabelled.add(uid)
            self._suspects.postpone(uid, in_seconds=SUSPECT_SECONDS)

    def replica_set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        """Stores a replica set as its informer reports it."""
        self._put("replica_sets", old, new)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Stores a pod as its informer reports it."""
        self._put("pods", old, new)

    def namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        """Records a change of a namespace: others may delete it, or change our labels."""
        there = new or old
        if old is not None and new is not None and fingerprints.changed(new.mark, old.mark):
            self._suspect_namespaces.postpone(new.metadata.name, in_seconds=SUSPECT_SECONDS)
        if there is not None and (new is None or new.metadata.deletion_timestamp is not None):
            self.lost_namespaces.add(there.metadata.name)
            self._changed()
        if new is not None and (level := _level(new)) != (None if old is None else _level(old)):
            self._levels[new.metadata.name] = level
            self._changed()

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of a container."""
        self._schedule.mark(uid, in_seconds=in_seconds)

    def starts(self, uid: str) -> None:
        """Gathers the ordinary steps of this container for a while from now on."""
        seconds = STARTING_SECONDS + OF_EACH_SECONDS * len(self._starting)
        self._starting[uid] = self._clock() + min(seconds, MOST_STARTING_SECONDS)

    def take(self, most: int) -> list[str]:
        """Removes and returns up to `most` containers whose time has come, longest waiting first."""
        return self._schedule.take(most)

    def seconds_to_next(self) -> float | None:
        """Returns the seconds until the next container is due; None if none is scheduled."""
        schedules = (self._schedule, self._suspects, self._suspect_namespaces)
        times = [schedule.seconds_to_next() for schedule in schedules]
        return min((seconds for seconds in times if seconds is not None), default=None)

    def take_suspects(self) -> list[str]:
        """Removes and returns the containers whose workload another client may have changed."""
        taken = self._suspects.take()
        found = [uid for uid in taken if uid in self._relabelled or self._changed_by_others(uid)]
        self._relabelled.difference_update(taken)
        return found

    def is_as_noted(self, uid: str, noted: Mapping[str, str]) -> bool:
        """Returns whether a container's workload is as its last apply, by whichever server, left it."""
        objects = self.containers.get(uid)
        return objects is not None and all(
            fingerprints.same(each.mark, noted.get(fingerprints.key(*where), ""))
            for where, each in objects.workloads.items()
        )

    def forget_ended(self, uid: str, names: Iterable[tuple[str, str]]) -> None:
        """Drops workloads that had ended, by kind and name: their end is written."""
        objects = self.containers.get(uid)
        if objects is not None and objects.ended:
            for name in names:
                objects.ended.pop(name, None)
            if objects.empty:
                del self.containers[uid]

    def take_lost(self) -> tuple[set[str], set[str]]:
        """Removes and returns containers without their workload, and changed namespaces.

        A namespace is named if it was changed, deleted, or is being deleted. A container whose workload had ended stays
        until the end is written: by the row alone, its run would seem removed, or would be done a second time.
        """
        unwritten = {uid for uid in self.lost if uid in self.containers and self.containers[uid].ended}
        lost, self.lost = self.lost - unwritten, unwritten
        namespaces, self.lost_namespaces = self.lost_namespaces, set()
        return lost, namespaces.union(self._suspect_namespaces.take())

    def take_levels(self) -> dict[str, str]:
        """Removes and returns the Pod Security levels that are new or have changed, by names of namespaces."""
        levels, self._levels = self._levels, {}
        return levels

    def pods(self) -> Iterator[tuple[str, Pod]]:
        """Yields every pod with the uid of its container."""
        for uid, objects in self.containers.items():
            for pod in objects.pods.values():
                yield uid, pod

    def _changed_by_others(self, uid: str) -> bool:
        objects = self.containers.get(uid)
        return objects is not None and not all(
            self._applied_generations.covers(workload.metadata.uid, workload.metadata.generation)
            for workload in objects.workloads.values()
        )

    def _put(
        self, kind: str, old: KubernetesObject | None, new: KubernetesObject | None, of_kind: str = ""
    ) -> str | None:
        there = new or old
        assert there is not None
        uid = container_uid(there)
        if old is not None and (before := container_uid(old)) is not None and before != uid:
            self._drop(kind, before, old.metadata.name, of_kind)
        if uid is not None:
            self.put(kind, uid, old, new, of_kind)
        return uid

    def put(
        self,
        kind: str,
        uid: str,
        old: KubernetesObject | None,
        new: KubernetesObject | None,
        of_kind: str = "",
    ) -> None:
        """Stores an object of this container, or removes it if `new` is None.

        `kind`: the attribute of `Objects`; `of_kind`: the kind of a workload.
        """
        if new is not None:
            objects = self.containers.setdefault(uid, Objects())
            getattr(objects, kind)[_key(new.metadata.name, of_kind)] = new
            self.mark(uid, in_seconds=self._gathered_seconds(uid, old, new))
        elif old is not None:
            self._drop(kind, uid, old.metadata.name, of_kind)

    def _gathered_seconds(self, uid: str, old: KubernetesObject | None, new: KubernetesObject) -> float:
        """Returns how long a change waits for further changes of its container."""
        if (until := self._starting.get(uid)) is None:
            return 0.0
        left = until - self._clock()
        if left > 0 and _is_ordinary_step(old, new):
            return left
        del self._starting[uid]
        return 0.0

    def _drop(self, kind: str, uid: str, name: str, of_kind: str) -> None:
        self._starting.pop(uid, None)
        objects = self.containers.get(uid)
        if objects is not None:
            getattr(objects, kind).pop(_key(name, of_kind), None)
            if objects.empty:
                del self.containers[uid]
        self.mark(uid)


def _key(name: str, of_kind: str) -> str | tuple[str, str]:
    return (of_kind, name) if of_kind else name


def _is_ordinary_step(old: KubernetesObject | None, new: KubernetesObject) -> bool:
    if new.metadata.deletion_timestamp is not None:
        return False
    if isinstance(new, Pod):
        return is_starting(new)
    if isinstance(new, WorkloadObject):
        same = old is None or old.metadata.generation == new.metadata.generation
        return same and not any(
            (condition.type, condition.status) in _TROUBLE for condition in new.status.conditions
        )
    return True


def _level(namespace: Namespace) -> str:
    """Returns the Pod Security level that a namespace enforces."""
    return namespace.metadata.label(POD_SECURITY)


def container_uid(value: KubernetesObject) -> str | None:
    """Returns the container that an object names; None if its label is no UUID: anybody can set labels."""
    return labelled_uid(value, CONTAINER_UID)


def labelled_uid(value: KubernetesObject, label: str) -> str | None:
    """Returns the UUID in a label; None if it has none."""
    text = value.metadata.label(label)
    return text if _UUID.fullmatch(text) else None
