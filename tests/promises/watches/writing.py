"""Writers of a campaign: mutations through the public API, on objects that all of them share."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from tests.promises.calling import Caller
from tests.promises.watches.ground import NAMESPACES, Ground
from tests.promises.watches.recording import Written
from tests.promises.watches.told import MARKER, digest, version

# In each namespace; all writers choose among them.
CONTAINERS, CONFIG_MAPS = 24, 8
TIERS = ("front", "back")
# It gives an event a useful size, so that a reader's window fills.
_PADDING = "x" * 200
# The possible next steps, and their frequency, by the object's state in the last answer. Others may have been
# quicker: then it is refused. Deletions need the cluster, which is slow: an object that is being deleted is mostly
# left alone.
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
# A share of the mutations is of config maps.
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
# The permitted answers about the state of an object shared with others.
Target = tuple[str, str]
_REFUSED = ("NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT")


class Writer:
    """One writer: a mutation after the other until the campaign has enough."""

    def __init__(self, ground: Ground, number: int) -> None:
        self._ground = ground
        self._number = number
        self._choose = random.Random(f"{ground.size.seed} {number}")
        self._steps = 0
        # Shared by all writers: what each object was when one of them was last answered.
        self._known = ground.known

    async def run(self) -> None:
        """Writes until enough is acknowledged."""
        progress = self._ground.progress
        async with self._ground.callers() as callers:
            while progress.done < progress.wanted:
                await self._mutate(callers)

    async def _mutate(self, callers: list[Caller]) -> None:
        ground, choose = self._ground, self._choose
        self._steps += 1
        target, verb = self._target()
        marker = f"w{self._number}-{self._steps}"
        fields = self._fields(verb, *target, marker)
        began = ground.progress.tick()
        outcome, operations, attempts = await ground.certainly(
            callers, _METHODS[verb], fields, choose.randrange(len(callers))
        )
        ended = ground.progress.tick()
        if outcome.code != "OK":
            assert outcome.code in _REFUSED, f"{verb} {fields}: {outcome.code} {outcome.message}"
            if outcome.code == "NOT_FOUND":
                self._known.pop(target, None)
            elif outcome.code == "ALREADY_EXISTS":
                self._known.setdefault(target, "RUNNING")
            elif outcome.reason.endswith("_TERMINATING"):
                self._known[target] = _GOING
            ground.recording.counts[f"refused {verb}: {outcome.code} {outcome.reason}"] += 1
            return
        answer = outcome.answer
        held = answer.config_map if "map" in verb else answer.container
        self._known[target] = _known(held)
        ground.recording.writes.append(
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
        ground.recording.counts["asked again, and answered"] += attempts > 1
        ground.progress.acknowledged()

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
            # No pods: how they come and go is not what this is about, and would cost most of the machine.
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
    """Returns the state of an answered object: a key of the tables above."""
    if held.HasField("delete_time"):
        return _GOING
    if isinstance(held, config_pb2.ConfigMap):
        return "RUNNING"
    status = container_pb2.ContainerStatus.Name(held.status).removeprefix("CONTAINER_STATUS_")
    return status if status in _NEXT else "RUNNING"
