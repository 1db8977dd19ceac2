"""Kubernetes Events that explain why containers are not as desired.

Events are requested for each pod, a moment after there is something to explain, and not watched: nearly all events of
a cluster are about pods that start normally, or pods of others. There are two kinds of requests.

* A pod is not ready and its status does not give the reason (`Observation.unexplained`): its events become the reason
  of the container's status. The request is repeated until that changes. The same holds for a StatefulSet or DaemonSet
  that lacks pods, and for a run without any.
* The status gives the reason, or the pod is up again after a failure (`Observation.troubled`): its warnings are added
  to the history, in the cluster's words. They are requested once for each trouble.

An API server reads all events of a namespace for each request, so requests are rationed: if hundreds of containers wait
for an explanation, their requests are sent one after the other.

A warning is recorded once per container and reason. Its repetitions, the same warning about another pod, and a pod that
alternates between states add no lines if each follows within `_FORGOTTEN_SECONDS`. A new observer does not know which
warnings its predecessor has recorded, so the next write looks them up in the history (`container_status`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import msgspec

from pilothouse_server.clusters.refusals import within
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.observation import Observation
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.events import Warned, list_events, warnings
from pilothouse_server.kubernetes.objects import EventObject
from pilothouse_server.reconcile.observe.cluster_view import ClusterView
from pilothouse_server.reconcile.repository.container_status import PULL_REASONS

_FORGOTTEN_SECONDS = 600.0
_AT_ONCE = 8
# Requests in one burst after a silence, and requests a second after that.
_BURST = 20.0
_PER_SECOND = 5.0
# Short, because the observation waits during the request.
_ANSWER_SECONDS = 5.0


class _EventRequest(msgspec.Struct):
    """A request for a pod's events.

    `key`: the trouble it is for. `due`: None once it was sent. `scheduled`: the rationing has set `due`, so the request
    may be sent then.
    """

    pod: str
    key: tuple[object, ...]
    due: float | None
    scheduled: bool = False


class Explanations:
    """The events of one cluster's containers, by the container's uid."""

    def __init__(
        self,
        client: ClusterClient,
        view: ClusterView,
        failed: Callable[[ClusterError], None],
        *,
        first_seconds: float,
        again_seconds: float,
    ) -> None:
        self._client = client
        self._view = view
        self._failed = failed
        self._first_seconds = first_seconds
        self._again_seconds = again_seconds
        self._events: dict[str, tuple[EventObject, ...]] = {}
        self._requests: dict[str, _EventRequest] = {}
        self._recorded: dict[str, dict[str, float]] = {}
        # When the next request that has no time yet may be sent.
        self._free_at = 0.0

    def events(self, uid: str) -> tuple[EventObject, ...]:
        """Returns the last explanation, while there is something to explain."""
        return self._events.get(uid, ())

    def unrecorded(self, container: Container, observation: Observation) -> tuple[tuple[Warned, ...], bool]:
        """Returns the warnings to record, and whether the history must be searched for them first."""
        uid = container.uid
        if uid not in self._events:
            return (), False
        found = warnings(
            self._events[uid], self._pods(uid), beside=observation.observed.reason, now=self._client.now()
        )
        known = self._recorded.get(uid, {})
        unrecorded = tuple(
            each
            for each in found
            if monotonic() - known.get(each.reason, -_FORGOTTEN_SECONDS) >= _FORGOTTEN_SECONDS
        )
        return unrecorded, uid not in self._recorded

    def record(self, container: Container, observation: Observation) -> None:
        """Records that the history has the lines of `unrecorded`, so that repetitions add none."""
        uid = container.uid
        if uid in self._events:
            found = warnings(self._events[uid], self._pods(uid), beside="", now=self._client.now())
            reasons = {each.reason for each in found} | {observation.observed.reason}
            self._recorded.setdefault(uid, {}).update(dict.fromkeys(reasons, monotonic()))
        if not (observation.unexplained or observation.troubled):
            request = self._requests.get(uid)
            if request is None or request.due is None:
                self._requests.pop(uid, None)
                self._events.pop(uid, None)

    def forget(self, uid: str) -> None:
        """Drops the data of a deleted container."""
        for memory in (self._events, self._requests, self._recorded):
            memory.pop(uid, None)

    async def request_due(self, seen: dict[str, tuple[Container, Observation]]) -> None:
        """Requests the events that are due, and has their containers observed again with them."""
        due = [
            (container, request)
            for container, observation in seen.values()
            if (request := self._due(container.uid, observation)) is not None
        ]
        due = self._rationed(due)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(container: Container, request: _EventRequest) -> None:
            async with gate:
                await self._request(container, request)

        async with asyncio.TaskGroup() as group:
            for container, request in due:
                group.create_task(one(container, request))

    def _rationed(self, due: list[tuple[Container, _EventRequest]]) -> list[tuple[Container, _EventRequest]]:
        """Returns the requests that may be sent now, and sets a time for each of the rest."""
        now = monotonic()
        granted = []
        for container, request in due:
            if not request.scheduled:
                self._free_at = max(self._free_at, now - _BURST / _PER_SECOND) + 1 / _PER_SECOND
                if self._free_at > now:
                    request.scheduled, request.due = True, self._free_at
                    self._view.mark(container.uid, in_seconds=self._free_at - now)
                    continue
            request.scheduled = False
            granted.append((container, request))
        return granted

    def _pods(self, uid: str) -> list[str]:
        objects = self._view.containers.get(uid)
        return [pod.metadata.uid for pod in objects.pods.values()] if objects is not None else []

    def _due(self, uid: str, observation: Observation) -> _EventRequest | None:
        request, now = self._requests.get(uid), monotonic()
        if observation.unexplained:
            pod = observation.unexplained[0]
            if request is None or request.key != ("silent",):
                request = _EventRequest(pod, ("silent",), now + self._seconds_left(uid, pod))
            request.pod = pod
        elif observation.troubled:
            reason = observation.observed.reason
            key = (
                observation.troubled,
                observation.observed.restart_count,
                reason not in PULL_REASONS and reason,
            )
            if request is None or request.key != key:
                # Events follow a status with some delay.
                request = _EventRequest(observation.troubled, key, now + self._first_seconds)
        if request is None:
            return None
        self._requests[uid] = request
        if request.due is None:
            return None
        if request.due > now:
            self._view.mark(uid, in_seconds=request.due - now)
            return None
        return request

    def _seconds_left(self, uid: str, pod_name: str) -> float:
        """Returns the wait before the first request.

        Most pods start quickly, and the events of the others arrive late.
        """
        objects = self._view.containers.get(uid)
        pod = objects.pods.get(pod_name) if objects else None
        if objects is not None and pod is None:
            # The workload lacks pods, usually for a moment.
            return self._first_seconds
        created = pod.metadata.creation_timestamp if pod else None
        if created is None:
            return 0.0
        age = max(0.0, (self._client.now() - created).total_seconds())
        return max(0.0, self._first_seconds - age)

    async def _request(self, container: Container, request: _EventRequest) -> None:
        uid = container.uid
        try:
            listed = await within(
                list_events(self._client, container.kubernetes_namespace, [request.pod]),
                self._client.name,
                _ANSWER_SECONDS,
            )
        except ClusterError as error:
            self._failed(error)
            request.due = monotonic() + self._again_seconds
            self._view.mark(uid, in_seconds=self._again_seconds)
            return
        changed = listed != self._events.get(uid, ())
        self._events[uid] = listed
        request.due = monotonic() + self._again_seconds if request.key == ("silent",) else None
        if changed:
            self._view.mark(uid)
        elif request.due is not None:
            self._view.mark(uid, in_seconds=self._again_seconds)
