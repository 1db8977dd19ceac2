"""The facts that decide whether a container is admitted.

The facts are the names that the container needs, and the state of its namespace. The rules (`containers.admission`)
decide by these values alone. For a new container, one statement reads them (`repository.creation`). For a change, one
statement reads the container with its namespace (`repository.changing`), and another statement looks up the needs of
the changed container, if there are any.
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
    """The names to look up in a container's namespace: its new services, its sources and its volumes."""

    services: frozenset[str] = frozenset()
    config_maps: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()


class NamespaceFacts(Value, frozen=True):
    """The names of `Needs` that exist in the namespace.

    `services`: the name of the container that has the service; None for a Service without a container. `secrets`: their
    types, by name.
    """

    services: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    config_maps: frozenset[str] = frozenset()
    secrets: Mapping[str, str] = msgspec.field(default_factory=dict)
    volumes: Mapping[str, MountedVolume] = msgspec.field(default_factory=dict)


class CreationFacts(Value, frozen=True):
    """The facts that decide about a new container, and its values from the database.

    `used`: containers, millicores and bytes that count against the quota. `name_taken`: whether another container has
    the name, and whether it is being deleted. `volume_definitions`: the volumes as PostgreSQL wrote them, for its
    comparison. `container_id` and `moment`: for the new row. `service_types`: the types that the namespace allows, if
    they are known and the number of Services is not limited.
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
    """A container before its change, its namespace, and the database's time.

    `used`: containers, millicores and bytes that count against the quota, without the container's own.
    """

    namespace: Namespace
    stored: Container
    used: tuple[int, int, int]
    moment: datetime


class NewContainer(Value, frozen=True):
    """An id from the database for one new container, and the database's time when it returned the id."""

    container_id: ContainerId
    moment: datetime
