"""References of a manifest to config maps and secrets that only the cluster has.

A manifest does not name the owner of an object. A name becomes `external` if the files do not bring it, the platform
does not have it, and the namespace's `external_sources` allow it or the container on the server has it as external
already.
Every other name stays the platform's, and the server says what to do where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pilothouse_client.client import Nouns
from pilothouse_client.errors import NotFoundError, PermissionDeniedError
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.fields import Values
from pilothouse_manifests.name_patterns import is_listed
from pilothouse_manifests.pod_volumes import FILES
from pilothouse_manifests.translator.manifest import Manifest

_SourceName = tuple[str, str]


def mark_external(
    client: Nouns[BlockingTransport],
    manifest: Manifest,
    namespace: str,
    patterns: Sequence[str],
    existing: Iterable[Values],
) -> None:
    """Sets `external` in the references of the workloads and in the volumes that they imply.

    `patterns`: the namespace's `external_sources`; `existing`: its containers. Only names that may be external are
    looked up.
    """
    brought = {(config.kind, config.name) for config in manifest.configs}
    known = {name for each in existing for name, item in _named(each) if item.get("external")}
    is_missing: dict[_SourceName, bool] = {}
    references = [found for workload in manifest.workloads for found in _named(workload.values)]
    references += [found for volume in manifest.volumes for found in _of_volume(volume.values)]
    for name, item in references:
        if name in brought or not (name in known or is_listed(name[1], patterns)):
            continue
        if name not in is_missing:
            is_missing[name] = _is_missing(client, namespace, *name)
        if is_missing[name]:
            item["external"] = True


def _named(container: Values) -> Iterator[tuple[_SourceName, Values]]:
    """The references of a container, with the values that name them."""
    for program in (container, *container.get("sidecars", ()), *container.get("init_containers", ())):
        for item in (*program.get("env", ()), *program.get("env_from", ())):
            if item.get("value_from") in FILES:
                yield (item["value_from"], item.get("source_name", "")), item
    for volume in container.get("pod_volumes", ()):
        for holder in (volume, *volume.get("projected", {}).get("sources", ())):
            for kind in FILES:
                if kind in holder:
                    yield (kind, holder[kind].get("source_name", "")), holder[kind]


def _of_volume(volume: Values) -> Iterator[tuple[_SourceName, Values]]:
    if volume.get("type") in FILES:
        yield (volume["type"], volume.get("source_name", "")), volume


def _is_missing(client: Nouns[BlockingTransport], namespace: str, kind: str, name: str) -> bool:
    """Whether the platform does not have it; a caller who may not see it leaves the reference the platform's."""
    try:
        if kind == "config_map":
            client.config.get_config_map(namespace=namespace, name=name)
        else:
            client.config.get_secret(namespace=namespace, name=name)
    except NotFoundError:
        return True
    except PermissionDeniedError:
        return False
    return False
