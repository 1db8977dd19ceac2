"""Config maps and secrets that a container is given, and the permission to give them.

A caller who decides which program a container runs can read everything that it is given: by a program of their own,
by `exec`, by its log. So the caller needs `config.use` to give it a secret, though nobody reveals its values to them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pilothouse_server.authorization.access import May
from pilothouse_server.containers.model import Container, EnvFrom, EnvVar, SourceFiles
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.values.volumes import VolumeMount

CONFIG_USE_PERMISSION = "config.use"
WORDS = {"config_map": "config map", "secret": "secret"}


def source_fields(container: Container) -> list[tuple[str, EnvVar | EnvFrom | SourceFiles]]:
    """The variables and sources of variables of all programs of a container, and the volumes of its pods alone, with
    their fields.
    """
    found: list[tuple[str, EnvVar | EnvFrom | SourceFiles]] = []
    for field, program in container.programs():
        found += [(f"{field}.env[{i}]", item) for i, item in enumerate(program.env)]
        found += [(f"{field}.env_from[{i}]", item) for i, item in enumerate(program.env_from)]
    for i, volume in enumerate(container.spec.pod_volumes):
        found.append((f"container.pod_volumes[{i}].{volume.source.value_from}", volume.source))
    return found


def mount_fields(container: Container) -> list[tuple[str, VolumeMount]]:
    """The mounts of all programs of a container, with the fields that they stand in."""
    return [
        (f"{field}.volume_mounts[{i}]", item)
        for field, program in container.programs()
        for i, item in enumerate(program.volume_mounts)
    ]


def refuse_use(container: Container, may: May) -> None:
    """Raises PermissionDenied for the first config map or secret that the container is given, unless the caller may.

    Its volumes must have been looked up.
    """
    for field, kind, name in _given(container):
        if may(CONFIG_USE_PERMISSION):
            return
        raise PermissionDenied(
            f'permission {CONFIG_USE_PERMISSION} is needed in namespace "{container.namespace}": '
            f'{field} gives the container {WORDS[kind]} "{name}"',
            reason="PERMISSION_DENIED",
            metadata={
                "permission": CONFIG_USE_PERMISSION,
                "namespace": container.namespace,
                "field": field,
            },
        )


def _given(container: Container) -> Iterator[tuple[str, str, str]]:
    """The field, the kind and the name of each."""
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
