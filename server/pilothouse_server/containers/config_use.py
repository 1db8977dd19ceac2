"""The permission to give a container config maps, secrets and existing claims.

A caller that decides which program a container runs can read everything that the container is given: with a program of
the caller's own, with `exec`, or in the log. So the caller needs `config.use` to give the container a secret, although
no call reveals the secret's values. To give it a claim that the platform does not have, the caller needs
`storage.create`, as for importing that claim.
"""

from __future__ import annotations

from collections.abc import Iterator

from pilothouse_manifests.pod_volumes import ROOT_CERTIFICATE
from pilothouse_server.authorization.access import May
from pilothouse_server.containers.model import Container, EnvFrom, EnvVar
from pilothouse_server.containers.own_volumes import ExistingClaim, SourceKeys
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.values.volumes import VolumeMount

CONFIG_USE_PERMISSION = "config.use"
CLAIM_PERMISSION = "storage.create"
_FREE = ("config_map", ROOT_CERTIFICATE)
WORDS = {"config_map": "config map", "secret": "secret"}

SourceField = tuple[str, EnvVar | EnvFrom | SourceKeys]


def source_fields(container: Container) -> list[SourceField]:
    """Returns the variables and sources of a container, with their fields.

    They are the variables, variable sources and pod volume sources. The config map with the cluster's root certificate
    is left out.
    """
    found: list[SourceField] = []
    for field, program in container.programs():
        found += [(f"{field}.env[{i}]", item) for i, item in enumerate(program.env)]
        found += [(f"{field}.env_from[{i}]", item) for i, item in enumerate(program.env_from)]
    for i, volume in enumerate(container.spec.pod_volumes):
        found += [(f"container.pod_volumes[{i}].{field}", keys) for field, keys in volume.sources()]
    return [each for each in found if (each[1].value_from, each[1].source_name) != _FREE]


def claim_fields(container: Container) -> list[tuple[str, ExistingClaim]]:
    """Returns the claims that exist on the cluster only, with their fields."""
    return [
        (f"container.pod_volumes[{number}].existing_claim", each.source)
        for number, each in enumerate(container.spec.pod_volumes)
        if isinstance(each.source, ExistingClaim)
    ]


def mount_fields(container: Container) -> list[tuple[str, VolumeMount]]:
    """Returns the mounts of all programs of a container, with their fields."""
    return [
        (f"{field}.volume_mounts[{i}]", item)
        for field, program in container.programs()
        for i, item in enumerate(program.volume_mounts)
    ]


def refuse_use(container: Container, may: May) -> None:
    """Raises PermissionDenied for the first source that the caller may not give.

    Sources are config maps, secrets and existing claims. The volumes of the container must have been looked up.
    """
    for field, kind, name in _given(container):
        if not may(CONFIG_USE_PERMISSION):
            raise _denied(container, CONFIG_USE_PERMISSION, field, f'{WORDS[kind]} "{name}"')
    for field, claim in claim_fields(container):
        if not may(CLAIM_PERMISSION):
            raise _denied(container, CLAIM_PERMISSION, field, f'PersistentVolumeClaim "{claim.claim_name}"')


def _denied(container: Container, permission: str, field: str, what: str) -> PermissionDenied:
    return PermissionDenied(
        f'permission {permission} is needed in namespace "{container.namespace}": '
        f"{field} gives the container {what}",
        reason="PERMISSION_DENIED",
        metadata={"permission": permission, "namespace": container.namespace, "field": field},
    )


def _given(container: Container) -> Iterator[tuple[str, str, str]]:
    """Yields the field, the kind and the name of each config map and secret that the container is given."""
    for field, variable in source_fields(container):
        if variable.value_from in WORDS:
            yield f"{field}.source_name", variable.value_from, variable.source_name
    volumes = {volume.name: volume for volume in container.volumes}
    for field, mount in mount_fields(container):
        volume = volumes.get(mount.volume)
        if volume is not None and volume.type in WORDS:
            yield f"{field}.volume", volume.type, volume.source_name
    for number, name in enumerate(container.spec.image_pull_secrets):
        yield f"container.image_pull_secrets[{number}]", "secret", name
