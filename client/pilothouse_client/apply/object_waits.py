"""Waits until applied volumes, Services and objects are healthy, as those of an application must be.

The rules are the server's (`applications/health.py`): a refusal of the cluster ends the wait, a claim may wait for its
first pod, a degraded object may recover by itself. An object without a status of its own is healthy once it is on the
cluster. A Service that lacks only its load balancer's address is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pilothouse.application.v1 import application_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.sent_documents import subject_of
from pilothouse_client.errors import DeadlineExceededError
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_client.transport import BlockingTransport
from pilothouse_client.waiting import BOOKMARK_SECONDS

_VOLUMES, _SERVICES, _OBJECTS = "PersistentVolumeClaim", "Service", ""
# Kinds that have no health of their own: data, and volumes that are a part of the pods alone.
_WITHOUT = ("ConfigMap", "Secret", "Volume")
_FIRST_CONSUMER = "WaitForFirstConsumer"
# Many clusters have no load balancers: a Service of that type would never get an address.
_NO_ADDRESS = "WaitingForLoadBalancer"
_STATES = {
    object_pb2.OBJECT_HEALTH_PROGRESSING: "progressing",
    object_pb2.OBJECT_HEALTH_DEGRADED: "degraded",
}
_LEAST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ObjectHealth:
    """`state`: healthy, progressing or degraded.

    `failed`: waiting does not make it healthy."""

    state: str
    why: str = ""
    failed: bool = False


def health_of(resource: Any) -> ObjectHealth:
    """Returns the health of a volume, a Service or an object in its last known state."""
    if resource.HasField("delete_time"):
        return ObjectHealth("degraded", "it is being deleted", failed=True)
    applied = resource.observed_generation >= resource.generation
    for each in resource.conditions:
        if applied and (each.type, each.status) == ("Applied", resource_pb2.CONDITION_STATUS_FALSE):
            return ObjectHealth(
                "degraded", f"the cluster refuses it: {each.message or each.reason}", failed=True
            )
    why = ": ".join(filter(None, (resource.reason, resource.message)))
    if isinstance(resource, storage_pb2.Volume):
        return _health_of_volume(resource, why)
    if not applied:
        return ObjectHealth("progressing", "the cluster has yet to follow")
    if isinstance(resource, object_pb2.Object):
        state = _STATES.get(resource.health, "healthy")
        return ObjectHealth(state, why if state != "healthy" else "")
    if resource.reason == _NO_ADDRESS:
        return ObjectHealth("healthy", "not waited for: it has no load balancer address yet")
    pending = resource.status == network_pb2.SERVICE_STATUS_PENDING
    return ObjectHealth("progressing", why) if pending else ObjectHealth("healthy")


def _health_of_volume(volume: storage_pb2.Volume, why: str) -> ObjectHealth:
    if volume.status == storage_pb2.VOLUME_STATUS_FAILED:
        return ObjectHealth("degraded", why)
    if volume.status == storage_pb2.VOLUME_STATUS_BOUND or volume.reason == _FIRST_CONSUMER:
        return ObjectHealth("healthy")
    return ObjectHealth("progressing", why)


@dataclass(slots=True)
class _WaitedObjects:
    """The objects of one noun that the wait is for, by kind and name, and their health."""

    wanted: set[tuple[str, str]]
    health: dict[tuple[str, str], ObjectHealth] = field(default_factory=dict)

    def observe(self, change: Change[Any]) -> Iterator[str]:
        """Applies one change of the watch; yields the lines to print about it."""
        if change.kind is ChangeKind.SYNCED:
            for missing in sorted(self.wanted - self.health.keys()):
                self.health[missing] = ObjectHealth("missing", failed=True)
                yield self.line(missing)
        elif change.kind is ChangeKind.RESTARTED:
            self.health.clear()
        elif change.kind is not ChangeKind.BOOKMARK:
            resource = change.resource
            key = (_kind_of(resource), resource.name)
            gone = change.kind is ChangeKind.DELETED
            found = ObjectHealth("missing", failed=True) if gone else health_of(resource)
            if key in self.wanted and self.health.get(key) != found:
                self.health[key] = found
                yield self.line(key)

    def line(self, key: tuple[str, str]) -> str:
        """Returns the line for an object: its state, and the reason."""
        found = self.health.get(key, ObjectHealth("not seen"))
        return f"{subject_of(*key)} {found.state}{f': {found.why}' if found.why else ''}"

    @property
    def unhealthy(self) -> list[tuple[str, str]]:
        return sorted(key for key in self.wanted if self._state(key) != "healthy")

    @property
    def ended(self) -> bool:
        return not self.unhealthy or any(each.failed for each in self.health.values())

    def _state(self, key: tuple[str, str]) -> str:
        return self.health[key].state if key in self.health else ""


def _kind_of(resource: Any) -> str:
    if isinstance(resource, object_pb2.Object):
        return resource.kind
    return _VOLUMES if isinstance(resource, storage_pb2.Volume) else _SERVICES


# Kind -> the watch of its noun.
_WATCHES: dict[str, Callable[[Nouns[BlockingTransport], str], Any]] = {
    _VOLUMES: lambda client, where: client.storage.watch_volumes(
        namespace=where, bookmark_period_seconds=BOOKMARK_SECONDS
    ),
    _SERVICES: lambda client, where: client.network.watch_services(
        namespace=where, bookmark_period_seconds=BOOKMARK_SECONDS
    ),
    _OBJECTS: lambda client, where: client.objects.watch(
        namespace=where, bookmark_period_seconds=BOOKMARK_SECONDS
    ),
}


def wait_for_objects(
    client: Nouns[BlockingTransport],
    namespace: str,
    changes: Iterable[application_pb2.ApplicationChange],
    seconds: float,
    say: Say,
    complain: Say,
) -> bool:
    """Returns whether all volumes, Services and objects that an apply wrote were healthy in time.

    It complains about the others.

    Raises:
        PilothouseError: a watch was refused or could not continue.
    """
    end = time.monotonic() + seconds
    for noun, wanted in _by_noun(changes).items():
        waited = _WaitedObjects(wanted)
        try:
            patient = client.with_options(timeout=max(end - time.monotonic(), _LEAST_SECONDS))
            _watch(patient, noun, namespace, waited, say)
            words = "not all objects are healthy:"
        except DeadlineExceededError:
            words = f"not all objects were healthy after {seconds:g} seconds:"
        if waited.unhealthy:
            for line in (words, *(f"  {waited.line(key)}" for key in waited.unhealthy)):
                complain(line)
            return False
    return True


def _watch(
    client: Nouns[BlockingTransport], noun: str, namespace: str, waited: _WaitedObjects, say: Say
) -> None:
    """Watches a noun until there is nothing more to wait for."""
    with closing(_WATCHES[noun](client, namespace)) as watch:
        for change in watch:
            for line in waited.observe(change):
                say(line)
            if waited.ended:
                return


def _by_noun(changes: Iterable[application_pb2.ApplicationChange]) -> dict[str, set[tuple[str, str]]]:
    """Returns the objects to wait for, as kind and name, by noun."""
    found: dict[str, set[tuple[str, str]]] = {}
    for each in changes:
        has_health = subject_of(each.kind, "") != "container/" and each.kind not in _WITHOUT
        if has_health and each.action != application_pb2.CHANGE_ACTION_PRUNE:
            noun = each.kind if each.kind in _WATCHES else _OBJECTS
            found.setdefault(noun, set()).add((each.kind, each.name))
    return found
