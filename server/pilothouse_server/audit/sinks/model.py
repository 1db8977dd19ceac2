"""A sink of the audit log, and a record as it is sent, independent of how either is stored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

Kind = Literal["file", "http", "syslog", "otlp"]
Format = Literal["ocsf", "cloudevents"]
Status = Literal["pending", "healthy", "failing"]


class Record(msgspec.Struct, frozen=True):
    """One record: its hashed fields (docs/audit-format.md), its sequence and its namespace's name.

    `record_hash` is the hash of `canonical`.
    """

    sequence: int
    fields: dict[str, Any]
    canonical: bytes
    record_hash: bytes
    namespace: str


class SinkSecrets(msgspec.Struct, frozen=True):
    """The secrets of a sink, encrypted in its row. Key and certificates are PEM.

    `headers` are sent with each request; `signing_key` signs its body.
    """

    headers: Mapping[str, str] = {}
    signing_key: str = ""
    client_key: str = ""

    def __repr__(self) -> str:
        return "SinkSecrets(…)"


class AuditSink(msgspec.Struct, frozen=True):
    """A sink and its progress.

    `address` is a URL, or the plain name of a file. `position` is the sequence of the last record that was
    acknowledged. `skipped` counts records that retention dropped before they could be sent.
    `certificate_authority` and `client_certificate` are PEM, '' if there is none. `lag_records` and
    `oldest_pending_at` describe the records that are still to be sent.
    """

    id: int
    uid: str
    name: str
    kind: Kind
    address: str
    format: Format = "ocsf"
    required: bool = False
    certificate_authority: str = ""
    client_certificate: str = ""
    rotate_bytes: int = 0
    keep_files: int = 0
    position: int = 0
    skipped: int = 0
    status: Status = "pending"
    reason: str = ""
    message: str = ""
    attempts: int = 0
    failing_since: datetime | None = None
    last_delivered_at: datetime | None = None
    created_at: datetime | None = None
    created_by: str = ""
    lag_records: int = 0
    oldest_pending_at: datetime | None = None


class LeasedSink(msgspec.Struct, frozen=True):
    """A sink that this server may send to while it holds the lease under this epoch.

    `beyond`: its cursor is beyond the end of the log.
    """

    sink: AuditSink
    epoch: int
    beyond: bool = False

    def moved_to(self, position: int) -> LeasedSink:
        """Returns the sink once it has acknowledged the record at `position`."""
        return LeasedSink(
            msgspec.structs.replace(self.sink, position=position, status="healthy", attempts=0), self.epoch
        )
