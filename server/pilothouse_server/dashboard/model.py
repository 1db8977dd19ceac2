"""Values of the overview and the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from pilothouse_server.namespaces.model import Quota

# The namespaces in which the caller may list a noun, by the noun's word; None: all. Nouns without any are left out.
Sights = Mapping[str, frozenset[int] | None]
HOUR, DAY = 3600, 86_400
NounWord = Literal[
    "namespace",
    "application",
    "container",
    "service",
    "object",
    "volume",
    "config",
    "run",
    "user",
    "grant",
    "cluster",
    "image",
]


class OverviewQuestion(msgspec.Struct, frozen=True):
    """The parameters of an overview; `namespace_id` is None for all that the caller sees."""

    namespace_id: int | None
    most_wrong: int
    most_namespaces: int
    usage_points: int
    usage_window: timedelta


class Count(msgspec.Struct, frozen=True):
    """The number of a noun's resources in a namespace with one status, as the database spells it."""

    noun: str
    namespace_id: int
    status: str
    count: int


class UsagePoint(msgspec.Struct, frozen=True):
    """Average usage of the containers of a namespace during a step."""

    namespace_id: int
    at: datetime
    cpu_cores: float
    memory_bytes: float


class Wrong(msgspec.Struct, frozen=True):
    """A resource that needs attention; `status` is in capitals."""

    noun: NounWord
    namespace: str
    name: str
    kind: str
    status: str
    reason: str
    message: str
    restart_count: int
    update_time: datetime


class SeenNamespace(msgspec.Struct, frozen=True):
    """A namespace that the caller may read, with its cluster, and since when the cluster has been unreachable."""

    id: int
    name: str
    cluster: str
    quota: Quota | None
    stale_since: datetime | None


class Overview(msgspec.Struct, frozen=True):
    """The numbers of one moment."""

    time: datetime
    namespaces: Sequence[SeenNamespace]
    counts: Sequence[Count]
    # Numbers of resources that need attention, by namespace.
    wrong: Mapping[int, int]
    worst: Sequence[Wrong]
    used: Mapping[int, Quota]
    usage: Sequence[UsagePoint]


class Found(msgspec.Struct, frozen=True):
    """A resource that a search found; `status` is in capitals."""

    noun: NounWord
    namespace: str
    name: str
    uid: str
    kind: str
    status: str
    reason: str
    image: str
    labels: dict[str, str]
