"""What Kubernetes Events say of containers that are not as they should be: asked for, remembered, told once.

Events are asked for pod by pod, a moment after there is something to explain, and not watched: nearly all events of a
cluster are of pods that start as they should, or of other people's. There are two kinds of questions.

* A pod is not ready and its status does not say why (`Observation.unexplained`): its events become the reason of the
  container's status. Asked again while it stays so.
* The status says why, or the pod is up again after a failure (`Observation.troubled`): its warnings enter the history
  beside the status, in the cluster's words. Asked once for each trouble.

An API server reads all events of a namespace for each question, so questions are rationed: where hundreds of
containers wait for an explanation at once, it comes for one after the other.

A warning is told once per container and reason: neither its repetitions, nor its like about another pod, nor a pod that
goes back and forth add lines, as long as they come within `_FORGOTTEN_SECONDS` of each other. An observer that has
just taken over does not know what the one before has told; the history does (`repository.observed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import msgspec

from pilothouse_server.clusters.refusals import within
from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.events import Warned, list_events, warnings
from pilothouse_server.kubernetes.objects import Event
from pilothouse_server.kubernetes.observation import Observation
from pilothouse_server.reconcile.observe.cluster_view import ClusterView
from pilothouse_server.reconcile.repository.container_status import PULL_REASONS

_FORGOTTEN_SECONDS = 600.0
_AT_ONCE = 8
# So many questions at once after a silence, and so many a second after that.
_BURST = 20.0
_PER_SECOND = 5.0
# The observation waits meanwhile.
_ANSWER_SECONDS = 5.0


class _Question(msgspec.Struct):
    """About a pod; `key` is the trouble that it is asked for. `due` None: asked. `booked`: that time is its own."""

    pod: str
    key: tuple[object, ...]
    due: float | None
    booked: bool = False


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
        self._events: dict[str, tuple[Event, ...]] = {}
        self._questions: dict[str, _Question] = {}
        self._told: dict[str, dict[str, float]] = {}
        # When the next question that nobody has a time for may be asked.
        self._free_at = 0.0

    def events(self, uid: str) -> tuple[Event, ...]:
        """Returns what was answered last, while there is something to explain."""
        return self._events.get(uid, ())

    def news(self, container: Container, observation: Observation) -> tuple[tuple[Warned, ...], bool]:
        """Returns the warnings that the history does not tell yet, and whether it must be looked up if it does."""
        uid = container.uid
        if uid not in self._events:
            return (), False
        found = warnings(
            self._events[uid], self._pods(uid), beside=observation.observed.reason, now=self._client.now()
        )
        known = self._told.get(uid, {})
        news = tuple(
            each
            for each in found
            if monotonic() - known.get(each.reason, -_FORGOTTEN_SECONDS) >= _FORGOTTEN_SECONDS
        )
        return news, uid not in self._told

    def written(self, container: Container, observation: Observation) -> None:
        """The history has what `news` answered. What goes on is not told again."""
        uid = container.uid
        if uid in self._events:
            found = warnings(self._events[uid], self._pods(uid), beside="", now=self._client.now())
            reasons = {each.reason for each in found} | {observation.observed.reason}
            self._told.setdefault(uid, {}).update(dict.fromkeys(reasons, monotonic()))
        if not (observation.unexplained or observation.troubled):
            question = self._questions.get(uid)
            if question is None or question.due is None:
                self._questions.pop(uid, None)
                self._events.pop(uid, None)

    def forget(self, uid: str) -> None:
        """A container that is gone."""
        for memory in (self._events, self._questions, self._told):
            memory.pop(uid, None)

    async def ask(self, seen: dict[str, tuple[Container, Observation]]) -> None:
        """Asks for the events that are due of these containers; they are observed again with them."""
        due = [
            (container, question)
            for container, observation in seen.values()
            if (question := self._due(container.uid, observation)) is not None
        ]
        due = self._rationed(due)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(container: Container, question: _Question) -> None:
            async with gate:
                await self._ask(container, question)

        async with asyncio.TaskGroup() as group:
            for container, question in due:
                group.create_task(one(container, question))

    def _rationed(self, due: list[tuple[Container, _Question]]) -> list[tuple[Container, _Question]]:
        """Returns those that may be asked now; each other has a time of its own from now on."""
        now = monotonic()
        granted = []
        for container, question in due:
            if not question.booked:
                self._free_at = max(self._free_at, now - _BURST / _PER_SECOND) + 1 / _PER_SECOND
                if self._free_at > now:
                    question.booked, question.due = True, self._free_at
                    self._view.mark(container.uid, in_seconds=self._free_at - now)
                    continue
            question.booked = False
            granted.append((container, question))
        return granted

    def _pods(self, uid: str) -> list[str]:
        objects = self._view.containers.get(uid)
        return [pod.metadata.uid for pod in objects.pods.values()] if objects is not None else []

    def _due(self, uid: str, observation: Observation) -> _Question | None:
        question, now = self._questions.get(uid), monotonic()
        if observation.unexplained:
            pod = observation.unexplained[0]
            if question is None or question.key != ("silent",):
                question = _Question(pod, ("silent",), now + self._seconds_left(uid, pod))
            question.pod = pod
        elif observation.troubled:
            reason = observation.observed.reason
            key = (
                observation.troubled,
                observation.observed.restart_count,
                reason not in PULL_REASONS and reason,
            )
            if question is None or question.key != key:
                # Events follow a status with some delay.
                question = _Question(observation.troubled, key, now + self._first_seconds)
        if question is None:
            return None
        self._questions[uid] = question
        if question.due is None:
            return None
        if question.due > now:
            self._view.mark(uid, in_seconds=question.due - now)
            return None
        return question

    def _seconds_left(self, uid: str, pod_name: str) -> float:
        """Most pods start within moments, and events of one that does not come slowly."""
        objects = self._view.containers.get(uid)
        pod = objects.pods.get(pod_name) if objects else None
        created = pod.metadata.creation_timestamp if pod else None
        if created is None:
            return 0.0
        age = max(0.0, (self._client.now() - created).total_seconds())
        return max(0.0, self._first_seconds - age)

    async def _ask(self, container: Container, question: _Question) -> None:
        uid = container.uid
        try:
            listed = await within(
                list_events(self._client, container.kubernetes_namespace, [question.pod]),
                self._client.name,
                _ANSWER_SECONDS,
            )
        except ClusterError as error:
            self._failed(error)
            question.due = monotonic() + self._again_seconds
            self._view.mark(uid, in_seconds=self._again_seconds)
            return
        changed = listed != self._events.get(uid, ())
        self._events[uid] = listed
        question.due = monotonic() + self._again_seconds if question.key == ("silent",) else None
        if changed:
            self._view.mark(uid)
        elif question.due is not None:
            self._view.mark(uid, in_seconds=self._again_seconds)
