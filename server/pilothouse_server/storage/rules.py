"""The rules of a single volume: which fields belong to which type, and how a claim may grow.

Rules of single fields (lengths, forms) are declared in the proto file and were checked before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from pilothouse_manifests.table import MEDIUM
from pilothouse_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Violation,
    missing_field,
    over_all_namespaces_needed,
)
from pilothouse_server.storage.model import Volume
from pilothouse_server.values.quantity import NANOS, Quantity, normalise
from pilothouse_server.values.volumes import (
    ACCESS_MODES,
    BLOCK,
    ROOT_WORDS,
    VOLUME_MODES,
    VolumeType,
    canonical_mount_path,
    widest_mode,
)

# The permission to mount folders of nodes. Of the built-in roles only the administrator's has it. It works only from a
# grant over all namespaces.
HOST_PATH_PERMISSION = "storage.host_path"
RESERVED_DOMAIN = "pilothouse.dev"
SMALLER = "SIZE_SMALLER"

# Fields that only some types have, with these types.
_OWNERS: Mapping[str, frozenset[VolumeType]] = {
    "storage_class": frozenset({"persistent_volume_claim"}),
    "access_mode": frozenset({"persistent_volume_claim"}),
    "access_modes": frozenset({"persistent_volume_claim"}),
    "volume_mode": frozenset({"persistent_volume_claim"}),
    "size": frozenset({"persistent_volume_claim", "empty_dir"}),
    "host_path": frozenset({"host_path"}),
    "source_name": frozenset({"config_map", "secret"}),
    "medium": frozenset({"empty_dir"}),
    "optional": frozenset({"config_map", "secret"}),
    "external": frozenset({"config_map", "secret"}),
}
_REQUIRED: Mapping[VolumeType, str] = {
    "persistent_volume_claim": "size",
    "config_map": "source_name",
    "secret": "source_name",
    "host_path": "host_path",
}


def checked(volume: Volume) -> Volume:
    """Returns the volume complete and in normal form.

    Raises:
        InvalidArgument: names every field that breaks a rule.
    """
    mount_path = canonical_mount_path(volume.mount_path)
    violations = [
        *_type_violations(volume),
        *_mode_violations(volume),
        *_path_violations(volume, mount_path),
        *_key_violations(volume),
    ]
    if not volume.name:
        violations.insert(0, missing_field("volume.name"))
    if violations:
        raise _invalid(violations)
    modes = volume.access_modes
    if volume.is_claim and not modes:
        modes = (volume.access_mode or "ReadWriteOnce",)
    return msgspec.structs.replace(
        volume,
        size=normalise(volume.size),
        access_mode=widest_mode(modes),
        access_modes=modes,
        volume_mode=BLOCK if volume.volume_mode == BLOCK else "",
        mount_path=mount_path,
    )


def _type_violations(volume: Volume) -> Iterator[Violation]:
    """Yields violations for fields that the type does not have, and for missing fields that it requires."""
    for field, owners in _OWNERS.items():
        if getattr(volume, field) and volume.type not in owners:
            message = f"must be empty for a volume of type {volume.type.upper()}"
            yield Violation(f"volume.{field}", "unused", message)
    needed = _REQUIRED.get(volume.type)
    if needed is not None and not getattr(volume, needed):
        message = f"must be set for a volume of type {volume.type.upper()}"
        yield Violation(f"volume.{needed}", "required", message)
    elif volume.is_claim and Quantity.parse(volume.size).nanos < NANOS:
        yield Violation("volume.size", "minimum", "must be at least one byte")
    if volume.medium and not MEDIUM.fullmatch(volume.medium):
        words = "must be empty, Memory, HugePages or HugePages-SIZE such as HugePages-2Mi"
        yield Violation("volume.medium", "one_of", words)


def _mode_violations(volume: Volume) -> Iterator[Violation]:
    modes, field = volume.access_modes, "volume.access_modes"
    if not ACCESS_MODES.issuperset(modes):
        yield Violation(field, "one_of", f"must contain only {', '.join(sorted(ACCESS_MODES))}")
    elif len(frozenset(modes)) < len(modes):
        yield Violation(field, "unique", "must have each mode once")
    elif "ReadWriteOncePod" in modes and len(modes) > 1:
        yield Violation(field, "alone", "must not have another mode next to ReadWriteOncePod")
    elif modes and volume.access_mode not in ("", widest_mode(modes)):
        words = f"must be the widest of access_modes, {widest_mode(modes)}, or be left out"
        yield Violation("volume.access_mode", "agrees", words)
    if volume.volume_mode and volume.volume_mode not in VOLUME_MODES:
        yield Violation("volume.volume_mode", "one_of", "must be Filesystem or Block")


def _path_violations(volume: Volume, mount_path: str) -> Iterator[Violation]:
    if mount_path == "/":
        yield Violation("volume.mount_path", "root", ROOT_WORDS)
    if ".." in volume.host_path.split("/"):
        yield Violation("volume.host_path", "format", "must not contain '..'")


def _key_violations(volume: Volume) -> Iterator[Violation]:
    for field in ("labels", "annotations"):
        for key in getattr(volume, field):
            if _is_reserved(key):
                words = f'"{key}": keys of {RESERVED_DOMAIN} are set by the platform'
                yield Violation(f"volume.{field}", "reserved", words)


def check_growth(stored: Volume, wanted: Volume) -> None:
    """Raises InvalidArgument if a claim would shrink.

    A size that the cluster refused never took effect, so it may be lowered again, down to the bound size.
    """
    if not stored.is_claim:
        return
    if stored.is_lost:
        return
    refused = any(each.type == "Applied" and each.status == "False" for each in stored.observed.conditions)
    least = stored.observed.capacity if refused else stored.size
    if least and Quantity.parse(wanted.size) < Quantity.parse(least):
        description = f"must not be below {least}: a claim can grow, not shrink"
        raise _invalid([Violation("volume.size", "minimum", description)], reason=SMALLER)


def check_lost(volume: Volume) -> None:
    """Raises FailedPrecondition unless somebody else deleted the volume's claim.

    A claim that still has data must not be replaced, and a StatefulSet replaces its own claims.
    """
    if volume.templated:
        raise FailedPrecondition(
            f'the claim of volume "{volume.name}" comes from a template: only its StatefulSet creates another one, '
            "with the next pod that needs it",
            reason="CLAIM_OF_TEMPLATE",
        )
    if not volume.is_lost:
        raise FailedPrecondition(
            f'the claim of volume "{volume.name}" is not lost, so it is not replaced',
            reason="CLAIM_NOT_LOST",
            metadata={"status": volume.observed.status, "reason": volume.observed.reason},
        )


def refuse_exceeded_storage(namespace: str, limit: str, used: int, asked: int) -> None:
    """Raises ResourceExhausted if `asked` more bytes exceed the quota of a namespace; `limit` is a quantity."""
    if not asked or used + asked <= Quantity.parse(limit).whole:
        return
    taken, more = Quantity.from_bytes(used).text, Quantity.from_bytes(asked).text
    raise ResourceExhausted(
        f'quota of namespace "{namespace}" exceeded: storage {taken} used, {more} requested, {limit} allowed',
        reason="QUOTA_EXCEEDED",
        metadata={"resource": "storage", "limit": limit, "used": taken, "asked": more},
    )


def refuse_host_path(namespace: str, name: str, volume_type: VolumeType) -> None:
    """Raises PermissionDenied if the volume is a folder of the node; for callers without `HOST_PATH_PERMISSION`."""
    if volume_type == "host_path":
        raise over_all_namespaces_needed(
            HOST_PATH_PERMISSION, namespace, f'volume "{name}" is a folder of the node', volume=name
        )


def _is_reserved(key: str) -> bool:
    prefix, slash, _ = key.partition("/")
    return bool(slash) and (prefix == RESERVED_DOMAIN or prefix.endswith(f".{RESERVED_DOMAIN}"))


def _invalid(violations: list[Violation], *, reason: str = "INVALID_VOLUME") -> InvalidArgument:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return InvalidArgument(
        f"{first.field}: {first.description}{more}",
        reason=reason,
        metadata={"field": first.field},
        violations=violations,
    )
