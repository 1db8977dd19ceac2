"""SQL about the volumes that containers mount: their definitions, and the rows of mounts.

The mounts themselves lie in the document `containers.spec`; `container_volumes` repeats them as rows, those of init
containers included, because a volume must know its users. Where a container and its init container mount the same
volume in the same place, one row stands for both.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, ScalarSelect, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB

from pilothouse_server.containers.model import Container, MountedVolume
from pilothouse_server.containers.tables import CONTAINER_VOLUMES, CONTAINERS, VOLUMES


def mounted_volumes() -> ScalarSelect[Any]:
    """The volumes that a row of `CONTAINERS` mounts, as JSON; null where there is none."""
    return (
        select(func.jsonb_agg(_definition().distinct()))
        .select_from(CONTAINER_VOLUMES.join(VOLUMES, VOLUMES.c.id == CONTAINER_VOLUMES.c.volume_id))
        .where(CONTAINER_VOLUMES.c.container_id == CONTAINERS.c.id)
        .scalar_subquery()
    )


def volumes_of(document: list[dict[str, Any]] | None) -> tuple[MountedVolume, ...]:
    """Returns the values of `mounted_volumes`, by name: their order is part of a pod's template."""
    volumes = msgspec.convert(document or [], list[MountedVolume])
    return tuple(sorted(volumes, key=lambda volume: volume.name))


def mount_rows(container: Container) -> list[dict[str, Any]]:
    """Rows of `container_volumes` less their owner, with the volume's name in place of its id; a container's own
    are no volumes of the namespace.
    """
    own = container.spec.own_volumes
    return [
        {
            "volume": mount.volume,
            "mount_path": mount.mount_path,
            "read_only": mount.read_only,
            "sub_path": mount.sub_path or None,
        }
        for mount in container.all_mounts
        if mount.volume not in own
    ]


def _definition() -> ColumnElement[Any]:
    return func.volume_definition(literal_column("volumes"), type_=JSONB)
