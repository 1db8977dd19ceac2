"""The writers of a campaign.

They make mutations through the public API, on objects that all writers share.
"""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from tests.promises.calling import Caller
from tests.promises.watches.environment import NAMESPACES, Environment
from tests.promises.watches.recording import Written
from tests.promises.watches.told import MARKER, digest, version

# The number of objects in each namespace, from which all writers choose.
CONTAINERS, CONFIG_MAPS = 24, 8
TIERS = ("front", "back")
# Padding that makes events large enough to fill a reader's window.
_PADDING = "x" * 200
# The possible next steps and their weights, by the object's state in the last response. If another writer was
# faster, the step is refused. Deletions need the cluster, which is slow, so an object that is being deleted is
# mostly skipped.
_GOING = "going"
_NEXT: dict[str, dict[str, int]] = {
    "": {"create": 1},
    "RUNNING": {"update": 66, "stop": 12, "pause": 12, "restart": 8, "delete": 2},
    "STOPPED": {"update": 48, "start": 50, "delete": 2},
    "PAUSED": {"update": 48, "resume": 50, "delete": 2},
    _GOING: {"": 19, "create": 1},
}
_NEXT_OF_MAP: dict[str, dict[str, int]] = {
    "": {"create map": 1},
    "RUNNING": {"update map": 76, "update map and restart": 20, "delete map": 4},
    _GOING: {"": 19, "create map": 1},
}
# The share of mutations that concern config maps.
_MAPS = 0.3
_METHODS = {
    "create": "CreateContainer",
    "update": "UpdateContainer",
    "stop": "StopContainer",
    "start": "StartContainer",
    "pause": "PauseContainer",
    "resume": "ResumeContainer",
    "restart": "RestartContainer",
    "delete": "DeleteContainer",
    "create map": "CreateConfigMap",
    "update map": "UpdateConfigMap",
    "update map and restart": "UpdateConfigMap",
    "delete map": "DeleteConfigMap",
}
# The namespace and name of an object. `_REFUSED` are the permitted error codes, because other writers change
# the same objects.
Target = tuple[str, str]
_REFUSED = ("NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT")


class Writer:
    """One writer, which makes mutations until the campaign has enough."""

    def __init__(self, environment: Environment, number: int) -> None:
        self._environment = environment
        self._number = number
        self._choose = random.Random(f"{environment.size.seed} {number}")
        self._steps = 0
        # Shared by all writers: the state of each object in the last response to one of them.
        self._known = environment.known

    async def run(self) -> None:
        """Writes until enough mutations are acknowledged."""
        progress = self._environment.progress
        async with self._environment.callers() as callers:
            while progress.done < progress.wanted:
                await self._mutate(callers)

    async def _mutate(self, callers: list[Caller]) -> None:
        environment, choose = self._environment, self._choose
        self._steps += 1
        target, verb = self._target()
        marker = f"w{self._number}-{self._steps}"
        fields = self._fields(verb, *target, marker)
        began = environment.progress.tick()
        outcome, operations, attempts = await environment.certainly(
            callers, _METHODS[verb], fields, choose.randrange(len(callers))
        )
        ended = environment.progress.tick()
        if outcome.code != "OK":
            assert outcome.code in _REFUSED, f"{verb} {fields}: {outcome.code} {outcome.message}"
            if outcome.code == "NOT_FOUND":
                self._known.pop(target, None)
            elif outcome.code == "ALREADY_EXISTS":
                self._known.setdefault(target, "RUNNING")
            elif outcome.reason.endswith("_TERMINATING"):
                self._known[target] = _GOING
            environment.recording.counts[f"refused {verb}: {outcome.code} {outcome.reason}"] += 1
            return
        answer = outcome.answer
        held = answer.config_map if "map" in verb else answer.container
        self._known[target] = _known(held)
        environment.recording.writes.append(
            Written(
                verb.split()[0],
                began,
                ended,
                held.uid,
                version(held.etag),
                digest(held),
                marker,
                operations,
                attempts,
                tuple(answer.restarted) if "map and restart" in verb else (),
            )
        )
        environment.recording.counts["asked again, and answered"] += attempts > 1
        environment.progress.acknowledged()

    def _target(self) -> tuple[Target, str]:
        """Returns the next object to change, and the change."""
        choose = self._choose
        while True:
            kind, count, following = (
                ("m", CONFIG_MAPS, _NEXT_OF_MAP) if choose.random() < _MAPS else ("c", CONTAINERS, _NEXT)
            )
            target = choose.choice(NAMESPACES), f"{kind}{choose.randrange(count)}"
            verbs = following[self._known.get(target, "")]
            (verb,) = choose.choices(list(verbs), list(verbs.values()))
            if verb:
                return target, verb

    def _fields(self, verb: str, namespace: str, name: str, marker: str) -> dict[str, Any]:
        choose = self._choose
        request_id = str(UUID(int=choose.getrandbits(128), version=4))
        common = {"namespace": namespace, "requestId": request_id}
        marked = {
            "labels": {"tier": choose.choice(TIERS)},
            "annotations": {MARKER: marker, "padding": _PADDING},
        }
        if "map" in verb:
            return self._fields_of_map(verb, {**common, "name": name}, marked, marker)
        if verb == "create":
            source = {
                "name": "SETTING",
                "valueFrom": "ENV_VALUE_FROM_CONFIG_MAP",
                "sourceName": f"m{choose.randrange(CONFIG_MAPS)}",
                "sourceKey": "key",
                "optional": True,
            }
            # Without pods: their changes do not matter here, and would cost most of the machine's time.
            made = {"name": name, "image": "nginx:1.27", "replicas": 0, **marked}
            return {**common, "container": {**made, "env": [source]}}
        if verb == "update":
            return {**common, "name": name, "container": marked, "updateMask": "labels,annotations"}
        return {**common, "name": name}

    def _fields_of_map(
        self, verb: str, common: dict[str, Any], marked: dict[str, Any], marker: str
    ) -> dict[str, Any]:
        data = {"data": {"key": marker}}
        if verb == "create map":
            named = {"name": common["name"], **data, **marked}
            return {name: value for name, value in common.items() if name != "name"} | {"configMap": named}
        if verb == "delete map":
            return common
        changed = {**common, "configMap": {**data, **marked}, "updateMask": "data,labels,annotations"}
        return {**changed, "restartContainers": True} if "restart" in verb else changed


def _known(held: Any) -> str:
    """Returns the state of an object in a response, as a key of the tables above."""
    if held.HasField("delete_time"):
        return _GOING
    if isinstance(held, config_pb2.ConfigMap):
        return "RUNNING"
    status = container_pb2.ContainerStatus.Name(held.status).removeprefix("CONTAINER_STATUS_")
    return status if status in _NEXT else "RUNNING"
