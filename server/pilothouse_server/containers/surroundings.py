"""What a container needs of its namespace, and what is there: the values by which a new one is admitted.

They are read by one statement before a container is made at once, and by several within a transaction that changes one;
the rules (`containers.admission`) do not know which.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from pilothouse_server.containers.model import MountedVolume, Value
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.values.resources import ContainerId


class Needs(Value, frozen=True):
    """The names in its namespace that a container needs: services of its own, and what must be there for it."""

    services: frozenset[str] = frozenset()
    config_maps: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()


class Surroundings(Value, frozen=True):
    """What its namespace has of that.

    `services`: those that another container has, with its name. `secrets`: the types of those there are, by name.
    """

    services: Mapping[str, str] = msgspec.field(default_factory=dict)
    config_maps: frozenset[str] = frozenset()
    secrets: Mapping[str, str] = msgspec.field(default_factory=dict)
    volumes: Mapping[str, MountedVolume] = msgspec.field(default_factory=dict)


class Admission(Value, frozen=True):
    """What decides whether a new container may be made, and what it gets from the database.

    `quota` is the namespace's as it is stored; `used`: containers, millicores and bytes that count against it.
    """

    namespace: Namespace
    quota: str | None
    used: tuple[int, int, int]
    name_taken: bool
    surroundings: Surroundings
    container_id: ContainerId
    moment: datetime
