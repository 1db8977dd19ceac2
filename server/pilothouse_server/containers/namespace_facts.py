"""The facts by which a container is admitted: its needs of the namespace, and the namespace's state.

The rules (`containers.admission`) decide by these values alone. One statement reads them for a new container
(`repository.creation`). For one that changes, a statement reads the container with its namespace
(`repository.changing`), and another one reads the needs of the changed container, if there are any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from pilothouse_server.containers.model import Container, MountedVolume, Value
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.values.resources import ContainerId


class Needs(Value, frozen=True):
    """The names that a container needs in its namespace: those of its own services, and of its sources and volumes."""

    services: frozenset[str] = frozenset()
    config_maps: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()


class NamespaceFacts(Value, frozen=True):
    """The part of that which the namespace has.

    `services`: those that exist, with the name of their container; None: a Service of its own. `secrets`: their types,
    by name.
    """

    services: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    config_maps: frozenset[str] = frozenset()
    secrets: Mapping[str, str] = msgspec.field(default_factory=dict)
    volumes: Mapping[str, MountedVolume] = msgspec.field(default_factory=dict)


class CreationFacts(Value, frozen=True):
    """The facts that decide whether a new container may be made, and the values it gets from the database.

    `used`: containers, millicores and bytes that count against the quota. `name_taken`: by which other container.
    `volume_definitions`: the volumes as PostgreSQL wrote them, for its comparison. `container_id` and `moment` are
    those of the new row. `service_types`: those that the namespace allows, if they are known and their number is not
    limited.
    """

    namespace: Namespace
    used: tuple[int, int, int]
    name_taken: Literal["taken", "being_deleted"] | None
    found: NamespaceFacts
    volume_definitions: str | None
    container_id: ContainerId
    moment: datetime
    service_types: Sequence[str] | None = None


class ChangeFacts(Value, frozen=True):
    """A container that is to change, its namespace, and the time by the database.

    `used`: containers, millicores and bytes that count against the quota, less its own.
    """

    namespace: Namespace
    stored: Container
    used: tuple[int, int, int]
    moment: datetime


class NewContainer(Value, frozen=True):
    """An id that the database has given for one new container, and the database's time when it did."""

    container_id: ContainerId
    moment: datetime
