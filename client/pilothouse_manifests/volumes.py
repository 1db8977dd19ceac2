"""The volumes of a pod, and their names on the platform.

On the platform, volumes belong to the namespace, not to a pod, and containers mount them by name. A claim keeps its
name. A pod's volume from a config map, a secret or the node becomes a volume whose name is derived from that source
alone. So pods with the same source share one volume, and an import and an apply find each other's volumes. A volume
with chosen keys or with permission bits stays a part of its container, and so do projected sources and fields of the
pod.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pilothouse_manifests.fields import Values
from pilothouse_manifests.pod_volumes import FILES, OWN_SOURCES, ROOT_CERTIFICATE, USUAL_MODE
from pilothouse_manifests.reading import Hooks, read
from pilothouse_manifests.sources import NOT_REPRESENTED, MappingSource
from pilothouse_manifests.table import CONTAINERS, INIT_CONTAINERS, VOLUME_SOURCES, VOLUMES

DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# RFC 1123, as Kubernetes reads it: the names of config maps and secrets.
DNS_SUBDOMAIN = r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"

# The type of a volume whose source the API does not name; the source is in the extra fields of its container.
CARRIED = "carried"
# The keys of a pod that contain its programs.
PROGRAMS = (CONTAINERS, INIT_CONTAINERS)
_LONGEST_NAME = 63
# The first word of a volume's name, by the type of its source.
_WORDS = {"config_map": "configmap", "secret": "secret", "host_path": "hostpath"}
_SHOWN = {"config_map": "source_name", "secret": "source_name", "host_path": "host_path"}
_SOURCES = {**VOLUME_SOURCES, **OWN_SOURCES}
_NO_RULES: Hooks = {}


S = TypeVar("S", bound=MappingSource)


@dataclass(frozen=True, slots=True)
class PodVolume(Generic[S]):
    """One volume of a pod: its name there, its source (`type`, `values` by the names of a volume), and its position.

    An empty `type` means that the volume cannot be represented and was reported; `CARRIED`, that its source is carried
    unchanged. `item` is the position of the volume, `source` that of its source.
    """

    name: str
    type: str
    values: Values
    item: S
    source: S

    @property
    def key(self) -> str:
        """The key of the volume's source."""
        return _SOURCES[self.type][0]

    @property
    def is_own(self) -> bool:
        """Whether the volume is a part of its container, because no volume of the namespace can represent it."""
        if self.type not in FILES:
            return self.type in OWN_SOURCES
        chosen = not self.values.keys().isdisjoint(("items", "default_mode"))
        return chosen or self.values.get("source_name") == ROOT_CERTIFICATE

    @property
    def volume(self) -> str:
        """The name of the volume on the platform."""
        if self.type in ("empty_dir", CARRIED) or self.is_own:
            return self.name
        if self.type == "persistent_volume_claim":
            return volume_name("claim", self.values.get("kubernetes_name", ""))
        # Pods that may start without the source have a separate volume: the other pods must not start without it.
        word = f"optional-{_WORDS[self.type]}" if self.values.get("optional") else _WORDS[self.type]
        return volume_name(word, self.values.get(_SHOWN[self.type], ""))


def devices_of(programs: Iterable[Any]) -> frozenset[str]:
    """Returns the names of the volumes of a pod that its programs (as JSON) use as devices, not as directories."""
    listed = (each.get("volumeDevices") for each in programs if isinstance(each, dict))
    items = (item for items in listed if isinstance(items, list) for item in items)
    return frozenset(str(item.get("name")) for item in items if isinstance(item, dict))


def read_volumes(pod: S, hooks: Hooks = _NO_RULES) -> Iterator[PodVolume[S]]:
    """Yields the volumes of a pod's spec, in their order.

    `hooks`: the caller's rules for parts of their sources."""
    for item in pod.each(VOLUMES):
        with item:
            name = item.text("name", required=True)
            given = {type_: key for type_, (key, _) in _SOURCES.items() if item.has(key)}
            unknown = [key for key in item.names() if key != "name" and key not in given.values()]
            carried = [key for key in unknown if not given and name and item.carries(key)]
            for key in unknown:
                if key not in carried:
                    item.unsupported(key, f"{NOT_REPRESENTED} as the source of a volume")
            if len(given) > 1:
                item.invalid(None, f"expected one source, found {' and '.join(given.values())}")
            # A volume without a source is an emptyDir, as in Kubernetes.
            found = [_read(item, name, type_, hooks) for type_ in given or ("empty_dir",)]
        if unknown and carried == unknown:
            yield PodVolume(name, CARRIED, {}, item, item)
        elif len(given) > 1 or unknown:
            yield PodVolume(name, "", {}, item, item)
        else:
            yield found[0]


def _read(item: S, name: str, type_: str, hooks: Hooks) -> PodVolume[S]:
    key, part = _SOURCES[type_]
    with item.part(key) as source:
        values = read(FILES.get(type_, part), source, hooks) or {}
        if values.get("default_mode") == USUAL_MODE:
            del values["default_mode"]
        return PodVolume(name, type_, values, item, source)


def volume_name(word: str, shown: str) -> str:
    """Returns the name of the volume for a source; if the source's name does not fit, the name has its digest.

    `word` is `claim`, `configmap`, `secret` or `hostpath`, or one of the middle two after `optional-`.
    """
    name = shown if word == "claim" else f"{word}-{shown}"
    if len(name) <= _LONGEST_NAME and re.fullmatch(DNS_LABEL, name):
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", shown.lower()).strip("-")[:40].strip("-")
    digest = hashlib.sha256(shown.encode()).hexdigest()[:8]
    return "-".join(part for part in (word, readable, digest) if part)
