"""Events: reports of the controllers, the scheduler and the kubelets about objects.

As in a real cluster, there are two shapes. Controllers and kubelets use the old shape: `source`, `firstTimestamp`,
`lastTimestamp` and a `count`, which is incremented (MODIFIED of the same Event) when the same report about the same
object is repeated. From the tenth different message for one reason about one object on, messages share one Event that
is marked as combined. The scheduler uses the new shape: `eventTime` and `reportingComponent`, without count and
timestamps. Events are removed an hour after they were last written.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import Clock, format_micro_time, format_time, parse_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import EVENTS, PODS, ResourceType

JsonObject = dict[str, Any]

EVENT_LIFETIME = timedelta(hours=1)
_REMEMBERED = 20_000
_DIFFERENT_MESSAGES = 10
_COMBINING_INTERVAL = timedelta(minutes=10)
_COMBINED = "(combined from similar events): "
_SCHEDULER = "default-scheduler"


class EventRecorder:
    """Writes Events. All actors share one recorder, which remembers former reports to count repetitions."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: OrderedDict[tuple[str, ...], tuple[str, str]] = OrderedDict()
        self._messages: OrderedDict[tuple[str, ...], dict[str, datetime]] = OrderedDict()
        self._last_suffix = 0

    def record(
        self,
        resource: ResourceType,
        involved: JsonObject,
        reason: str,
        message: str,
        *,
        component: str,
        host: str = "",
        warning: bool = False,
        field_path: str = "",
    ) -> None:
        """Records an event of a controller, or of a kubelet (then `host` is the node's name).

        `field_path` is the part of the object that the event is about. No events are written in a namespace that is
        being deleted.
        """
        kind = "Warning" if warning else "Normal"
        group = (involved["metadata"]["uid"], component, host, kind, reason, field_path)
        combined = self._is_combined(group, message)
        if combined:
            message = _COMBINED + message
        key = group if combined else (*group, message)
        known = self._known.get(key)
        if known is not None and self._count_up(known, message):
            return
        event = self._event(resource, involved, field_path)
        now = format_time(self._clock.now())
        source = {"component": component, "host": host} if host else {"component": component}
        event |= {
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": "" if combined else component,
            "reportingInstance": "" if combined else host,
        }
        stored = self._write(event, component)
        if stored is not None:
            self._known[key] = (stored["metadata"]["namespace"], stored["metadata"]["name"])
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def record_scheduling(self, pod: JsonObject, reason: str, message: str, *, failed: bool) -> None:
        """Records an event of the scheduler about a pod: `Scheduled`, or `FailedScheduling` if `failed`."""
        event = self._event(PODS, pod, "")
        event |= {
            "reason": reason,
            "message": message,
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "type": "Warning" if failed else "Normal",
            "eventTime": format_micro_time(self._clock.now()),
            "action": "Scheduling" if failed else "Binding",
            "reportingComponent": _SCHEDULER,
            "reportingInstance": f"{_SCHEDULER}-simulated",
        }
        self._write(event, "kube-scheduler")

    def remove_expired(self) -> None:
        """Removes the events whose lifetime is over."""
        horizon = self._clock.now() - EVENT_LIFETIME
        for event in self._store.list(EVENTS):
            metadata = event["metadata"]
            last = event.get("lastTimestamp") or event.get("eventTime") or metadata["creationTimestamp"]
            if parse_time(last) < horizon:
                self._store.remove(EVENTS, metadata["namespace"], metadata["name"])

    def _event(self, resource: ResourceType, involved: JsonObject, field_path: str) -> JsonObject:
        metadata = involved["metadata"]
        namespace = metadata.get("namespace") or "default"
        reference: JsonObject = {"kind": resource.kind}
        if "namespace" in metadata:
            reference["namespace"] = namespace
        reference |= {
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": resource.api_version,
            "resourceVersion": metadata["resourceVersion"],
        }
        if field_path:
            reference["fieldPath"] = field_path
        # The suffix is the time in nanoseconds, as in client-go; incremented if the clock is too coarse.
        suffix = max(self._last_suffix + 1, int(self._clock.now().timestamp() * 1_000_000) * 1_000)
        self._last_suffix = suffix
        return {
            "metadata": {"name": f"{metadata['name']}.{suffix:x}", "namespace": namespace},
            "involvedObject": reference,
        }

    def _is_combined(self, group: tuple[str, ...], message: str) -> bool:
        """Returns whether the message must be combined: its group has too many others within ten minutes."""
        now = self._clock.now()
        messages = self._messages.setdefault(group, {})
        for old, moment in list(messages.items()):
            if now - moment > _COMBINING_INTERVAL:
                del messages[old]
        if message not in messages and len(messages) >= _DIFFERENT_MESSAGES - 1:
            return True
        messages[message] = now
        while len(self._messages) > _REMEMBERED:
            self._messages.popitem(last=False)
        return False

    def _count_up(self, known: tuple[str, str], message: str) -> bool:
        event = self._store.get(EVENTS, *known)
        if event is None:
            return False
        event = copy_json(event)
        event["message"] = message
        event["count"] = int(event.get("count", 1)) + 1
        event["lastTimestamp"] = format_time(self._clock.now())
        self._store.update(EVENTS, event)
        return True

    def _write(self, event: JsonObject, manager: str) -> JsonObject | None:
        try:
            return self._store.create(EVENTS, event, manager=manager)
        except ApiError:
            # The namespace is deleted or being deleted; a lost event must not cause an error.
            return None
