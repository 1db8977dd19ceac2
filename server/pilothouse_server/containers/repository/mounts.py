"""SQL about the volumes that containers mount: definitions, and rows of mounts.

The mounts themselves are in the document `containers.spec`. `container_volumes` repeats them as rows, including those
of init containers, so that the users of a volume can be queried. If a container and its init container mount the same
volume at the same path, they have one row.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, ScalarSelect, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB

from pilothouse_server.containers.model import Container, MountedVolume
from pilothouse_server.containers.tables import CONTAINER_VOLUMES, CONTAINERS, VOLUMES


def mounted_volumes() -> ScalarSelect[Any]:
    """Returns the query for the volumes that a row of `CONTAINERS` mounts, as JSON; null if there is none."""
    return (
        select(func.jsonb_agg(_definition().distinct()))
        .select_from(CONTAINER_VOLUMES.join(VOLUMES, VOLUMES.c.id == CONTAINER_VOLUMES.c.volume_id))
        .where(CONTAINER_VOLUMES.c.container_id == CONTAINERS.c.id)
        .scalar_subquery()
    )


def volumes_of(document: list[dict[str, Any]] | None) -> tuple[MountedVolume, ...]:
    """Returns the values of `mounted_volumes`, sorted by name, because their order is part of a pod's template."""
    volumes = msgspec.convert(document or [], list[MountedVolume])
    return tuple(sorted(volumes, key=lambda volume: volume.name))


def mount_rows(container: Container) -> list[dict[str, Any]]:
    """Returns rows of `container_volumes` without their owner.

    They have the volume's name instead of its id. Mounts of the pods' own volumes have no row.
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
