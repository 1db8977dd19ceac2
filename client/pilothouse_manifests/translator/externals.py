"""References of a manifest to config maps and secrets that only the cluster has.

A manifest does not name the owner of an object. A reference becomes `external` if the documents do not contain the
object, the platform does not have it, and either the namespace's `external_sources` allow its name or a container on
the server already has the reference as external. Every other name is the platform's; if the object is missing, the
server names the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pilothouse_manifests.fields import Values
from pilothouse_manifests.name_patterns import is_listed
from pilothouse_manifests.pod_volumes import FILES
from pilothouse_manifests.translator.manifest import Manifest

# A kind (`config_map` or `secret`) and a name.
SourceName = tuple[str, str]


def mark_external(
    manifest: Manifest,
    patterns: Sequence[str],
    existing: Iterable[Values],
    is_missing: Callable[[str, str], bool],
) -> None:
    """Sets `external` in the references of the workloads and in the volumes that they imply.

    `patterns`: the namespace's `external_sources`; `existing`: its containers. `is_missing` returns whether the
    platform lacks the object of this kind and name; it is called once for each name that may be external.
    """
    known = {name for each in existing for name, item in _named(each) if item.get("external")}
    missing: dict[SourceName, bool] = {}
    for name, item in _unbrought(manifest):
        if not (name in known or is_listed(name[1], patterns)):
            continue
        if name not in missing:
            missing[name] = is_missing(*name)
        if missing[name]:
            item["external"] = True


def sources_elsewhere(manifest: Manifest) -> set[SourceName]:
    """Returns the config maps and secrets that the manifest refers to and does not contain."""
    return {name for name, _ in _unbrought(manifest)}


def _unbrought(manifest: Manifest) -> Iterator[tuple[SourceName, Values]]:
    brought = {(config.kind, config.name) for config in manifest.configs}
    references = [found for workload in manifest.workloads for found in _named(workload.values)]
    references += [found for volume in manifest.volumes for found in _of_volume(volume.values)]
    return ((name, item) for name, item in references if name not in brought)


def _named(container: Values) -> Iterator[tuple[SourceName, Values]]:
    """Yields the references of a container, with the values that contain them."""
    for program in (container, *container.get("sidecars", ()), *container.get("init_containers", ())):
        for item in (*program.get("env", ()), *program.get("env_from", ())):
            if item.get("value_from") in FILES:
                yield (item["value_from"], item.get("source_name", "")), item
    for volume in container.get("pod_volumes", ()):
        for holder in (volume, *volume.get("projected", {}).get("sources", ())):
            for kind in FILES:
                if kind in holder:
                    yield (kind, holder[kind].get("source_name", "")), holder[kind]


def _of_volume(volume: Values) -> Iterator[tuple[SourceName, Values]]:
    if volume.get("type") in FILES:
        yield (volume["type"], volume.get("source_name", "")), volume
