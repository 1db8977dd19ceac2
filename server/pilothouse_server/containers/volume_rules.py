"""The rules for emptyDirs, pod volumes, and references to fields of the pods.

Kubernetes' own rules come from its validation of volumes (v1.36): no two files of a folder have the same path, a file's
path does not begin with two dots, and a reference to an amount names the program that has it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from pilothouse_manifests.table import MEDIUM
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.own_volumes import (
    DownwardFile,
    DownwardFiles,
    OwnVolume,
    ProjectedFields,
    ProjectedFiles,
    ServiceAccountToken,
)

_FIELD_PATHS = frozenset(
    {"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
)
_FIELD_KEYS = re.compile(r"metadata\.(labels|annotations)\['[^'\x00-\x1f]{1,317}'\]")
_AMOUNT_PATHS = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMGTPE]i)")
_CPU_DIVISORS = ("1", "1m")
_BYTE_DIVISORS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SHORTEST_TOKEN_SECONDS = 600


def check_field(found: Findings, at: str, path: str, allowed: Collection[str]) -> None:
    """Notes a field of the pod that cannot be referenced; labels and annotations are referenced by their keys."""
    if path not in allowed and not _FIELD_KEYS.fullmatch(path):
        known = ", ".join(sorted(allowed))
        words = f"must be one of {known}, metadata.labels['KEY'], metadata.annotations['KEY']"
        found.add(f"{at}.source_key", "one_of", words)


def check_amount(found: Findings, at: str, path: str, divisor: str) -> None:
    """Notes a request or limit that cannot be referenced, and a divisor that it does not allow."""
    if path and not _AMOUNT_PATHS.fullmatch(path):
        words = "must be limits. or requests. and one of cpu, memory, ephemeral-storage, hugepages-SIZE"
        found.add(f"{at}.source_key", "one_of", words)
    allowed = _CPU_DIVISORS if path.endswith(".cpu") else _BYTE_DIVISORS
    # The API writes 0 if no divisor is given.
    if divisor not in ("", "0", *allowed):
        found.add(f"{at}.divisor", "one_of", f"must be one of {', '.join(allowed)}")


def check_pod_volumes(found: Findings, container: Container) -> None:
    """Notes each broken rule of emptyDirs and pod volumes."""
    spec = container.spec
    found.unique("container.empty_dirs", enumerate(item.name for item in spec.empty_dirs), "the name")
    for index, item in enumerate(spec.empty_dirs):
        if item.medium and not MEDIUM.fullmatch(item.medium):
            words = "must be empty, Memory, HugePages or HugePages-SIZE such as HugePages-2Mi"
            found.add(f"container.empty_dirs[{index}].medium", "one_of", words)
    folders = {item.name for item in spec.empty_dirs}
    found.unique("container.pod_volumes", enumerate(each.name for each in spec.pod_volumes), "the name")
    if not spec.pod_volumes:
        return
    programs = {program.name for _, program in container.programs()}
    for index, volume in enumerate(spec.pod_volumes):
        field = f"container.pod_volumes[{index}]"
        if volume.name in folders:
            found.add(f"{field}.name", "unique", f'one of empty_dirs is called "{volume.name}", too')
        _check_files(found, field, volume)
        for at, each in _downward_files(field, volume):
            _check_downward(found, at, each, programs)


def _check_files(found: Findings, field: str, volume: OwnVolume) -> None:
    """Notes files with the path of an earlier file, and paths that lead out of the folder."""
    seen: set[str] = set()
    for at, path in _paths(found, field, volume):
        if path in seen:
            found.add(at, "unique", "the path is duplicate")
        elif path.startswith(".."):
            found.add(f"{at}.path", "format", "must not begin with '..'")
        seen.add(path)


def _paths(found: Findings, field: str, volume: OwnVolume) -> Iterator[tuple[str, str]]:
    """Yields the path of each named file, with its field; notes tokens whose lifetime is too short."""
    source = volume.source
    for place, keys in volume.sources():
        yield from ((f"{field}.{place}.items[{n}]", each.path) for n, each in enumerate(keys.items))
    yield from ((at, each.path) for at, each in _downward_files(field, volume))
    if not isinstance(source, ProjectedFiles):
        return
    for number, each in enumerate(source.sources):
        if isinstance(each.source, ServiceAccountToken):
            at = f"{field}.projected.sources[{number}].service_account_token"
            if 0 < each.source.expiration_seconds < _SHORTEST_TOKEN_SECONDS:
                words = f"must be at least {_SHORTEST_TOKEN_SECONDS}"
                found.add(f"{at}.expiration_seconds", "minimum", words)
            yield at, each.source.path


def _downward_files(field: str, volume: OwnVolume) -> Iterator[tuple[str, DownwardFile]]:
    source = volume.source
    if isinstance(source, DownwardFiles):
        yield from ((f"{field}.downward_api.items[{n}]", each) for n, each in enumerate(source.items))
    elif isinstance(source, ProjectedFiles):
        for number, each in enumerate(source.sources):
            if isinstance(each.source, ProjectedFields):
                at = f"{field}.projected.sources[{number}].downward_api"
                yield from ((f"{at}.items[{n}]", item) for n, item in enumerate(each.source.items))


def _check_downward(found: Findings, at: str, file: DownwardFile, programs: Collection[str]) -> None:
    if file.value_from == "field_ref":
        check_field(found, at, file.source_key, _FIELD_PATHS)
        for name in ("source_name", "divisor"):
            if getattr(file, name):
                found.add(f"{at}.{name}", "unused", "is only allowed with value_from RESOURCE_FIELD_REF")
    elif file.value_from == "resource_field_ref":
        check_amount(found, at, file.source_key, file.divisor)
        if file.source_name not in programs:
            named = f'"{file.source_name}" is not one' if file.source_name else "none is given"
            found.add(f"{at}.source_name", "exists", f"must be a program of the pod: {named}")
    else:
        found.add(f"{at}.value_from", "one_of", "must be one of FIELD_REF, RESOURCE_FIELD_REF")
