"""Compares the simulator's responses with those of a real API server.

It compares everything on which an adapter can depend: status codes, reasons, causes, key sets, types and values that do
not vary from run to run. Wording (`message`) is not compared. `Substitutions` learns which value of this run
corresponds to a recorded one (uids, versions, generated names), and translates later requests and responses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

JsonObject = dict[str, Any]

# Values that differ from run to run. Their presence and type are compared, and the values are learned for requests.
LEARNED = frozenset({"uid", "resourceVersion", "continue", "clusterIP", "nodePort", "podIP", "etag"})
# Names made from a hash: the first occurrence is learned, one to one, and later ones are compared.
_HASHES = frozenset(
    {"controller-revision-hash", "controller.kubernetes.io/hash", "currentRevision", "updateRevision"}
)
# Labels whose values are a hash or a uid.
GENERATED_LABELS = _HASHES | {"pod-template-hash", "controller-uid", "batch.kubernetes.io/controller-uid"}
VARYING = LEARNED | frozenset({
    "message", "containerID", "imageID", "hostIP", "ip", "nodeName", "pod-template-hash", "serverAddress",
    "storageVersionHash", "ca.crt", "reportingInstance", "addresses", "image", "kubernetes.io/description",
    "description",
})  # fmt: skip
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
LINE_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", re.MULTILINE)
_SERVICE_ACCOUNT_VOLUME = re.compile(r"^kube-api-access-[a-z0-9]{5}$")
# The longest list of objects with generated names that is compared in the order that agrees best.
_MOST_REORDERED = 4
_EVENT_NAME = re.compile(r"^(.+)\.[0-9a-f]{16}$")
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
# Lists whose items are matched by one of these keys, not by position.
_KEYED_LISTS = {
    "conditions": ("type",), "resources": ("name", "resource"), "groups": ("name",),
    "subresources": ("subresource",), "managedFields": ("manager",), "addresses": ("type",),
}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One difference from the recording. `path` begins with the part of the response: status, body, header, lines."""

    exchange: int
    path: str
    recorded: Any
    simulated: Any

    def __str__(self) -> str:
        return (
            f"exchange {self.exchange} {self.path}: recorded {self.recorded!r:.300}, "
            f"simulated {self.simulated!r:.300}"
        )


_ABSENT = "(absent)"
# Names up to this length are only replaced as whole values, not inside longer texts.
_SHORT = 8


@dataclass
class Substitutions:
    """Recorded value -> value of this run.

    `names` are known before the replay and replaced inside texts, however short.
    """

    values: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def learn(self, recorded: Any, simulated: Any) -> None:
        """Records a pair of values from the same path of two responses."""
        if isinstance(recorded, str | int) and recorded not in ("", "None"):
            self.values[str(recorded)] = str(simulated)

    def apply(self, value: Any) -> Any:
        """Translates a request part (text, or JSON)."""
        if isinstance(value, dict):
            return {self.apply(name): self.apply(child) for name, child in value.items()}
        if isinstance(value, list):
            return [self.apply(child) for child in value]
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return int(self.values[str(value)]) if str(value) in self.values and value > 10_000 else value
        if isinstance(value, str):
            return self.text(value)
        return value

    def text(self, value: str) -> str:
        """Translates a whole text, or the uids and generated names inside it."""
        if value in self.values:
            return self.values[value]
        for recorded, simulated in self.names.items():
            value = value.replace(recorded, simulated)
        if len(value) <= _SHORT:
            return value
        for recorded, simulated in self.values.items():
            if len(recorded) > _SHORT and recorded in value and not recorded.isdigit():
                value = value.replace(recorded, simulated)
        return value


class Comparer:
    """Compares the responses of one replay. managedFields are compared if the recording has them."""

    def __init__(self, substitutions: Substitutions, *, varying: frozenset[str] = frozenset()) -> None:
        self.substitutions = substitutions
        self._varying = VARYING | varying
        self.differences: list[Difference] = []
        self._exchange = 0

    def compare(self, exchange: int, path: str, recorded: Any, simulated: Any) -> list[Difference]:
        """Returns the differences of two values."""
        self._exchange = exchange
        found: list[Difference] = []
        self._walk(path, "", recorded, simulated, found)
        return found

    def _walk(self, path: str, name: str, recorded: Any, simulated: Any, found: list[Difference]) -> None:
        if isinstance(recorded, dict) and isinstance(simulated, dict):
            self._objects(path, recorded, simulated, found)
        elif isinstance(recorded, list) and isinstance(simulated, list):
            self._lists(path, name, recorded, simulated, found)
        elif not self._same(name, recorded, simulated):
            found.append(Difference(self._exchange, path, recorded, simulated))
        elif name in LEARNED:
            self.substitutions.learn(recorded, simulated)

    def _objects(
        self, path: str, recorded: JsonObject, simulated: JsonObject, found: list[Difference]
    ) -> None:
        self._learn_name(recorded, simulated)
        if "managedFields" not in recorded and "managedFields" in simulated:
            simulated = {name: value for name, value in simulated.items() if name != "managedFields"}
        translations = set()
        if recorded.keys() != simulated.keys():
            translations = {self.substitutions.text(str(name)) for name in recorded}
        for name in sorted({*recorded, *simulated}, key=str):
            child = f"{path}.{name}"
            translated = name
            if name not in simulated and self.substitutions.text(name) in simulated:
                translated = self.substitutions.text(name)
            if name not in recorded and name in translations:
                continue
            if name not in recorded:
                found.append(Difference(self._exchange, child, _ABSENT, simulated[name]))
            elif translated not in simulated:
                found.append(Difference(self._exchange, child, recorded[name], _ABSENT))
            else:
                self._walk(child, name, recorded[name], simulated[translated], found)

    def _learn_name(self, recorded: JsonObject, simulated: JsonObject) -> None:
        """Learns the names that the server generated, if the objects show that they are generated."""
        if "name" not in recorded or "name" not in simulated:
            return
        generated = "generateName" in recorded or "ownerReferences" in recorded
        reference = recorded.get("kind") in ("Pod", "ReplicaSet") and "uid" in recorded
        generated = generated or (reference and simulated.get("kind") == recorded["kind"])
        volume = _SERVICE_ACCOUNT_VOLUME.match(str(recorded["name"]))
        if (generated and "uid" in recorded) or (
            volume and _SERVICE_ACCOUNT_VOLUME.match(str(simulated["name"]))
        ):
            self.substitutions.learn(recorded["name"], simulated["name"])
        labels = recorded.get("labels") or {}
        if "pod-template-hash" in labels:
            other = (simulated.get("labels") or {}).get("pod-template-hash")
            if other:
                self.substitutions.learn(labels["pod-template-hash"], other)

    def _lists(
        self, path: str, name: str, recorded: list[Any], simulated: list[Any], found: list[Difference]
    ) -> None:
        items = [*recorded, *simulated]
        key = next(
            (key for key in _KEYED_LISTS.get(name, ()) if all(_has(item, key) for item in items)), None
        )
        if key is None and name == "items" and all(_has(item, "versions") for item in items):
            # Aggregated discovery does not guarantee the order of the groups.
            key = "group"
        if key is not None:
            old = {self._item_key(item, key): item for item in recorded}
            new = {self._item_key(item, key): item for item in simulated}
            self._objects(path, old, new, found)
            return
        if len(recorded) != len(simulated):
            found.append(Difference(self._exchange, f"{path}.length", len(recorded), len(simulated)))
            return
        if (
            name == "items"
            and 1 < len(recorded) <= _MOST_REORDERED
            and all(map(_has_generated_name, recorded))
        ):
            simulated = self._best_order(recorded, simulated)
        for index, (old_item, new_item) in enumerate(zip(recorded, simulated, strict=True)):
            self._walk(f"{path}[{index}]", name, old_item, new_item, found)

    def _best_order(self, recorded: list[Any], simulated: list[Any]) -> list[Any]:
        """Returns the items in the order that agrees best: lists are sorted by name, and generated names vary."""
        learned = self.substitutions.values
        counts: list[tuple[int, list[Any]]] = []
        for order in permutations(simulated):
            found: list[Difference] = []
            self.substitutions.values = dict(learned)
            for old_item, new_item in zip(recorded, order, strict=True):
                self._walk("", "", old_item, new_item, found)
            counts.append((len(found), list(order)))
        self.substitutions.values = learned
        return min(counts, key=lambda entry: entry[0])[1]

    @staticmethod
    def _item_key(item: JsonObject, key: str) -> str:
        if key == "manager":
            return f"{item['manager']}/{item['operation']}/{item.get('subresource', '')}"
        if key == "group":
            return str(item["metadata"].get("name", "core"))
        return str(item[key])

    def _same(self, name: str, recorded: Any, simulated: Any) -> bool:
        if isinstance(recorded, bool) or isinstance(simulated, bool) or recorded is None or simulated is None:
            return bool(recorded is simulated)
        if isinstance(recorded, int | float) and isinstance(simulated, int | float):
            return name in self._varying or recorded == simulated
        if type(recorded) is not type(simulated):
            return False
        if name in self._varying:
            return True
        if _TIME.match(recorded) and _TIME.match(simulated):
            return True
        if name in _HASHES and self._learn_hash(recorded, simulated):
            return True
        if _UUID.match(recorded) and _UUID.match(simulated):
            return True
        if self.substitutions.text(recorded) == simulated:
            return True
        if LINE_TIME.sub("", recorded) == LINE_TIME.sub("", simulated) != "":
            return True
        old, new = _EVENT_NAME.match(recorded), _EVENT_NAME.match(simulated)
        return bool(old and new and self.substitutions.text(old[1]) == new[1])

    def _learn_hash(self, recorded: str, simulated: str) -> bool:
        """Records a pair of hashed names if both are new; returns whether they were."""
        known = self.substitutions.values
        if recorded in known or simulated in known.values():
            return False
        self.substitutions.learn(recorded, simulated)
        return True


def _has_generated_name(item: Any) -> bool:
    labels = (item.get("metadata", {}).get("labels") or {}) if isinstance(item, dict) else {}
    return bool({"pod-template-hash", "controller.kubernetes.io/hash"} & labels.keys())


def _has(item: Any, key: str) -> bool:
    return isinstance(item, dict) and key in item
