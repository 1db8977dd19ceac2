"""What a cluster is, apart from how it is stored, sent or reached."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

ClusterStatus = Literal["pending", "healthy", "unreachable", "unauthorized", "deregistering"]


class Cluster(msgspec.Struct, frozen=True):
    """`credentials_expires_at` is known for stored credentials that say it; `leader` is the server that watches it."""

    id: int
    uid: str
    name: str
    api_server: str
    display_name: str = ""
    labels: dict[str, str] = {}
    status: ClusterStatus = "pending"
    reason: str = ""
    message: str = ""
    version: str = ""
    last_seen_at: datetime | None = None
    stale_since: datetime | None = None
    credentials_expires_at: datetime | None = None
    leader: str = ""
    resource_version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None
